"""What a type checker infers of pipelines. Checked by mypy and pyright, never run."""

import sqlite3
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any, assert_type
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt
from more_itertools import pairwise

from pipekit import (
    BatchIterator,
    Pipeline,
    Row,
    Stage,
    apply,
    apply_at,
    combine_batches,
    flatten,
    keep,
    load_by_random_id,
    mix,
    per_worker,
    pipeline,
    prefetch,
    read_npy,
    read_parquet,
    repeat,
    rows,
    sample,
    shard,
    shuffle,
    take,
    unpack,
)

Image = npt.NDArray[np.float32]
Batch = tuple[Image, npt.NDArray[np.int64]]

ids = ['a', 'b']


def load(id: str) -> tuple[Image, int]:
    raise NotImplementedError


def augment(image: Image, label: int, rng: np.random.Generator) -> tuple[Image, int]:
    raise NotImplementedError


def jitter(pair: tuple[Image, int], rng: np.random.Generator) -> tuple[Image, int]:
    raise NotImplementedError


def stack(samples: list[tuple[Image, int]]) -> Batch:
    raise NotImplementedError


def count(iterable: Iterator[str]) -> Iterator[int]:
    raise NotImplementedError


assert_type(pipeline(ids), Pipeline[str])
assert_type(pipeline(ids, apply(load)), Pipeline[tuple[Image, int]])
assert_type(pipeline(sample(ids, seed=0), apply(load), unpack(augment, seed=1)), Pipeline[tuple[Image, int]])
assert_type(pipeline(sample(ids), apply(load), apply(jitter, seed=0), keep(bool)), Pipeline[tuple[Image, int]])
assert_type(pipeline(ids, take(3), repeat(), shuffle(9), shard(0, 2)), Pipeline[str])
assert_type(pipeline(ids, apply(load), combine_batches(30, list)), Pipeline[list[tuple[Image, int]]])
assert_type(pipeline(ids, apply(load), combine_batches(30, len), prefetch(10)), BatchIterator[int])
assert_type(pipeline(ids, apply(lambda text: text + text), take(1), apply(load)), Pipeline[tuple[Image, int]])  # pyright: ignore
assert_type(pipeline(ids, pairwise), Pipeline[tuple[str, str]])
assert_type(pipeline([[1, 2], [3]], flatten()), Pipeline[int])
assert_type(pipeline(lambda: iter([1.0]), take(1)), Pipeline[float])
assert_type(pipeline(pipeline(ids, take(1)), apply(len)), Pipeline[int])
assert_type(pipeline(apply(load), take(3)), Stage[str, tuple[Image, int]])
assert_type(pipeline(ids, pipeline(apply(load), take(3)), prefetch()), BatchIterator[tuple[Image, int]])
assert_type(pipeline(ids, apply(apply_at(0, len)), prefetch()), BatchIterator[Any])
assert_type(next(iter(pipeline(mix(sample(ids), ids), prefetch(3)))), str)
assert_type(pipeline(rows(ids, [2, 3], lanes=2, batch_size=4)), Pipeline[Row])
assert_type(pipeline(rows(ids, (2, 3)), apply(read_parquet(['image']))), Pipeline[dict[str, Any]])
assert_type(read_npy().lengths(ids), list[int])
assert_type(next(load_by_random_id(load, len, ids=ids)), tuple[tuple[Image, int], int])
assert_type(list(combine_batches(2)([(1, 2.0)])), list[tuple[npt.NDArray[Any], npt.NDArray[Any]]])

assert_type(per_worker(lambda: ZipFile('images.zip'))(), ZipFile)
assert_type(per_worker(lambda: sqlite3.connect('a'))(), sqlite3.Connection)
assert_type(per_worker(dict[str, int])(), dict[str, int])
assert_type(per_worker(TemporaryDirectory[str])(), str)
per_worker('images.zip')  # type: ignore[call-overload]

batches: BatchIterator[Batch] = pipeline(sample(ids), apply(load), unpack(augment), combine_batches(30), prefetch(10))
for batch in batches:
    assert_type(batch, Batch)

pipeline([1], apply(load))  # type: ignore[misc]
pipeline(ids, load)  # type: ignore[arg-type]
combine_batches('3')  # type: ignore[call-overload]
prefetch('3')  # type: ignore[arg-type]

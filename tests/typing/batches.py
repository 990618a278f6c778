"""What a type checker infers of the batches of ``combine_batches(n)``. Checked by mypy and pyright, never run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

from pipekit import (
    BatchIterator,
    Pipeline,
    Stage,
    apply,
    arrays,
    combine_batches,
    combine_pad,
    combine_to_arrays,
    keep,
    pipeline,
    prefetch,
    repeat,
    sample,
    take,
    unpack,
)

Array = npt.NDArray[Any]
Pair = tuple[Array, Array]
ids = ['a', 'b']


@dataclass
class Scan:
    image: Array


def two(id: str) -> tuple[npt.NDArray[np.float32], int]:
    raise NotImplementedError


def three(id: str) -> tuple[Array, np.int64, str]:
    raise NotImplementedError


def four(id: str) -> tuple[Array, float, bool, list[int]]:
    raise NotImplementedError


def named(id: str) -> dict[str, Array]:
    raise NotImplementedError


def mixed(id: str) -> dict[str, Any]:
    raise NotImplementedError


def nested(id: str) -> tuple[Array, tuple[int, int]]:
    raise NotImplementedError


def scan(id: str) -> Scan:
    raise NotImplementedError


def untyped(id: str) -> Any:
    raise NotImplementedError


def to_device(batch: Pair) -> Pair:
    raise NotImplementedError


def normalize(images: Array, labels: Array) -> Pair:
    raise NotImplementedError


def stack(samples: list[tuple[npt.NDArray[np.float32], int]]) -> Pair:
    raise NotImplementedError


def train(batches: BatchIterator[Pair]) -> None:
    raise NotImplementedError


batches = pipeline(sample(ids, seed=0), apply(two), combine_batches(2), prefetch(10))
for images, labels in batches:
    assert_type(images, Array)
    assert_type(labels, Array)
with batches as opened:
    assert_type(list(opened), list[Pair])
for _, batch in enumerate(batches):
    assert_type(batch, Pair)
for batch in batches.headroom():
    assert_type(batch, Pair)
assert_type(next(iter(batches)), Pair)
assert_type(list(zip(batches, ids, strict=False)), list[tuple[Pair, str]])
train(batches)

assert_type(list(pipeline(ids, apply(two), combine_batches(2))), list[Pair])
assert_type(list(pipeline(ids, apply(three), combine_batches(2))), list[tuple[Array, Array, Array]])
assert_type(list(pipeline(ids, apply(four), combine_batches(2))), list[tuple[Array, Array, Array, Array]])
assert_type(list(pipeline(ids, apply(named), combine_batches(2))), list[dict[str, Array]])
assert_type(list(pipeline(ids, apply(len), combine_batches(2))), list[Array])
assert_type(list(pipeline(ids, combine_batches(2))), list[Array])
assert_type(list(pipeline(np.zeros(9), combine_batches(2))), list[Array])

# What is not in the table is untyped, and what is nested too.
assert_type(list(pipeline(ids, apply(nested), combine_batches(2))), list[Any])
assert_type(list(pipeline(ids, apply(scan), combine_batches(2))), list[Any])
assert_type(list(pipeline(ids, apply(untyped), combine_batches(2))), list[Any])
assert_type(list(pipeline(ids, apply(untyped))), list[Any])

# Any within the type of a sample makes mypy forget the rest of it.
assert_type(list(pipeline(ids, apply(mixed), combine_batches(2))), list[dict[str, Array]])  # type: ignore[assert-type]

# Stages after it.
assert_type(list(pipeline(ids, apply(two), combine_batches(2), take(3), keep(bool), repeat())), list[Pair])
assert_type(pipeline(ids, apply(two), combine_batches(2), apply(to_device)), Pipeline[Pair])
assert_type(pipeline(ids, apply(two), combine_batches(2), apply(to_device), prefetch()), BatchIterator[Pair])
assert_type(pipeline(ids, apply(two), combine_batches(2), unpack(normalize), prefetch()), BatchIterator[Pair])
assert_type(list(pipeline(pipeline(ids, apply(two)), combine_batches(2))), list[Pair])
assert_type(list(pipeline(pipeline(ids, apply(two), combine_batches(2)), take(3))), list[Pair])

# Without a source.
batching = pipeline(apply(two), combine_batches(2))
assert_type(list(pipeline(ids, batching, prefetch())), list[Pair])
assert_type(list(pipeline(ids, pipeline(apply(two), combine_batches(2)), take(3))), list[Pair])
assert_type(pipeline(apply(two), combine_batches(2), apply(to_device)), Stage[str, Pair])

# Called.
assert_type(list(combine_batches(2)([(1, 2.0)])), list[Pair])
assert_type(next(combine_batches(2)([{'a': 1}])), dict[str, Array])
assert_type(combine_to_arrays([(np.zeros(3), 'a')]), Pair)

values = iter(pipeline(ids, apply(two), combine_batches(2)))
values.resume(values.cursor)

# Other combiners.
assert_type(pipeline(ids, apply(two), combine_batches(2, stack)), Pipeline[Pair])
assert_type(pipeline(ids, combine_batches(2, list)), Pipeline[list[str]])
assert_type(pipeline(ids, combine_batches(2, combine_pad), prefetch()), BatchIterator[Any])
assert_type(pipeline(ids, combine_batches(lambda chunk, new: len(chunk) < 3, len)), Pipeline[int])

# Arrays in memory.
columns = arrays(np.zeros((9, 28, 28)), np.zeros(9))
assert_type(list(pipeline(columns, combine_batches(2))), list[Pair])
assert_type(list(pipeline(sample(columns, seed=0), combine_batches(2), prefetch(3))), list[Pair])
assert_type(list(pipeline(arrays(images=np.zeros(9)), combine_batches(2))), list[dict[str, Array]])


def as_any(some: Pipeline[Any], any_batches: BatchIterator[Any], mappings: list[Mapping[int, float]]) -> None:
    assert_type(list(some), list[Any])
    assert_type(list(any_batches), list[Any])
    assert_type(list(pipeline(some, combine_batches(2))), list[Any])
    assert_type(list(pipeline(mappings, combine_batches(2))), list[dict[int, Array]])


one, two_, three_ = next(iter(batches))  # type: ignore[misc]
pipeline(ids, combine_batches(2, stack))  # type: ignore[misc]

"""The tasks of the contenders: make samples of random ids, and combine them into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from typing import Any

import numpy as np

CHECKED = 6  # batches looked at before the clock starts; more than anyone makes ahead


class Task:
    """Samples ``(image, id)``, and how many of them make a batch."""

    n = 5000
    shape: tuple[int, ...]
    dtype: Any = np.float32
    batch_size: int

    @property
    def ids(self) -> range:
        return range(self.n)

    @property
    def bytes_per_sample(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, id: int) -> tuple[Any, Any]:
        return self.load(id)

    def load(self, id: int) -> tuple[Any, Any]:
        raise NotImplementedError

    def shows(self, images: Any, ids: Any) -> bool:
        """Whether the images are those of the ids."""
        raise NotImplementedError

    def check(self, batches: Iterator[Any]) -> None:
        """Take the first batches; raise unless they are of random ids, each with its own image."""
        drawn = np.concatenate([self.checked(batch) for batch in islice(batches, CHECKED)])
        assert len(drawn) == CHECKED * self.batch_size
        assert len(set(drawn.tolist())) > min(len(drawn), self.n) // 2, 'the ids are not random'
        assert (np.diff(drawn) < 0).any(), 'the ids are not in a random order'

    def checked(self, batch: Sequence[Any]) -> Any:
        images, ids = map(np.asarray, batch)
        assert images.shape == (self.batch_size, *self.shape), images.shape
        assert images.dtype == self.dtype, images.dtype
        assert ids.shape == (self.batch_size,), ids.shape
        assert ids.dtype == np.int64, ids.dtype
        assert self.shows(images, ids), 'the images are not those of the ids'
        return ids


class InMemory(Task):
    """Images in memory."""

    def __init__(self, batch_size: int, shape: tuple[int, ...] = (1, 28, 28), dtype: Any = np.float32, n: int = 5000):
        self.batch_size, self.shape, self.dtype, self.n = batch_size, shape, dtype, n
        self.images = np.random.default_rng(0).integers(256, size=(n, *shape), dtype=np.uint8).astype(dtype)
        self.labels = np.arange(n)

    def load_image(self, id: int) -> Any:
        return self.images[id]

    def load_label(self, id: int) -> Any:
        return self.labels[id]

    def load(self, id: int) -> tuple[Any, Any]:
        return self.images[id], self.labels[id]

    def load_batch(self, ids: Sequence[int]) -> tuple[Any, Any]:
        """All samples of a batch at once."""
        return self.images.take(ids, axis=0), self.labels.take(ids)

    def shows(self, images: Any, ids: Any) -> bool:
        return np.array_equal(images, self.images[ids])


class ByTheBatch(Task):
    """A task as a data set that can load a whole batch at once."""

    def __init__(self, task: InMemory):
        self.n, self.batch_size, self.__getitems__ = task.n, task.batch_size, task.load_batch


@dataclass(frozen=True)
class Made(Task):
    """Images that take some work to make, filled with their ids."""

    batch_size: int
    shape: tuple[int, ...] = (28, 28)
    work: Callable[[], object] = field(default=int)

    def load(self, id: int) -> tuple[Any, Any]:
        self.work()
        return np.full(self.shape, id, np.float32), id

    def shows(self, images: Any, ids: Any) -> bool:
        flat = images.reshape(len(ids), -1)
        return bool((flat.min(axis=1) == ids).all() and (flat.max(axis=1) == ids).all())


class Ids(Task):
    """Ids alone, in lists."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size

    def checked(self, batch: Sequence[Any]) -> Any:
        assert isinstance(batch, list)
        return np.array(batch)


class Numbers(Task):
    """Batches that cost nothing: the numbers from 0."""

    batch_size = 1

    def check(self, batches: Iterator[Any]) -> None:
        assert list(islice(batches, CHECKED)) == list(range(CHECKED))


def spin(loops: int) -> int:
    """Run a loop of pure Python."""
    total = 0
    for number in range(loops):
        total += number & 7
    return total


def stacked(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Stack samples into a batch, as hand-written code does."""
    images, labels = zip(*samples, strict=True)
    return np.stack(images), np.array(labels)


def same(value: Any) -> Any:
    """Return the argument: the most trivial stage."""
    return value

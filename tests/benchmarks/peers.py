"""The tutorial's job as each library writes it: draw an index, load its image and its label, stack a batch of them."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import pipekit

Opened = tuple[Iterator[Any], Callable[[], object]]

AHEAD = 3  # batches that may be made ahead, where a library lets one say
ENDLESS = 10**9


class Digits:
    """Images ``(1, 28, 28)`` and labels in memory; an image shows which id it has."""

    def __init__(self, n: int = 5000):
        self.images = np.random.default_rng(0).random((n, 1, 28, 28), np.float32)
        self.images[:, 0, 0, 0] = np.arange(n)
        self.labels = np.arange(n) * 7 % 10

    @property
    def ids(self) -> range:
        return range(len(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def load_image(self, id: int) -> Any:
        return self.images[id]

    def load_label(self, id: int) -> Any:
        return self.labels[id]

    def load(self, id: int) -> tuple[Any, Any]:
        return self.images[id], self.labels[id]

    __getitem__ = load


@dataclass(frozen=True)
class Task:
    """Batches of digits."""

    digits: Digits
    batch_size: int

    def check(self, batch: Sequence[Any]) -> None:
        """Raise unless it is a batch of random digits, each image with its own label."""
        images, labels = map(np.asarray, batch)
        n = self.batch_size
        assert images.shape == (n, 1, 28, 28), images.shape
        assert images.dtype == np.float32, images.dtype
        assert labels.shape == (n,), labels.shape
        assert labels.dtype == np.int64, labels.dtype
        ids = images[:, 0, 0, 0].astype(int)
        assert len(set(ids.tolist())) > n // 2, 'the ids are not random'
        assert (np.diff(ids) < 0).any(), 'the ids are not in a random order'
        assert np.array_equal(images, self.digits.images[ids])
        assert np.array_equal(labels, self.digits.labels[ids])


@dataclass(frozen=True)
class Contender:
    """A way to do the job.

    ``open(task)`` gives an iterator of batches and a function that closes what it opened; what has no such function is
    closed by letting go of the iterator. ``module`` is what it imports, ``package`` what brings that.
    """

    name: str
    open: Callable[[Task], Opened]
    module: str | None = None
    package: str | None = None
    reads_ahead: bool = True


def _nothing() -> None:
    pass


def _stacked(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    images, labels = zip(*samples, strict=True)
    return np.stack(images), np.array(labels)


def _loop(task: Task) -> Opened:
    def batches() -> Iterator[Any]:
        rng = np.random.default_rng(0)
        n, load_image, load_label = len(task.digits), task.digits.load_image, task.digits.load_label
        while True:
            images, labels = [], []
            for _ in range(task.batch_size):
                id = rng.integers(n)
                images.append(load_image(id))
                labels.append(load_label(id))
            yield np.stack(images), np.array(labels)

    return batches(), _nothing


def _loop_over_drawn(task: Task) -> Opened:
    def batches() -> Iterator[Any]:
        rng = np.random.default_rng(0)
        n, load = len(task.digits), task.digits.load
        while True:
            yield _stacked([load(id) for id in rng.integers(n, size=task.batch_size).tolist()])

    return batches(), _nothing


def _pipekit(task: Task) -> Opened:
    batches = pipekit.pipeline(
        pipekit.sample(task.digits.ids, seed=0),
        pipekit.apply(task.digits.load),
        pipekit.combine_batches(task.batch_size),
    )
    return iter(batches), _nothing


def _pipekit_prefetch(task: Task) -> Opened:
    batches = pipekit.pipeline(
        pipekit.sample(task.digits.ids, seed=0),
        pipekit.apply(task.digits.load),
        pipekit.combine_batches(task.batch_size),
        pipekit.prefetch(ENDLESS, buffer_size=AHEAD),
    )
    return iter(batches), batches.close


def _pipekit_tutorial(task: Task) -> Opened:
    digits = task.digits
    batches = pipekit.make_infinite_batch_iter(
        pipekit.load_by_random_id(digits.load_image, digits.load_label, ids=digits.ids, seed=0),
        batch_size=task.batch_size,
        n_iters_per_epoch=ENDLESS,
        buffer_size=AHEAD,
    )
    return iter(batches), batches.close


def _random_sampler(task: Task) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.RandomSampler(task.digits, replacement=True, num_samples=ENDLESS, generator=generator)


def _data_loader(task: Task, workers: int) -> Opened:
    import torch

    loader = torch.utils.data.DataLoader(
        task.digits,
        batch_size=task.batch_size,
        sampler=_random_sampler(task),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        collate_fn=_stacked,  # at this size, arrays come from a worker several times faster than tensors
    )
    return iter(loader), _nothing


def _nodes(task: Task) -> Opened:
    from torchdata import nodes

    ids = nodes.SamplerWrapper(_random_sampler(task))
    samples = nodes.Mapper(ids, task.digits.load)
    batches = nodes.Mapper(nodes.Batcher(samples, task.batch_size), _stacked)
    return iter(nodes.Loader(nodes.Prefetcher(batches, AHEAD))), _nothing


def _grain_samples(task: Task) -> Any:
    import grain

    return grain.MapDataset.source(task.digits).shuffle(seed=0).repeat()


def _grain_threads(task: Task) -> Opened:
    samples = _grain_samples(task).to_iter_dataset()
    return iter(samples.batch(task.batch_size, batch_fn=_stacked)), _nothing


def _grain_one_thread(task: Task) -> Opened:
    import grain

    samples = _grain_samples(task).batch(task.batch_size, batch_fn=_stacked)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
    return iter(samples.to_iter_dataset(options)), _nothing


def _streamable(task: Task) -> Opened:
    from streamable import stream

    draw = partial(np.random.default_rng(0).integers, len(task.digits))
    batches = stream(draw).map(task.digits.load).group(task.batch_size).map(_stacked).buffer(AHEAD)
    return iter(batches), _nothing


def _deep_pipe(task: Task) -> Opened:
    from dpipe.batch_iter import Infinite, load_by_random_id

    digits = task.digits
    batches = Infinite(
        load_by_random_id(digits.load_image, digits.load_label, ids=digits.ids, random_state=0),
        batch_size=task.batch_size,
        batches_per_epoch=sys.maxsize,
        buffer_size=AHEAD,
    )
    return iter(batches), batches.close


LOOP = Contender('hand-written loop', _loop, reads_ahead=False)
LOOP_OVER_DRAWN = Contender('the loop, drawing a batch of indices at once', _loop_over_drawn, reads_ahead=False)
PIPEKIT = Contender('pipekit, no thread', _pipekit, reads_ahead=False)
PIPEKIT_PREFETCH = Contender('pipekit, prefetch', _pipekit_prefetch)
PIPEKIT_TUTORIAL = Contender('pipekit, make_infinite_batch_iter', _pipekit_tutorial)

OWN = [LOOP, LOOP_OVER_DRAWN, PIPEKIT, PIPEKIT_PREFETCH, PIPEKIT_TUTORIAL]
PEERS = [
    Contender('DataLoader, no worker', partial(_data_loader, workers=0), 'torch', 'torch', reads_ahead=False),
    Contender('DataLoader, 1 worker', partial(_data_loader, workers=1), 'torch', 'torch'),
    Contender('torchdata.nodes, Prefetcher', _nodes, 'torchdata.nodes', 'torchdata'),
    Contender('grain, its default threads', _grain_threads, 'grain', 'grain'),
    Contender('grain, 1 thread, batches', _grain_one_thread, 'grain', 'grain'),
    Contender('streamable, buffer', _streamable, 'streamable', 'streamable'),
    Contender('deep_pipe', _deep_pipe, 'dpipe.batch_iter', 'deep_pipe'),
]


def installed() -> tuple[list[Contender], list[str]]:
    """The peers that can be imported here, and a line for each package that cannot."""
    logging.disable(logging.WARNING)  # grain logs that there is no jax
    found, missing = [], {}
    for peer in PEERS:
        assert peer.module is not None
        try:
            importlib.import_module(peer.module)
        except ImportError as error:
            missing[peer.package] = f'{peer.package} is skipped: {error}'
        else:
            found.append(peer)
    return found, list(missing.values())

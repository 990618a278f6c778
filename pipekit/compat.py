"""``make_infinite_batch_iter``: the interface of deep_pipe's ``batch_iter``, as one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .batches.batch_iterator import BatchIterator
from .batches.prefetch import prefetch
from .composition import pipeline
from .describing.arguments import function, positive_int
from .stages.batching import combine_batches
from .stages.combiners import combine_to_arrays
from .streams.iterables import source_of


def make_infinite_batch_iter(
    source: Iterable[Any] | Callable[[], Iterable[Any]],
    *transformers: Callable[[Iterable[Any]], Iterable[Any]],
    batch_size: int | Callable[[list[Any], Any], object],
    n_iters_per_epoch: int,
    buffer_size: int = 3,
    combiner: Callable[[Sequence[Any]], Any] = combine_to_arrays,
) -> BatchIterator[Any]:
    """Batches from a background thread, in epochs of ``n_iters_per_epoch``.

    The same as ``pipeline(source, *transformers, combine_batches(batch_size, combiner),
    prefetch(n_iters_per_epoch, buffer_size=buffer_size))``.

    Parameters
    ----------
    source
        An endless supply of samples, as from ``load_by_random_id``.
    *transformers
        Stages.
    batch_size
        The number of samples in a batch, or a function ``should_add(chunk, sample)``.
    n_iters_per_epoch
        The number of batches in an epoch.
    buffer_size
        The largest number of batches made ahead.
    combiner
        Makes a batch from a list of samples.

    Examples
    --------
    >>> from pipekit import load_by_random_id
    >>> samples = load_by_random_id(str.upper, ord, ids='abc', seed=0)
    >>> with make_infinite_batch_iter(samples, batch_size=2, n_iters_per_epoch=3) as batch_iter:
    ...     for letters, codes in batch_iter:
    ...         print(letters, codes)
    ['A' 'A'] [97 97]
    ['B' 'A'] [98 97]
    ['B' 'C'] [98 99]
    """
    function('combiner', combiner, 'a function of a list of samples')
    n_iters_per_epoch = positive_int('n_iters_per_epoch', n_iters_per_epoch)
    end = prefetch(n_iters_per_epoch, buffer_size=buffer_size)
    source = source_of(source)  # a stage would make it a stage
    batches: BatchIterator[Any] = pipeline(source, *transformers, combine_batches(batch_size, combiner), end)  # type: ignore[call-overload]
    return batches

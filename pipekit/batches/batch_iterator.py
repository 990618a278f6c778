"""``BatchIterator``, a pipeline with ``prefetch``: batches from a thread in epochs, closing, and saved states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, overload
from warnings import warn

from ..describing.arguments import positive_int
from ..describing.display import call_code
from ..describing.tracebacks import own_depth
from ..streams.cursors import Out_co, T, cursor_of
from ..streams.failures import Failure
from ..streams.nesting import open_stream
from ..streams.stream import Stream
from .delivery import Delivery
from .prefetch import Prefetch

if TYPE_CHECKING:
    from ..describing.tables import Table
    from ..reports.report import Headroom, Report
    from ..streams.stacking import Batches, Stacked

CACHED_BATCHES = 4  # that `headroom` repeats


class BatchIterator(Generic[Out_co]):
    """Batches from a background thread, epoch by epoch. Made by ``pipeline(..., prefetch(...))``.

    ``for batch in batches`` is one epoch; the next loop continues where it ended. The thread starts with ``with``, or
    with the first epoch, and makes batches ahead across the ends of epochs. ``close()`` stops it and keeps the
    position.

    Several threads may share one epoch: each batch goes to exactly one of them.

    Attributes
    ----------
    pipeline
        The pipeline without ``prefetch``. Iterating over it runs everything in the calling thread.

    Examples
    --------
    >>> from pipekit import pipeline, prefetch, repeat
    >>> batches = pipeline('abc', repeat(), prefetch(2))
    >>> list(batches), list(batches)
    (['a', 'b'], ['c', 'a'])
    >>> batches.close()
    >>> with batches:
    ...     list(batches)
    ['b', 'c']
    """

    def __init__(self, pipeline: Stream[Out_co], end: Prefetch):
        self.pipeline = pipeline
        self._end = end
        self._delivery = Delivery(pipeline, end)

    @overload
    def __iter__(self: BatchIterator[Stacked[T]]) -> Batches[T]: ...
    @overload
    def __iter__(self) -> Iterator[Out_co]: ...
    def __iter__(self) -> Any:
        return self._delivery.begin_epoch()

    def __len__(self) -> int:
        n = self._end.batches_per_epoch or self.pipeline.length
        if n is None or n == inf:
            raise TypeError(
                'an epoch is one pass over the source, of unknown length; pass batches_per_epoch to prefetch'
            )
        return int(n)

    def __bool__(self) -> bool:
        return True  # also if len() raises

    def __enter__(self) -> BatchIterator[Out_co]:
        self._delivery.reopen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and keep the position; ``with`` opens the batches again from there.

        May be called repeatedly, and from any thread. If a stage's function is running, waits at most two seconds for
        it and then warns: the function cannot be interrupted, and the thread ends when it returns.

        Examples
        --------
        >>> from pipekit import pipeline, prefetch
        >>> batches = pipeline('ab', prefetch(1))
        >>> batches.close()
        >>> next(iter(batches))
        Traceback (most recent call last):
        pipekit.Closed: the batches are closed; `with batches:` opens them again from where they were
        """
        if not self._delivery.close():
            message = f'closed while a function in {self!r} is running; the prefetch thread ends when it returns'
            warn(message, RuntimeWarning, stacklevel=own_depth())

    def state_dict(self) -> dict[str, Any]:
        """The state as a dict that can be saved as JSON: the cursor of the last batch handed over, and a few counts.

        Batches that the thread has made ahead are not part of it; they are made again.

        Examples
        --------
        >>> from pipekit import pipeline, prefetch, sample
        >>> batches = pipeline(sample('abc', seed=0), prefetch(3))
        >>> for batch in batches:
        ...     state = batches.state_dict()
        ...     break
        >>> state['cursor'], state['in_epoch']
        (1, 1)
        >>> batches.load_state_dict(state)
        >>> list(batches)
        ['a', 'b']
        >>> batches.close()
        """
        return self._delivery.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state.

        The next loop yields the rest of the epoch in which the state was taken, and all of the next epoch if the state
        was taken between epochs, or after the last of ``batches_per_epoch`` batches.

        Raises
        ------
        StateMismatch
            If it is not a valid state, or that of another pipeline; the message shows the difference.
        NotResumable
            If the pipeline's source is an iterator.
        """
        self._delivery.load_state_dict(state)

    def replay(self, cursor: Any, *, stage: int | None = None, key: tuple[Any, ...] = ()) -> Any:
        """Make the batch after a cursor again, in the calling thread.

        Parameters
        ----------
        cursor
            The ``'cursor'`` of a ``state_dict()``, for the batch that followed it; or the one in the note on an error.
        stage, key
            As in ``replay`` of a pipeline.

        Examples
        --------
        >>> from pipekit import combine_batches, pipeline, prefetch, sample
        >>> with pipeline(sample('abc', seed=0), combine_batches(2, ''.join), prefetch(3)) as batches:
        ...     states = [batches.state_dict() for batch in batches]
        >>> batches.replay(states[0]['cursor'])
        'ba'
        """
        before = cursor_of(cursor)
        if isinstance(before, tuple) and not key:
            before, context = self._delivery.in_pass(before)
            key = context.key
        return self.pipeline.replay(before, stage=stage, key=key)

    @property
    def failures(self) -> list[Failure]:
        """The last 100 samples that were skipped or replaced, each with its stage, cursor and exception.

        Examples
        --------
        >>> from pipekit import apply, pipeline, prefetch, skip
        >>> with pipeline('12x4', apply(int, on_error=skip(ValueError)), prefetch()) as batches:
        ...     list(batches), [failure.sample for failure in batches.failures]
        ([1, 2, 4], ['x'])
        """
        return self._delivery.failures.failures_at(self._delivery.stage_positions())

    def report(self) -> Report:
        """Where the time goes: how long each stage takes, how long training waits, and one sentence on what to change.

        Covers the last thousand batches since the thread was started.

        Examples
        --------
        >>> import time
        >>> from pipekit import apply, pipeline, prefetch
        >>> def load(number):
        ...     time.sleep(0.002)
        >>> with pipeline(range(20), apply(load), prefetch()) as batches:
        ...     for batch in batches:
        ...         time.sleep(0.0005)
        >>> batches.report().bottleneck
        'apply(load)'
        """
        return self._delivery.report()

    def describe(self) -> Table:
        """``describe()`` of the pipeline."""
        return self.pipeline.describe()

    def headroom(self, times: int = 100) -> Headroom[Out_co]:
        """Yield a few batches again and again, at no cost, to see how fast training could be if batches took no time.

        They are the next batches, made in the calling thread. The position does not change.

        Parameters
        ----------
        times
            The number of batches to yield.

        Examples
        --------
        >>> from pipekit import combine_batches, pipeline, prefetch, sample
        >>> batches = pipeline(sample(range(9), seed=0), combine_batches(3), prefetch(10))
        >>> headroom = batches.headroom(5)
        >>> for batch in headroom:
        ...     pass  # train
        >>> headroom.n_batches
        5
        """
        from ..reports.report import Headroom  # loaded on first use

        pairs = open_stream(self.pipeline, *self._delivery.in_pass(self._delivery.position[0]))
        cached = [batch for batch, _ in islice(pairs, CACHED_BATCHES)]
        return Headroom(cached, positive_int('times', times), self.report())

    def _repr_html_(self) -> str:
        measured = self.report()._repr_html_() if self._delivery.meter.waits else ''
        return self.pipeline._repr_html_() + measured

    def __repr__(self) -> str:
        return call_code('pipeline', (self.pipeline.source, *self.pipeline.stages, self._end), {})

    def __reduce__(self) -> NoReturn:
        raise TypeError('a BatchIterator has a thread and cannot be pickled; pickle its pipeline and its state_dict()')

"""``prefetch(...)``: the description of a pipeline's last part, which makes batches ahead of their use."""

from __future__ import annotations

from typing import Any

from ..describing.arguments import boolean, optional, positive, positive_int
from ..describing.descriptions import Description, described
from ..describing.display import code
from ..streams.stream import Stream


class Prefetch(Description):
    """The description that ``prefetch`` returns: the last part of a pipeline, which makes it a ``BatchIterator``."""

    def __init__(
        self,
        batches_per_epoch: int | None,
        buffer_size: int,
        profile: bool,
        report_every: float | None,
        stall_after: float | None,
        restart: bool,
    ):
        self.batches_per_epoch = batches_per_epoch
        self.buffer_size = buffer_size
        self.profile = profile
        self.report_every = report_every
        self.stall_after = stall_after
        self.restart = restart

    def remedy(self, pipeline: Stream[Any], delivered: int) -> str:
        """What to do about an epoch without batches, the first of them after so many."""
        stages = pipeline.stages
        repeats = [stage for stage in stages if any(each.reopens_upstream for each in stage.operations)]
        if self.batches_per_epoch is not None and delivered:
            if not repeats:
                return 'add repeat() to start it again'
            return f'{code(repeats[-1])}, or a stage after it, has ended'
        dropping = [stage for stage in stages if stage._call.kwargs.get('drop_last')]
        if dropping:
            return f'{code(dropping[0])} drops the samples of a pass, which are too few for it; pass drop_last=False'
        if pipeline.share is not None:
            return 'a pass over it has fewer samples than there are ranks'
        return 'a pass over it yields none'


@described
def prefetch(
    batches_per_epoch: int | None = None,
    *,
    buffer_size: int = 3,
    profile: bool = False,
    report_every: float | None = None,
    stall_after: float | None = 60.0,
    restart: bool = False,
) -> Prefetch:
    """Make batches in a background thread, ahead of their use. Always the last part of a pipeline.

    Parameters
    ----------
    batches_per_epoch
        The number of batches in an epoch. By default, an epoch is one pass over a finite source, and random stages
        draw new numbers in every pass. An iterator has only one pass, and a second epoch raises ``NotResumable``.
    buffer_size
        The largest number of batches made ahead.
    profile
        Whether to time every sample at every stage, for an exact ``report()``. By default, only calls of your functions
        are timed, and only in one of 127 batches if batches are made fast.
    report_every
        Log the verdict of ``report()`` every so many seconds, with the logger ``pipekit`` at level ``INFO``.
    stall_after
        The number of seconds that a loop waits for one batch before it warns. The warning names the busy stages, their
        samples and since when they are busy, and shows the stacks of the threads. The loop goes on waiting. With
        ``None``, it never warns.
    restart
        Whether each loop starts again at the beginning, with the same random numbers, wherever the one before it ended:
        for validation.

    Examples
    --------
    >>> from pipekit import combine_batches, pipeline, sample
    >>> batches = pipeline(sample('abc', seed=0), combine_batches(2, ''.join), prefetch(3))
    >>> with batches:
    ...     list(batches), list(batches)
    (['aa', 'ba', 'bc'], ['ac', 'ba', 'ab'])
    >>> with pipeline('abcd', combine_batches(2, ''.join), prefetch(restart=True)) as validation:
    ...     next(iter(validation)), list(validation)
    ('ab', ['ab', 'cd'])
    """
    return Prefetch(
        optional(positive_int, 'batches_per_epoch', batches_per_epoch, 'a positive int'),
        positive_int('buffer_size', buffer_size),
        boolean('profile', profile),
        optional(positive, 'report_every', report_every, 'a positive number'),
        optional(positive, 'stall_after', stall_after, 'a positive number'),
        boolean('restart', restart),
    )

"""How fast a pipeline of the user's is: batches are taken from it, and what they take is measured."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from math import inf
from time import perf_counter
from typing import Any, TypeVar

from .batches.batch_iterator import BatchIterator
from .describing.structures import fields_of
from .errors import Exhausted, NotResumable
from .reports.measurements import Measurements
from .reports.peaks import peaks
from .targets import NoTarget, batches_of, named

T = TypeVar('T')

WARM_UP = 0.1  # of what is measured, and before it
ATOMS = (str, bytes, int, float, type(None))
NO_STEP = 'For a verdict, say what training takes for a batch: --step MS.'


def bench(
    target: str,
    *,
    duration: float = 10.0,
    batches: float = inf,
    step: float = 0.0,
    ahead: bool = False,
    profile: bool = False,
) -> Measurements:
    """Take batches from a pipeline, epoch after epoch, and measure how they come.

    Parameters
    ----------
    target
        As for ``named``.
    duration, batches
        For how many seconds, and for how many batches at most, after a tenth of that to warm up.
    step
        How many seconds to sleep after each batch, in place of training on it.
    ahead, profile
        As for ``batches_of``.

    Raises
    ------
    NoTarget
        If the target is no pipeline, or has no batches.

    Examples
    --------
    >>> bench('numpy:pi')
    Traceback (most recent call last):
    pipekit.targets.NoTarget: numpy:pi is 3.141592653589793, of type float; expected a pipeline, or a function ...
    """
    value, begin, ended = named(target), perf_counter(), None
    source = batches_of(value, target, ahead=ahead, profile=profile)
    runs = first, *_ = _Run(inf, 1), _Run(WARM_UP * duration, WARM_UP * batches), _Run(duration, batches)
    with source if isinstance(source, BatchIterator) else nullcontext():
        stream = _epochs(source)
        try:
            for run in runs:
                begin = run.take(stream, begin, step)
        except KeyboardInterrupt:
            if not first.waits:
                raise
            ended = 'Ctrl-C'
        except (Exhausted, NotResumable) as error:
            ended = str(error)
        if not first.waits:
            raise NoTarget(f'{target} gives no batches: {ended}')
        memory = peaks()
        report = source.report() if isinstance(source, BatchIterator) else None
    if report is not None and report.step and not step:
        report.verdict = NO_STEP  # nothing keeps up with training that takes no time
    run = next(run for run in reversed(runs) if run.waits)
    took = run.seconds, run.n_bytes
    return Measurements(target, repr(source), first.waits[0], run.waits, *took, step, memory, ended, report)


def nbytes(batch: Any) -> int:
    """The bytes of the arrays in a batch: of all that has ``nbytes``, in tuples, lists, mappings and dataclasses.

    Examples
    --------
    >>> import numpy as np
    >>> nbytes({'images': [np.zeros((2, 3)), np.zeros(1)], 'name': 'a'})
    56
    """
    if isinstance(batch, ATOMS):
        return 0
    own = getattr(batch, 'nbytes', None)
    if isinstance(own, int):
        return own
    parts = batch if isinstance(batch, list | set | deque) else (part for _, part in fields_of(batch) or ())
    return sum(map(nbytes, parts))


class _Run:
    def __init__(self, duration: float, batches: float):
        self.limits = duration, batches
        self.waits = array('d')
        self.n_bytes = 0
        self.seconds = 0.0

    def take(self, batches: Iterator[Any], begin: float, step: float) -> float:
        asked = begin
        for batch in batches:
            wait, size = perf_counter() - asked, nbytes(batch)
            if step:
                time.sleep(step)
            asked = perf_counter()
            self.waits.append(wait)
            self.n_bytes += size
            self.seconds = asked - begin
            if self.seconds >= self.limits[0] or len(self.waits) >= self.limits[1]:
                break
        return asked


def _epochs(batches: Iterable[T]) -> Iterator[T]:
    while True:
        epoch = iter(batches)
        first = list(islice(epoch, 1))
        if not first:
            raise Exhausted('the source has ended')
        yield first.pop()
        yield from epoch

"""``python -m pipekit bench``: find a pipeline of the user's, take batches from it, and measure how fast they come."""

from __future__ import annotations

import importlib
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from math import inf
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, TypeVar

from more_itertools import first, peekable

from .batches.batch_iterator import BatchIterator
from .batches.prefetch import prefetch
from .composition import pipeline
from .describing.arguments import non_negative, positive
from .describing.display import brief
from .describing.structures import fields_of
from .errors import Exhausted, NotResumable
from .reports.measurements import Measurements, peak_memory
from .streams.iterables import needs_no_arguments
from .streams.stream import Stream, StreamIterator

T = TypeVar('T')

WARM_UP_SHARE = 0.1  # of the measured time and batches, run before them
TYPES_WITHOUT_ARRAYS = (str, bytes, int, float, type(None))
NO_STEP = 'For a verdict, give the time of a training step: --step MS.'


class InvalidTarget(Exception):
    """A target that is not a pipeline, or one without batches."""


def bench(
    target: str,
    *,
    duration: float = 10.0,
    batches: float = inf,
    step: float = 0.0,
    add_prefetch: bool = False,
    profile: bool = False,
) -> Measurements:
    """Take batches from a pipeline, epoch after epoch, and measure how fast they come.

    Parameters
    ----------
    target
        ``module:name`` or ``script.py:name``: a pipeline, or a function without arguments that returns one.
    duration, batches
        For how many seconds and for how many batches to measure at most, after a tenth of that to warm up.
    step
        The seconds to sleep after each batch, in place of a training step.
    add_prefetch, profile
        As for ``batches_of``.

    Raises
    ------
    InvalidTarget
        If the target is not a pipeline, or has no batches.
    """
    for name, most in (('duration', duration), ('batches', batches)):
        if most != inf:
            positive(name, most)
    step = non_negative('step', step)
    value, begin, ended = import_target(target), perf_counter(), None
    source = batches_of(value, target, add_prefetch=add_prefetch, profile=profile)
    runs = opening, *_ = _Run(inf, 1), _Run(WARM_UP_SHARE * duration, WARM_UP_SHARE * batches), _Run(duration, batches)
    with source if isinstance(source, BatchIterator) else nullcontext():
        stream = _epochs(source)
        try:
            for run in runs:
                begin = run.measure(stream, begin, step)
        except KeyboardInterrupt:
            if not opening.waits:
                raise
            ended = 'Ctrl-C'
        except (Exhausted, NotResumable) as error:
            ended = str(error)
        if not opening.waits:
            raise InvalidTarget(f'{target} gives no batches: {ended}')
        peaks = peak_memory()
        report = source.report() if isinstance(source, BatchIterator) else None
    if report is not None and report.step and not step:
        report.verdict = NO_STEP  # no pipeline keeps up with a training step that takes no time
    run = first(run for run in reversed(runs) if run.waits)
    took = run.seconds, run.n_bytes
    return Measurements(target, repr(source), opening.waits[0], run.waits, *took, step, peaks, ended, report)


def batches_of(value: Any, target: str, *, add_prefetch: bool = False, profile: bool = False) -> Any:
    """The batches of a target: its value if that is a pipeline, or else what the function returns.

    Parameters
    ----------
    value, target
        What was imported, and its name for the errors.
    add_prefetch
        Whether to append ``prefetch()`` to a pipeline without one.
    profile
        Whether to set ``profile=True`` in its ``prefetch``; implies ``add_prefetch``.
    """
    if callable(value) and needs_no_arguments(value, unknown=False):
        value, target = value(), f'{target}()'
    if isinstance(value, BatchIterator):
        end = value._end._call
        exact = end.factory(*end.args, **{**end.kwargs, 'profile': True})
        return BatchIterator(value.pipeline, exact) if profile else value
    if isinstance(value, Stream | StreamIterator):
        return pipeline(value, prefetch(profile=profile)) if add_prefetch or profile else value
    expected = 'expected a pipeline, or a function without arguments that returns one'
    raise InvalidTarget(f'{target} is {brief(value)}, of type {type(value).__name__}; {expected}')


def import_target(target: str) -> Any:
    """Import the value that ``module:name`` or ``script.py:name`` refers to."""
    where, _, name = target.rpartition(':') if isinstance(target, str) else ('', '', '')
    is_script = where.endswith('.py')
    if not all(map(str.isidentifier, name.split('.') + (['script'] if is_script else where.split('.')))):
        raise InvalidTarget(f'expected module:name or script.py:name, got {target!r}')
    module = _import_script(Path(where).resolve()) if is_script else _import_module(where)
    try:
        return attrgetter(name)(module)
    except AttributeError:
        raise InvalidTarget(f'{where} has no {name}') from None


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f'{name}.'.startswith(f'{error.name}.'):  # rather than a module that it imports
            raise InvalidTarget(f'there is no module {name}') from None
        raise


def _import_script(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidTarget(f'there is no file {path}')
    sys.path.insert(0, str(path.parent))
    module = _import_module(path.stem)
    if module.__dict__.get('__file__') != str(path):
        raise InvalidTarget(f'{path} has the name of another module; rename it')
    with suppress(ModuleNotFoundError):  # without cloudpickle there are no worker processes either
        import cloudpickle

        # Workers get the functions by value, as they do from a script that is run: they do not import it again.
        cloudpickle.register_pickle_by_value(module)
    return module


def nbytes(batch: Any) -> int:
    """The bytes of everything in a batch that has ``nbytes``, within tuples, lists, sets, mappings and dataclasses."""
    if isinstance(batch, TYPES_WITHOUT_ARRAYS):
        return 0
    own = getattr(batch, 'nbytes', None)
    if isinstance(own, int):
        return own
    parts = batch if isinstance(batch, list | set | deque) else (part for _, part in fields_of(batch) or ())
    return sum(map(nbytes, parts))


class _Run:
    def __init__(self, duration: float, batches: float):
        self.duration, self.batches = duration, batches
        self.waits = array('d')
        self.n_bytes = 0
        self.seconds = 0.0

    def measure(self, batches: Iterator[Any], begin: float, step: float) -> float:
        """Take batches until a limit is reached, the first of them having been asked for at ``begin``."""
        asked = begin
        for batch in batches:
            wait, size = perf_counter() - asked, nbytes(batch)
            if step:
                time.sleep(step)
            asked = perf_counter()
            self.waits.append(wait)
            self.n_bytes += size
            self.seconds = asked - begin
            if self.seconds >= self.duration or len(self.waits) >= self.batches:
                break
        return asked


def _epochs(batches: Iterable[T]) -> Iterator[T]:
    while epoch := peekable(batches):
        yield from epoch
    raise Exhausted('the source has ended')

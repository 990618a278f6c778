"""How fast a pipeline of the user's is: what ``python -m pipekit bench`` measures and prints."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from importlib.metadata import distributions
from itertools import islice
from math import inf
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from .batch_iterator import BatchIterator
from .composition import pipeline
from .display import Table
from .errors import Exhausted, NotResumable
from .iterables import takes_nothing
from .prefetch import prefetch
from .reporting import Report
from .streams import Stream, StreamIterator
from .structures import fields_of
from .words import brief, seconds

T = TypeVar('T')

VERSION = next((found.version for found in distributions(name='pipekit-batches')), 'not installed')
WARM_UP = 0.1  # of what is measured, and before it
ATOMS = (str, bytes, int, float, type(None))
UNITS = ('bytes', 'KiB', 'MiB', 'GiB', 'TiB')
NO_STEP = 'For a verdict, say what training takes for a batch: --step MS.'
NO_PREFETCH = 'In the calling thread, without prefetch; --prefetch measures it behind a thread, with a report.'


class NothingToMeasure(Exception):
    """A target that is no pipeline, or one without batches."""


def bench(
    target: str,
    *,
    duration: float = 10.0,
    batches: float = inf,
    step: float = 0.0,
    ahead: bool = False,
    profile: bool = False,
    as_json: bool = False,
) -> str:
    """Take batches from a pipeline, epoch after epoch, and say how they came.

    Parameters
    ----------
    target
        As for ``named``.
    duration, batches
        For how many seconds, and for how many batches at most, after a tenth of that to warm up.
    step
        How many seconds to sleep after each batch, in place of training on it.
    ahead, profile
        Whether what has no ``prefetch`` is put behind one, and whether its report is exact, which implies that.
    as_json
        Whether to say it as JSON.

    Raises
    ------
    NothingToMeasure
        If the target is no pipeline, or has no batches.

    Examples
    --------
    >>> bench('numpy:pi')
    Traceback (most recent call last):
    pipekit.bench.NothingToMeasure: numpy:pi is 3.141592653589793, of type float; expected a pipeline, or a function ...
    """
    value, begin, ended = named(target), perf_counter(), None
    source = _source(value, target, ahead, profile)
    first, warm_up, run = _Run(inf, 1), _Run(WARM_UP * duration, WARM_UP * batches), _Run(duration, batches)
    with source if isinstance(source, BatchIterator) else nullcontext():
        stream = _epochs(source)
        try:
            begin = first.take(stream, begin, step)
            begin = warm_up.take(stream, begin, step)
            run.take(stream, begin, step)
        except KeyboardInterrupt:
            if not first.waits:
                raise
            ended = 'Ctrl-C'
        except (Exhausted, NotResumable) as error:
            ended = str(error)
        if not first.waits:
            raise NothingToMeasure(f'{target} gives no batches: {ended}')
        peaks = _peaks()
        report = source.report() if isinstance(source, BatchIterator) else None
    if report is not None and report.step and not step:
        report.verdict = NO_STEP  # nothing keeps up with training that takes no time
    run = run if run.waits else warm_up if warm_up.waits else first
    measured = {
        'target': target,
        'pipeline': repr(source),
        'first_batch': first.waits[0],
        'batches': len(run.waits),
        'seconds': run.seconds,
        'batches_per_second': len(run.waits) / run.seconds,
        'bytes_per_second': run.n_bytes / run.seconds,
        'wait': dict(zip(('p50', 'p99'), np.percentile(run.waits, [50, 99]).tolist(), strict=True)),
        'step': step,
        'peak_memory': sum(peaks) or None,
        'processes': len(peaks),
        'ended': ended,
        'report': report,
        'versions': {'pipekit': VERSION, 'numpy': np.__version__, 'python': platform.python_version()},
        'platform': platform.platform(),
        'cores': os.cpu_count(),
    }
    return json.dumps(measured, default=Report.to_dict) if as_json else _told(measured)


def named(target: str) -> Any:
    """What ``module:name`` or ``script.py:name`` names; the module or the script is imported.

    Examples
    --------
    >>> named('pipekit.words:LONGEST')
    160
    >>> named('pipekit')
    Traceback (most recent call last):
    pipekit.bench.NothingToMeasure: expected module:name or script.py:name, got 'pipekit'
    """
    where, _, name = target.rpartition(':')
    is_script = where.endswith('.py')
    if not all(map(str.isidentifier, name.split('.') + (['script'] if is_script else where.split('.')))):
        raise NothingToMeasure(f'expected module:name or script.py:name, got {target!r}')
    module = _script(Path(where).resolve()) if is_script else _module(where)
    try:
        return attrgetter(name)(module)
    except AttributeError:
        raise NothingToMeasure(f'{where} has no {name}') from None


def nbytes(batch: Any) -> int:
    """The bytes of the arrays in a batch: of all that has ``nbytes``, in tuples, lists, mappings and dataclasses.

    Examples
    --------
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


def _source(value: Any, target: str, ahead: bool, profile: bool) -> Any:
    if callable(value) and takes_nothing(value, unknown=False):
        value, target = value(), f'{target}()'
    if isinstance(value, BatchIterator):
        end = value._end._call
        exact = end.factory(*end.args, **{**end.kwargs, 'profile': True})
        return BatchIterator(value.pipeline, exact) if profile else value
    if isinstance(value, Stream | StreamIterator):
        return pipeline(value, prefetch(profile=profile)) if ahead or profile else value
    expected = 'expected a pipeline, or a function without arguments that returns one'
    raise NothingToMeasure(f'{target} is {brief(value)}, of type {type(value).__name__}; {expected}')


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f'{name}.'.startswith(f'{error.name}.'):  # rather than one that it imports
            raise NothingToMeasure(f'there is no module {name}') from None
        raise


def _script(path: Path) -> ModuleType:
    if not path.is_file():
        raise NothingToMeasure(f'there is no file {path}')
    sys.path.insert(0, str(path.parent))
    module = _module(path.stem)
    if module.__dict__.get('__file__') != str(path):
        raise NothingToMeasure(f'{path} has the name of another module; rename it')
    with suppress(ModuleNotFoundError):  # then there are no processes either
        import cloudpickle

        # As if it were run itself: its functions are sent to processes, which do not import it again.
        cloudpickle.register_pickle_by_value(module)
    return module


def _peaks() -> list[int]:
    peaks = list(_peaks_from(os.getpid()))
    if not peaks and sys.platform != 'win32':
        import resource  # which Windows has not

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks.append(peak if sys.platform == 'darwin' else peak << 10)
    return peaks


def _peaks_from(pid: int | str) -> Iterator[int]:
    # What it has now, where memory that several processes see counts once for all, and by how much it had more at its
    # peak: the peaks that the system knows count such memory for each.
    with suppress(OSError, KeyError):  # it has ended, or the system does not tell
        told = b''.join(Path(f'/proc/{pid}/{name}').read_bytes() for name in ('status', 'smaps_rollup'))
        kib = {name: int(amount) for name, amount in re.findall(rb'(\w+):\s+(\d+) kB', told)}
        yield 1024 * (kib[b'Pss'] + kib[b'VmHWM'] - kib[b'VmRSS'])
        for children in Path(f'/proc/{pid}/task').glob('*/children'):
            for child in children.read_text(encoding='ascii').split():
                yield from _peaks_from(child)


def _told(measured: Mapping[str, Any]) -> str:
    rate, wait, n = measured['batches_per_second'], measured['wait'], measured['processes']
    rows = [
        ['first batch', f'after {seconds(measured["first_batch"])}'],
        ['batches per second', f'{rate:,.0f}' if rate >= 100 else f'{rate:.3g}'],
        ['bytes per second', _in_bytes(measured['bytes_per_second'])],
        ['wait for a batch', f'{seconds(wait["p50"])} (median), {seconds(wait["p99"])} (99%)'],
    ]
    if n:
        rows.append(['peak memory', f'{_in_bytes(measured["peak_memory"])} in {n} process{"es" if n > 1 else ""}'])
    header = ['measured', f'{measured["batches"]:,} batches in {seconds(measured["seconds"])}']
    table = Table(header, rows, notes=[f'Ended early: {measured["ended"]}'] if measured['ended'] else [])
    return f'{measured["pipeline"].rstrip()}\n\n{table}\n\n{measured["report"] or NO_PREFETCH}'


def _in_bytes(amount: float, units: Sequence[str] = UNITS) -> str:
    return f'{amount:.3g} {units[0]}' if amount < 999.5 else _in_bytes(amount / 1024, units[1:])

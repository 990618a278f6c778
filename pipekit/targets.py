"""What a command is to run on: a name, imported from a module or a script, and the batches that it stands for."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from .batches.batch_iterator import BatchIterator
from .batches.prefetch import prefetch
from .composition import pipeline
from .describing.display import brief
from .streams.iterables import takes_nothing
from .streams.stream import Stream, StreamIterator


class NoTarget(Exception):
    """A target that is no pipeline, or one without batches."""


def named(target: str) -> Any:
    """What ``module:name`` or ``script.py:name`` names; the module or the script is imported.

    Examples
    --------
    >>> named('pipekit.describing.display:LONGEST_LINE')
    88
    >>> named('pipekit')
    Traceback (most recent call last):
    pipekit.targets.NoTarget: expected module:name or script.py:name, got 'pipekit'
    """
    where, _, name = target.rpartition(':')
    is_script = where.endswith('.py')
    if not all(map(str.isidentifier, name.split('.') + (['script'] if is_script else where.split('.')))):
        raise NoTarget(f'expected module:name or script.py:name, got {target!r}')
    module = _script(Path(where).resolve()) if is_script else _module(where)
    try:
        return attrgetter(name)(module)
    except AttributeError:
        raise NoTarget(f'{where} has no {name}') from None


def batches_of(value: Any, target: str, *, ahead: bool = False, profile: bool = False) -> Any:
    """What gives the batches of a target, which names this value: the value, or what it returns.

    Parameters
    ----------
    ahead, profile
        Whether what has no ``prefetch`` is put behind one, and whether its report is exact, which implies that.

    Examples
    --------
    >>> batches_of(lambda: pipeline('abc'), 'train:batches', ahead=True)
    pipeline('abc', prefetch(profile=False))
    >>> batches_of(3, 'train:batches')
    Traceback (most recent call last):
    pipekit.targets.NoTarget: train:batches is 3, of type int; expected a pipeline, or a function without arguments ...
    """
    if callable(value) and takes_nothing(value, unknown=False):
        value, target = value(), f'{target}()'
    if isinstance(value, BatchIterator):
        end = value._end._call
        exact = end.factory(*end.args, **{**end.kwargs, 'profile': True})
        return BatchIterator(value.pipeline, exact) if profile else value
    if isinstance(value, Stream | StreamIterator):
        return pipeline(value, prefetch(profile=profile)) if ahead or profile else value
    expected = 'expected a pipeline, or a function without arguments that returns one'
    raise NoTarget(f'{target} is {brief(value)}, of type {type(value).__name__}; {expected}')


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f'{name}.'.startswith(f'{error.name}.'):  # rather than one that it imports
            raise NoTarget(f'there is no module {name}') from None
        raise


def _script(path: Path) -> ModuleType:
    if not path.is_file():
        raise NoTarget(f'there is no file {path}')
    sys.path.insert(0, str(path.parent))
    module = _module(path.stem)
    if module.__dict__.get('__file__') != str(path):
        raise NoTarget(f'{path} has the name of another module; rename it')
    with suppress(ModuleNotFoundError):  # then there are no processes either
        import cloudpickle

        # As if it were run itself: its functions are sent to processes, which do not import it again.
        cloudpickle.register_pickle_by_value(module)
    return module

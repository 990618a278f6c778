"""Values as text: the code of a value, its structure, a short form for messages; ordinals and durations."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from math import isfinite
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from .structures import fields_of, has_fields, is_named_tuple

LONGEST_LINE, LONGEST_VALUE, LONGEST_BRIEF = 88, 72, 160  # characters
DEEPEST = 5  # levels of nesting; a value may contain itself
MOST_PARTS = 8  # fields of a structure
ONLY_SIZE = re.compile(r'<\w+ of \d+>')
DESCRIBED_ARRAY = re.compile(r'<(\w+\[[\d, ]*\])>')
ADDRESS = re.compile(r'\b(0x[0-9a-fA-F]{6,}|id=\W?\d{6,})')
CONTAINERS: tuple[type, ...] = (list, tuple, dict, set, frozenset, deque)


def code(value: object) -> str:
    """The code that makes a value, shortened to what it takes to recognise it.

    A value that is too long for code is described in angle brackets, so that the text never evaluates to another value.
    Memory addresses are left out, so that the text is the same in every process.

    Examples
    --------
    >>> code([1, 2, 3]), code(np.mean), code(range(10**6))
    ('[1, 2, 3]', 'np.mean', 'range(0, 1000000)')
    >>> code(list(range(60000)))
    '<list of 60000: 0, 1, 2, ..., 59999>'
    >>> code(np.zeros((60000, 28, 28), np.float32))
    '<float32[60000, 28, 28]>'
    """
    return _code_within(value, 0)


def call_code(name: str, args: Iterable[object], kwargs: Mapping[str, object]) -> str:
    """The code of a call, on several lines if one would be too long.

    Examples
    --------
    >>> call_code('combine_batches', [32], {'drop_last': True})
    'combine_batches(32, drop_last=True)'
    """
    return _code_of_call(name, args, kwargs, -1)


def structure(value: object, most: int = MOST_PARTS) -> str:
    """The structure of a value: the types and shapes of its first ``most`` fields.

    Examples
    --------
    >>> structure((np.zeros((1, 28, 28), np.float32), np.int64(3)))
    '(float32[1, 28, 28], int64)'
    >>> structure({'image': np.zeros((2, 2)), 'name': 'a'})
    "{'image': float64[2, 2], 'name': str}"
    """
    return _structure_within(value, most, 0)


def field_code(path: Iterable[object]) -> str:
    """The code of a field of a sample, by the indices and keys that lead to it: ``sample['meta'][0]``."""
    return 'sample' + ''.join(f'[{code(name)}]' for name in path)


def brief(value: object) -> str:
    """A value on one line of a message, with the types and shapes of arrays."""
    text = code(value)
    if ONLY_SIZE.fullmatch(text):
        text = structure(value)
    text = DESCRIBED_ARRAY.sub(r'\1', text).replace('\n', ' ')
    return text if len(text) <= LONGEST_BRIEF else f'{text[:LONGEST_BRIEF]}...'


def ordinal(number: int) -> str:
    """An ordinal number, as in "the 2nd stage".

    Examples
    --------
    >>> ordinal(1), ordinal(2), ordinal(3), ordinal(11), ordinal(24)
    ('1st', '2nd', '3rd', '11th', '24th')
    """
    ending = 'th' if number % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')
    return f'{number}{ending}'


def duration(seconds: float) -> str:
    """A time with a unit that suits it.

    Examples
    --------
    >>> duration(0.0121), duration(3.2e-6), duration(2)
    ('12.1 ms', '3.2 µs', '2 s')
    """
    if seconds >= 1:
        return f'{seconds:.3g} s'
    return f'{seconds * 1e3:.3g} ms' if seconds >= 1e-3 else f'{seconds * 1e6:.3g} µs'


def _code_within(value: object, depth: int) -> str:
    try:
        return _code(value, depth)
    except Exception:  # methods of a user's object may raise anything, and printing must not
        return f'<{type(value).__name__}>'


def _code(value: Any, depth: int) -> str:
    if isinstance(value, np.ndarray):
        return _code_of_array(value)
    if isinstance(value, str | bytes | bytearray) and len(value) > LONGEST_VALUE:
        return _cut_text(value, repr(value[:LONGEST_VALUE]))
    if type(value) is float and not isfinite(value):
        return f"float('{value}')"
    if depth == DEEPEST and (isinstance(value, CONTAINERS) or has_fields(type(value))):
        return f'<{type(value).__name__}{_size(value)}>'
    if is_named_tuple(value):
        return _code_of_call(type(value).__name__, (), dict(zip(value._fields, value, strict=True)), depth)
    if isinstance(value, CONTAINERS):
        return _code_of_container(value, depth)
    if _prints_as_dataclass(type(value)):
        shown = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
        return _code_of_call(type(value).__name__, (), shown, depth)
    if isinstance(value, functools.partial):
        return _code_of_call('partial', (value.func, *value.args), value.keywords, depth)
    if is_partial(value):
        name = _code_within(value.func, depth)
        return _code_of_call(name, value.args, value.keywords, depth) if value.args or value.keywords else name
    if callable(value) and isinstance(getattr(value, '__name__', None), str):
        owner = getattr(value, '__self__', None)
        if owner is not None and not isinstance(owner, ModuleType):
            return f'{_code_within(owner, depth + 1)}.{value.__name__}'
        name = str(getattr(value, '__qualname__', value.__name__)).rpartition('<locals>.')[-1]
        # A saved state must tell np.sum from the builtin sum.
        return f'np.{name}' if vars(np).get(name) is value and not isinstance(value, type) else name
    return _repr(value)


def _code_of_call(name: str, args: Iterable[object], kwargs: Mapping[str, object], depth: int) -> str:
    parts = [_code_within(arg, depth + 1) for arg in args]
    parts += [f'{key}={_code_within(value, depth + 1)}' for key, value in kwargs.items()]
    line = f'{name}({", ".join(parts)})'
    if len(line) <= LONGEST_LINE and '\n' not in line:
        return line
    if depth > 0:
        return f'<{name}>'
    indented = ''.join(f'    {part},\n'.replace('\n', '\n    ').removesuffix('    ') for part in parts)
    return f'{name}(\n{indented})'


def _code_of_array(value: np.ndarray[Any, Any]) -> str:
    if type(value) is not np.ndarray or value.ndim != 1 or value.size > 8 or value.dtype.kind not in 'biuf':
        return f'<{structure(value)}>'
    numbers = value.tolist()
    dtype = '' if np.array(numbers).dtype == value.dtype else f', dtype={value.dtype.name}'
    return f'array({code(numbers)}{dtype})'


def _code_of_container(value: Any, depth: int) -> str:
    kind = next(kind for kind in CONTAINERS if isinstance(value, kind))
    name = type(value).__name__
    if type(value).__repr__ is not kind.__repr__:
        return f'<{name}{_size(value)}>' if type(value).__module__ == 'collections' else _repr(value)
    parts = _parts(value, depth)
    inner = ', '.join(parts)
    if len(parts) == len(value) and len(inner) <= LONGEST_VALUE:
        literal = '{%s}' if kind in (dict, set, frozenset) else '(%s)' if kind is tuple else '[%s]'
        text = literal % (f'{inner},' if kind is tuple and len(parts) == 1 else inner)
        if type(value) in (list, tuple, dict) or (type(value) is set and parts):
            return text
        return f'{name}({text if parts else ""})'
    some = parts[:3] if kind in (list, tuple, deque) else []
    last = [_code_within(value[-1], depth + 1)] if some and len(value) > len(some) else []
    text = ', '.join([*some, *(['...'] if len(value) > len(some) + 1 else []), *last])
    return f'<{name}{_size(value)}{f": {text}" if some and len(text) <= LONGEST_VALUE else ""}>'


def _parts(value: Any, depth: int) -> list[str]:
    """The code of the first parts of a container: as many as fit on a line, but at least three."""
    if isinstance(value, dict):
        made = (f'{_code_within(key, depth + 1)}: {_code_within(part, depth + 1)}' for key, part in value.items())
    else:
        made = (_code_within(part, depth + 1) for part in value)
    parts: list[str] = []
    left = LONGEST_VALUE if len(value) <= LONGEST_VALUE else 0
    for part in made:
        parts.append(part)
        left -= len(part) + len(', ')
        if left < 0 and len(parts) >= 3:
            break
    # The order of a set differs from process to process.
    return sorted(parts) if isinstance(value, set | frozenset) else parts


def is_partial(value: Any) -> bool:
    """Whether a value is a function with some arguments filled in, by ``functools.partial`` or ``toolz.curry``."""
    return (
        isinstance(getattr(value, 'args', None), tuple)
        and isinstance(getattr(value, 'keywords', None), dict)
        and callable(getattr(value, 'func', None))
    )


def _prints_as_dataclass(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and getattr(kind.__repr__, '__code__', None) is _code_of_dataclass_repr()


@functools.cache
def _code_of_dataclass_repr() -> CodeType:
    made: Any = dataclasses.make_dataclass('_', ())
    code_of_repr: CodeType = made.__repr__.__code__
    return code_of_repr


def _repr(value: object) -> str:
    text = repr(value)
    if type(value).__repr__ is object.__repr__ or ADDRESS.search(text):
        return f'<{type(value).__name__}{_size(value)}>'
    if hasattr(type(value), 'fingerprint'):  # a part of a pipeline is shown in full
        return text
    if '\n' in text:
        return f'<{type(value).__name__}>'
    return text if len(text) <= LONGEST_VALUE else _cut_text(value, text)


def _size(value: Any) -> str:
    return f' of {len(value)}' if hasattr(value, '__len__') else ''


def _cut_text(value: object, text: str) -> str:
    return f'<{type(value).__name__}{_size(value)}: {text[: LONGEST_VALUE - 20]}...>'


def _structure_within(value: object, most: int, depth: int) -> str:
    try:
        text = _structure(value, most, depth)
        return text if depth == 0 or len(text) <= 2 * LONGEST_LINE else type(value).__name__
    except Exception:  # as in _code_within
        return type(value).__name__


def _structure(value: Any, most: int, depth: int) -> str:
    name = type(value).__name__
    if isinstance(value, np.ndarray | np.generic):
        element = 'str' if value.dtype.kind == 'T' else str(value.dtype)
        return f'{element}[{_joined(value.shape)}]' if value.ndim else element
    if isinstance(value, list):
        kinds = dict.fromkeys(
            _structure_within(part, most, depth + 1) for part in value[:MOST_PARTS] if depth < DEEPEST
        )
        return f'[{" | ".join(kinds)}] of {len(value)}' if value else '[]'
    if not has_fields(type(value)):
        shape, dtype = getattr(value, 'shape', None), getattr(value, 'dtype', None)
        return f'{name}({dtype}[{_joined(shape)}])' if isinstance(shape, tuple) and dtype is not None else name
    if depth == DEEPEST:
        return name
    if isinstance(value, Mapping):
        fields = ((f'{code(key)}: ', part) for key, part in value.items())
    elif isinstance(value, tuple) and not is_named_tuple(value):
        fields = (('', part) for part in value)
    else:
        fields = ((f'{key}=', part) for key, part in fields_of(value) or [])
    parts = [label + _structure_within(part, most, depth + 1) for label, part in islice(fields, most)]
    if next(fields, None):
        parts.append('...')
    if isinstance(value, Mapping):
        return '{' + _joined(parts) + '}'
    if isinstance(value, tuple) and not is_named_tuple(value):
        return f'({_joined(parts)}{"," if len(parts) == 1 else ""})'
    return f'{name}({_joined(parts)})'


def _joined(parts: Iterable[object]) -> str:
    return ', '.join(map(str, parts))

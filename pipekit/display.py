"""How things are shown: a value as code, a value's structure, a table for terminals and notebooks."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .structures import fields_of, is_named_tuple

LONGEST_LINE = 88
LONGEST_VALUE = 72
ADDRESS = re.compile(r'\bat 0x[0-9a-fA-F]+')


def code(value: object) -> str:
    """The code that makes a value, as short as it can be recognised by.

    What is too long for code is described between angle brackets, so that it never evaluates to something else. No
    memory address appears: the text is the same in every process.

    Examples
    --------
    >>> code([1, 2, 3]), code(np.mean), code(range(10**6))
    ('[1, 2, 3]', 'mean', 'range(0, 1000000)')
    >>> code(list(range(60000)))
    '<list of 60000: 0, 1, 2, ..., 59999>'
    >>> code(np.zeros((60000, 28, 28), np.float32))
    '<float32[60000, 28, 28]>'
    """
    try:
        return _code(value)
    except Exception:  # the repr of a user's object may raise anything, and printing must survive it
        return f'<{type(value).__name__}>'


def call_code(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """The code of a call, over several lines where one would be too long.

    Examples
    --------
    >>> call_code('combine_batches', [32], {'drop_last': True})
    'combine_batches(32, drop_last=True)'
    """
    parts = [code(arg) for arg in args] + [f'{key}={code(value)}' for key, value in kwargs.items()]
    line = f'{name}({", ".join(parts)})'
    if len(line) <= LONGEST_LINE and '\n' not in line:
        return line
    indented = ''.join(f'    {part},\n'.replace('\n', '\n    ').removesuffix('    ') for part in parts)
    return f'{name}(\n{indented})'


def structure(value: object) -> str:
    """The structure of a value: the types and shapes of its fields.

    Examples
    --------
    >>> structure((np.zeros((1, 28, 28), np.float32), np.int64(3)))
    '(float32[1, 28, 28], int64)'
    >>> structure({'image': np.zeros((2, 2)), 'name': 'a'})
    "{'image': float64[2, 2], 'name': str}"
    """
    if isinstance(value, np.ndarray | np.generic):
        shape = ', '.join(map(str, value.shape))
        return f'{value.dtype}[{shape}]' if value.ndim else str(value.dtype)
    fields = fields_of(value)
    if fields is None:
        return _structure_of_leaf(value)
    if isinstance(value, dict):
        return '{' + _cut([f'{code(key)}: {structure(part)}' for key, part in fields]) + '}'
    if isinstance(value, tuple) and not is_named_tuple(value):
        parts = [structure(part) for _, part in fields]
        return f'({_cut(parts)}{"," if len(parts) == 1 else ""})'
    return f'{type(value).__name__}({_cut([f"{key}={structure(part)}" for key, part in fields])})'


class Table:
    """Rows under a header, for a terminal (``str``) and for a notebook (``_repr_html_``).

    Examples
    --------
    >>> Table(['stage', 'gives'], [['take(3)', 'int']])
    stage    gives
    take(3)  int
    """

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()):
        self.header = list(header)
        self.rows = [list(row) for row in rows]
        self.notes = list(notes)

    def __repr__(self) -> str:
        lines = [line for row in [self.header, *self.rows] for line in _lines(row)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (map(str.ljust, line, widths) for line in lines)
        return '\n'.join(['  '.join(line).rstrip() for line in padded] + self.notes)

    def _repr_html_(self) -> str:
        import html  # here, because only notebooks need it, and it takes a while to load

        def row(tag: str, cells: Sequence[str]) -> str:
            style = 'style="text-align: left; white-space: pre; font-family: monospace"'
            return '<tr>' + ''.join(f'<{tag} {style}>{html.escape(cell)}</{tag}>' for cell in cells) + '</tr>'

        body = ''.join(row('td', cells) for cells in self.rows)
        notes = ''.join(f'<p>{html.escape(note)}</p>' for note in self.notes)
        return f'<table><thead>{row("th", self.header)}</thead><tbody>{body}</tbody></table>{notes}'


def _code(value: object) -> str:
    if isinstance(value, functools.partial):
        return call_code('partial', (value.func, *value.args), value.keywords)
    if isinstance(value, np.ndarray):
        short = value.ndim == 1 and value.size <= 8 and value.dtype.kind in 'biuf'
        return f'array({value.tolist()})' if short else f'<{structure(value)}>'
    if isinstance(value, list | tuple | set | frozenset | dict):
        return _code_of_container(value)
    if callable(value) and (name := getattr(value, '__name__', None)):
        owner = getattr(value, '__self__', None)
        return str(name) if owner is None or isinstance(owner, type(np)) else f'{_owner(owner)}.{name}'
    if _is_curry(value):
        return call_code(code(value.func), value.args, value.keywords)  # type: ignore[attr-defined]
    text = repr(value)
    if type(value).__repr__ is object.__repr__ or ADDRESS.search(text):
        size = f' of {len(value)}' if hasattr(value, '__len__') else ''
        return f'<{type(value).__name__}{size}>'
    if '\n' in text and not hasattr(value, '_call'):
        text = f'<{type(value).__name__}>'
    return text if len(text) <= LONGEST_VALUE or hasattr(value, '_call') else _cut_text(value, text)


def _code_of_container(value: Any) -> str:
    if len(value) <= LONGEST_VALUE:
        if isinstance(value, dict):
            parts = [f'{code(key)}: {code(part)}' for key, part in value.items()]
            text = '{' + ', '.join(parts) + '}'
        else:
            parts = [code(part) for part in value]
            comma = ',' if isinstance(value, tuple) and len(parts) == 1 else ''
            opening, closing = _brackets(value)
            text = f'{opening}{", ".join(parts)}{comma}{closing}'
        if len(text) <= LONGEST_VALUE:
            return text
    if isinstance(value, list | tuple):
        some = [code(part) for part in (*value[:3], value[-1])]
        return f'<{type(value).__name__} of {len(value)}: {", ".join(some[:-1])}, ..., {some[-1]}>'
    return f'<{type(value).__name__} of {len(value)}>'


def _brackets(value: object) -> tuple[str, str]:
    if type(value) is tuple:
        return '(', ')'
    if type(value) is list:
        return '[', ']'
    if type(value) is set and value:
        return '{', '}'
    return f'{type(value).__name__}(', ')'


def _owner(owner: object) -> str:
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__


def _is_curry(value: object) -> bool:
    return all(hasattr(value, name) for name in ('func', 'args', 'keywords'))


def _cut_text(value: object, text: str) -> str:
    return f'<{type(value).__name__}: {text[: LONGEST_VALUE - 20]}...>'


def _cut(parts: Sequence[str], most: int = 8) -> str:
    return ', '.join(parts if len(parts) <= most else [*parts[:most], '...'])


def _structure_of_leaf(value: object) -> str:
    if isinstance(value, list):
        kinds = list(dict.fromkeys(structure(part) for part in value[:20]))
        return f'[{" | ".join(kinds)}] of {len(value)}' if kinds else '[]'
    shape, dtype = getattr(value, 'shape', None), getattr(value, 'dtype', None)
    if isinstance(shape, tuple) and dtype is not None:
        return f'{type(value).__name__}({dtype}[{", ".join(map(str, shape))}])'
    return type(value).__name__


def _lines(row: Sequence[str]) -> list[tuple[str, ...]]:
    cells = [cell.split('\n') for cell in row]
    height = max(map(len, cells))
    return list(zip(*(cell + [''] * (height - len(cell)) for cell in cells), strict=True))

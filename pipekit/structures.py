"""The structure of samples: which fields a value has, and how to make a value of the same kind from new ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Name = Any  # an index, a key, or the name of an attribute


def fields_of(value: object) -> list[tuple[Name, Any]] | None:
    """The names and values of the fields of a tuple, a mapping or a dataclass; ``None`` for anything else.

    Examples
    --------
    >>> fields_of(('a', 'b'))
    [(0, 'a'), (1, 'b')]
    >>> fields_of({'image': 1})
    [('image', 1)]
    >>> fields_of('text') is None
    True
    """
    if isinstance(value, tuple):
        names: Sequence[Name] = value._fields if is_named_tuple(value) else range(len(value))  # type: ignore[attr-defined]
        return list(zip(names, value, strict=True))
    if isinstance(value, Mapping):
        return list(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.init]
    return None


def with_fields(like: Any, values: Sequence[Any]) -> Any:
    """A value of the same kind with other fields, given in the order of ``fields_of``.

    Mappings become dicts.

    Examples
    --------
    >>> with_fields({'image': 1, 'label': 2}, [3, 4])
    {'image': 3, 'label': 4}
    """
    if is_named_tuple(like):
        return type(like)(*values)
    if isinstance(like, tuple | list):
        return type(like)(values)
    if isinstance(like, Mapping):
        return dict(zip(like, values, strict=True))
    names = [field.name for field in dataclasses.fields(like) if field.init]
    return dataclasses.replace(like, **dict(zip(names, values, strict=True)))


def is_named_tuple(value: object) -> bool:
    """Whether a value is a named tuple.

    Examples
    --------
    >>> is_named_tuple((1, 2))
    False
    """
    return isinstance(value, tuple) and hasattr(value, '_fields')

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
        return list(zip(value._fields if is_named_tuple(value) else range(len(value)), value, strict=True))  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return list(value.items())
    if has_fields(type(value)):
        names = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return None


def has_fields(kind: type) -> bool:
    """Whether the values of a type have fields.

    Examples
    --------
    >>> has_fields(dict), has_fields(list)
    (True, False)
    """
    return issubclass(kind, (tuple, Mapping)) or dataclasses.is_dataclass(kind)


def with_fields(like: Any, values: Sequence[Any]) -> Any:
    """A value of the same kind with other fields, given in the order of ``fields_of``.

    Mappings become dicts. A dataclass is made without its ``__init__`` and ``__post_init__``: what they check of a
    sample need not be true of a batch, and fields that they compute have been combined like the others.

    Examples
    --------
    >>> with_fields({'image': 1, 'label': 2}, [3, 4])
    {'image': 3, 'label': 4}
    """
    if is_named_tuple(like):
        return like._make(values)
    if isinstance(like, tuple | list):
        return type(like)(values)
    if isinstance(like, Mapping):
        return dict(zip(like, values, strict=True))
    made = object.__new__(type(like))
    for (name, _), value in zip(fields_of(like) or [], values, strict=True):
        object.__setattr__(made, name, value)  # it may be frozen
    return made


def is_named_tuple(value: object) -> bool:
    """Whether a value is a named tuple.

    Examples
    --------
    >>> is_named_tuple((1, 2))
    False
    """
    return isinstance(value, tuple) and hasattr(value, '_fields')

"""The structure of samples: which fields a value has, and how to make a value of the same kind from new ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Name = Any  # an index, a key, or the name of an attribute

SEQUENCES, MAPPINGS = (tuple, list), (dict, Mapping)  # a dict is told at once, where any Mapping takes a search


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
    values = values_of(value)
    return None if values is None else list(zip(names_of(value), values, strict=True))


def names_of(value: Any) -> Sequence[Name]:
    """The names of the fields, in their order; none of what has no fields.

    Examples
    --------
    >>> names_of(('a', 'b')), names_of({'image': 1})
    (range(0, 2), ['image'])
    """
    if isinstance(value, tuple):
        return value._fields if is_named_tuple(value) else range(len(value))  # type: ignore[attr-defined]
    if isinstance(value, MAPPINGS):
        return list(value)
    if dataclasses.is_dataclass(type(value)):
        return [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
    return []


def values_of(value: Any) -> list[Any] | None:
    """The values of the fields, in the order of ``names_of``; ``None`` for what has no fields.

    Examples
    --------
    >>> values_of(('a', 'b')), values_of({'image': 1})
    (['a', 'b'], [1])
    """
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, MAPPINGS):
        return list(value.values())
    return [getattr(value, name) for name in names_of(value)] if dataclasses.is_dataclass(type(value)) else None


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
    if isinstance(like, SEQUENCES):
        make = getattr(like, '_make', type(like))  # a named tuple has it
        return make(values)
    if isinstance(like, MAPPINGS):
        return dict(zip(like, values, strict=True))
    made = object.__new__(type(like))
    for name, value in zip(names_of(like), values, strict=True):
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

"""The structure of samples: the fields that a value has, and a value of the same kind with other fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Name = Any  # an index, a key, or the name of an attribute

SEQUENCES, MAPPINGS = (tuple, list), (dict, Mapping)  # dict first: isinstance with an abstract class is slow


def fields_of(value: object) -> list[tuple[Name, Any]] | None:
    """The names and values of the fields of a tuple, a mapping or a dataclass; ``None`` for anything else."""
    values = values_of(value)
    return None if values is None else list(zip(names_of(value), values, strict=True))


def names_of(value: Any) -> Sequence[Name]:
    """The names of the fields, in order; empty for a value without fields."""
    if isinstance(value, tuple):
        return value._fields if is_named_tuple(value) else range(len(value))  # type: ignore[attr-defined]
    if isinstance(value, MAPPINGS):
        return list(value)
    if dataclasses.is_dataclass(type(value)):
        return [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
    return []


def values_of(value: Any) -> list[Any] | None:
    """The values of the fields, in the order of ``names_of``; ``None`` for a value without fields."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, MAPPINGS):
        return list(value.values())
    return [getattr(value, name) for name in names_of(value)] if dataclasses.is_dataclass(type(value)) else None


def has_fields(kind: type) -> bool:
    """Whether the values of a type have fields."""
    return issubclass(kind, (tuple, Mapping)) or dataclasses.is_dataclass(kind)


def with_fields(like: Any, values: Sequence[Any]) -> Any:
    """A value of the same kind with other fields, given in the order of ``fields_of``.

    Mappings become dicts. A dataclass is made without calling ``__init__`` and ``__post_init__``: what they check in a
    sample need not hold for a batch, and the fields that they compute are among the new ones.
    """
    if isinstance(like, SEQUENCES):
        make = getattr(like, '_make', type(like))  # _make is a named tuple's
        return make(values)
    if isinstance(like, MAPPINGS):
        return dict(zip(like, values, strict=True))
    made = object.__new__(type(like))
    for name, value in zip(names_of(like), values, strict=True):
        object.__setattr__(made, name, value)  # the dataclass may be frozen
    return made


def is_named_tuple(value: object) -> bool:
    """Whether a value is a named tuple."""
    return isinstance(value, tuple) and hasattr(value, '_fields')

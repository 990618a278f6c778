"""Sample functions, value -> value, and functions that combine them.

A function that takes the keyword ``rng`` is random: its caller passes it a numpy ``Generator``. A combination of random
functions is random too, and passes its generator on to them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ..describing.arguments import fraction, function
from ..describing.descriptions import Description, described
from ..describing.display import code, field_code, structure
from ..describing.structures import MAPPINGS, SEQUENCES, fields_of, names_of, values_of, with_fields

Function: TypeAlias = Callable[..., Any]

INDICES = (int, np.integer)


class SampleFunction(Description):
    """A function of a sample that prints, compares and pickles as the call that made it."""

    def __init__(self, body: Function, *parts: Function, is_random: bool = False):
        self.takes_rng = is_random or any(map(takes_rng, parts))
        self._body = body

    def __call__(self, value: Any, *, rng: np.random.Generator | None = None) -> Any:
        if not self.takes_rng:
            return self._body(value)
        return self._body(value, rng=self.given(rng))

    def given(self, rng: np.random.Generator | None) -> np.random.Generator:
        """The generator that a random function was called with."""
        if rng is None:
            raise TypeError(f'{self!r} is random: call it with rng=, a numpy Generator')
        return rng


def takes_rng(func: Function) -> bool:
    """Whether a function has a parameter ``rng``."""
    if isinstance(func, SampleFunction):
        return func.takes_rng
    parameter = _parameters(func).get('rng')
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def may_take_rng(func: Function) -> bool:
    """Whether ``func(value, rng=generator)`` may work, as far as its signature tells."""
    if isinstance(func, SampleFunction):
        return func.takes_rng
    parameters = _parameters(func)
    takes_anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_rng(func) or takes_anything or not parameters


@described
def unpack_args(func: Function) -> SampleFunction:
    """A function of a sample that calls ``func`` with the sample's fields.

    The fields of a tuple are passed by position, those of a mapping or a dataclass by name.

    Raises
    ------
    TypeError
        When called, if the sample has no fields.

    Examples
    --------
    >>> unpack_args(max)((1, 5, 2))
    5
    >>> unpack_args(lambda image, label: label)({'image': 1, 'label': 2})
    2
    """
    function('func', func, 'a function of a sample')
    return SampleFunction(Unpacking(func), func)


class Unpacking:
    """Calls ``func`` with the fields of a sample: the function behind ``unpack_args`` and the stage ``unpack``."""

    def __init__(self, func: Function):
        self._func = func

    def __call__(self, value: Any, **rng: np.random.Generator) -> Any:
        func = self._func
        if isinstance(value, SEQUENCES):
            return func(*value, **rng)
        if isinstance(value, MAPPINGS):
            return func(**value, **rng)
        fields = fields_of(value)
        if fields is None:
            raise TypeError(
                f'expected a tuple, a mapping or a dataclass to unpack for {code(func)}, got {structure(value)}'
            )
        return func(**dict(fields), **rng)


@described
def apply_at(path: Any, func: Function) -> SampleFunction:
    """A function of a sample that applies ``func`` to one field and keeps the others.

    Parameters
    ----------
    path
        An index into a tuple or list, a key of a mapping, the name of a field of a named tuple or dataclass; or a tuple
        of these, which leads to a field inside other fields. Where the sample is a mapping with the tuple itself as a
        key, the tuple is that key.
    func
        A function of the field.

    Raises
    ------
    ValueError
        If the path is an empty tuple.
    TypeError, IndexError, KeyError
        When called, if the sample has no such field.

    Examples
    --------
    >>> apply_at(-1, str)((1, 2, 3))
    (1, 2, '3')
    >>> apply_at('label', str)({'image': 1, 'label': 2})
    {'image': 1, 'label': '2'}
    >>> apply_at(('meta', 'age'), float)({'image': 1, 'meta': {'age': 36, 'name': 'Ada'}})
    {'image': 1, 'meta': {'age': 36.0, 'name': 'Ada'}}
    """
    function('func', func, 'a function of a sample', 1, 'rng')
    if not isinstance(path, tuple):
        return SampleFunction(_at((path,), func), func)
    if not path:
        raise ValueError(
            'path must lead to a field, got (); to apply a function to the whole sample, leave out apply_at'
        )
    at_path, at_key = _at(path, func), _at((path,), func)

    def body(sample: Any, **rng: np.random.Generator) -> Any:
        is_key = isinstance(sample, MAPPINGS) and path in sample
        return (at_key if is_key else at_path)(sample, **rng)

    return SampleFunction(body, func)


@described
def multiply(func: Function) -> SampleFunction:
    """A function of a sample that applies ``func`` to each field.

    Examples
    --------
    >>> multiply(abs)((-1, 2, -3))
    (1, 2, 3)
    >>> multiply(len)({'image': 'ab', 'label': 'c'})
    {'image': 2, 'label': 1}
    """
    function('func', func, 'a function of a sample', 1, 'rng')

    def body(sample: Any, **rng: np.random.Generator) -> Any:
        return with_fields(sample, [func(value, **rng) for value in _values(sample, 'multiply')])

    return SampleFunction(body, func)


@described
def zip_apply(*funcs: Function) -> SampleFunction:
    """A function of a sample that applies the first function to the first field, the second to the second, and so on.

    Raises
    ------
    ValueError
        When called, if the sample does not have one field per function.

    Examples
    --------
    >>> zip_apply(abs, str)((-1, 2))
    (1, '2')
    """
    if not funcs:
        raise TypeError('zip_apply needs at least one function, one for each field')
    for func in funcs:
        function('each of funcs', func, 'a function of a sample', 1, 'rng')
    calls = [_accepting_rng(func) for func in funcs] if any(map(takes_rng, funcs)) else funcs

    def body(sample: Any, **rng: np.random.Generator) -> Any:
        values = _values(sample, 'zip_apply')
        if len(values) != len(calls):
            fields = f'the {len(values)} fields of {structure(sample)}'
            raise ValueError(f'zip_apply needs one function per field, got {len(calls)} for {fields}')
        return with_fields(sample, [call(value, **rng) for call, value in zip(calls, values, strict=True)])

    return SampleFunction(body, *funcs)


@described
def random_apply(p: float, func: Function) -> SampleFunction:
    """A random function of a sample that applies ``func`` with probability ``p``, and otherwise returns the sample.

    Examples
    --------
    >>> import numpy as np
    >>> flip = random_apply(0.5, np.fliplr)
    >>> flip(np.array([[1, 2]]), rng=np.random.default_rng(0)), flip(np.array([[1, 2]]), rng=np.random.default_rng(2))
    (array([[1, 2]]), array([[2, 1]]))
    """
    p = fraction('p', p)
    function('func', func, 'a function of a sample', 1, 'rng')
    is_random = takes_rng(func)

    def body(sample: Any, rng: np.random.Generator) -> Any:
        if rng.random() >= p:
            return sample
        return func(sample, rng=rng) if is_random else func(sample)

    return SampleFunction(body, is_random=True)


@described
def sample_args(func: Function, /, *samplers: Function, **named_samplers: Function) -> SampleFunction:
    """A random function of a sample that calls ``func`` with the sample and with random arguments.

    Parameters
    ----------
    func
        A function of a sample and the arguments.
    *samplers, **named_samplers
        Functions of a numpy ``Generator`` that return the arguments, such as ``operator.methodcaller('normal')``, which
        calls that method. The named ones are called in the alphabetical order of their names.

    Examples
    --------
    >>> from operator import methodcaller
    >>> import numpy as np
    >>> add_noise = sample_args(np.add, methodcaller('normal', scale=0.1))
    >>> add_noise(1.0, rng=np.random.default_rng(0)).round(3)
    np.float64(1.013)
    """
    function('func', func, 'a function of a sample')
    for name, sampler in [*enumerate(samplers), *named_samplers.items()]:
        function(f'sampler {name}', sampler, 'a function of a numpy Generator', 1)
    function('func', func, 'a function of a sample', 1 + len(samplers), 'rng', *named_samplers)
    by_name = sorted(named_samplers.items())  # the order of keyword arguments must not change what is drawn
    is_random = takes_rng(func) and 'rng' not in named_samplers

    def body(sample: Any, rng: np.random.Generator) -> Any:
        args = [sampler(rng) for sampler in samplers]
        kwargs = {name: sampler(rng) for name, sampler in by_name}
        return func(sample, *args, **kwargs, **({'rng': rng} if is_random else {}))

    return SampleFunction(body, is_random=True)


def _accepting_rng(func: Function) -> Function:
    if takes_rng(func):
        return func
    plain: Function = lambda value, **rng: func(value)  # noqa: E731
    return plain


def _parameters(func: Function) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(func).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return {}


def _values(sample: Any, owner: str, field: str = 'the sample') -> list[Any]:
    values = list(sample) if isinstance(sample, SEQUENCES) else values_of(sample)
    if values is None:
        raise TypeError(f'{owner} needs a tuple, a mapping or a dataclass as {field}, got {structure(sample)}')
    return values


def _at(path: tuple[Any, ...], func: Function, depth: int = 0) -> Function:
    # Not toolz.update_in, which knows dicts only.
    name, is_last = path[depth], depth + 1 == len(path)
    change = func if is_last else _at(path, func, depth + 1)
    owner = f'apply_at({code(path if len(path) > 1 else name)}, ...)'
    field = field_code(path[:depth]) if depth else 'the sample'

    def changed(sample: Any, **rng: np.random.Generator) -> Any:
        if type(sample) is dict and name in sample:
            return {**sample, name: change(sample[name], **rng)}
        values = _values(sample, owner, field)
        number = _number_of_field(sample, name, owner, field)
        values[number] = change(values[number], **rng)
        return with_fields(sample, values)

    return changed


def _number_of_field(sample: Any, name: Any, owner: str, field: str) -> int:
    by_index = isinstance(sample, SEQUENCES) and isinstance(name, INDICES)
    if by_index and -len(sample) <= name < len(sample):
        return int(name)
    names = range(len(sample)) if isinstance(sample, list) else names_of(sample)
    if not by_index and name in names:
        return names.index(name)
    error = IndexError if by_index else KeyError
    raise error(f'{owner} finds no {code(name)} in {field}, which is {structure(sample)}')

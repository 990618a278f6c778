"""Descriptions: objects that know the call that made them, and print, compare and pickle as that call."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar, cast

import numpy as np
from toolz import keyfilter, valfilter

from .display import call_code, code, is_partial
from .structures import fields_of

ENTROPY = ', with entropy '
ENTROPY_BYTES = 16
F = TypeVar('F', bound=Callable[..., Any])


class UnseededEntropy(int):
    """The seed of a description that was given none: entropy drawn when it was made."""


def fresh_seed() -> UnseededEntropy:
    """Draw a seed from the entropy of the operating system."""
    return UnseededEntropy.from_bytes(os.urandom(ENTROPY_BYTES), 'little')


class Description:
    """What a factory marked with ``described`` returns."""

    _call: FactoryCall
    seed: int | None = None
    # A state may be loaded with other workers, which change no value, and with another on_error, which is how one gets
    # past a bad sample.
    unsaved: tuple[str, ...] = ('workers', 'on_error')  # arguments that a saved state does not name

    def __repr__(self) -> str:
        return repr(self._call)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Description):
            return NotImplemented
        return self is other or self._call == other._call

    def __hash__(self) -> int:
        return hash(self._call.factory)

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle names the public factory alone, so that it outlives changes of what is behind it.
        factory, args, kwargs = self._call.factory, self._call.args, self._call.kwargs
        return (operator.call, (functools.partial(factory, *args, **kwargs),)) if kwargs else (factory, args)

    def short_code(self) -> str:
        """The code without the arguments that specify where and how it runs, such as ``workers``, and the seed."""
        return self._code_without('workers', 'on_error', 'seed', 'initializer', 'initargs')

    def fingerprint(self) -> list[str]:
        """The lines by which a saved state recognises this part of a pipeline."""
        entropy = f'{ENTROPY}{int(self.seed):x}' if isinstance(self.seed, UnseededEntropy) else ''
        return [repr(self.as_saved()) + entropy]

    def as_saved(self) -> Self:
        """This description without what a saved state does not name, also in what it was made of, such as pipelines."""
        call = self._call.without(*self.unsaved)
        args = tuple(arg.as_saved() if callable(getattr(type(arg), 'as_saved', None)) else arg for arg in call.args)
        if len(call.kwargs) == len(self._call.kwargs) and all(map(operator.is_, args, call.args)):
            return self
        bare = object.__new__(type(self))
        vars(bare).update(vars(self), _call=FactoryCall(call.factory, args, call.kwargs))
        return bare

    def _code_without(self, *names: str) -> str:
        given = self._call.kwargs.keys() & names
        return repr(self._call.without(*given)) if given else repr(self)


class FactoryCall:
    """A function and the arguments that it was called with."""

    def __init__(self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]):
        self.factory = factory
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return self.as_call_of(code(self.factory))

    def as_call_of(self, name: str) -> str:
        """The code of the call, with this name for the function and without the seed if none was given."""
        return call_code(name, self.args, valfilter(lambda value: not isinstance(value, UnseededEntropy), self.kwargs))

    def without(self, *names: str) -> FactoryCall:
        """The call without some keyword arguments."""
        return FactoryCall(self.factory, self.args, keyfilter(lambda name: name not in names, self.kwargs))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FactoryCall):
            return NotImplemented
        return self.factory is other.factory and same(self._arguments(), other._arguments())

    def _arguments(self) -> dict[str, Any]:
        try:
            bound = inspect.signature(self.factory).bind(*self.args, **self.kwargs)
        except (TypeError, ValueError):  # a builtin without a signature
            return {'args': self.args, 'kwargs': self.kwargs}
        bound.apply_defaults()
        return dict(bound.arguments)


def described(factory: F) -> F:
    """Make what ``factory`` returns remember the call that made it.

    Where no seed was given, the call remembers the one that the factory drew: an unpickled copy yields the same values.

    Examples
    --------
    >>> from pipekit import apply, described
    >>> @described
    ... def scale(factor):
    ...     return apply(lambda x: factor * x)
    >>> scale(2), scale(2) == scale(factor=2), scale(2) == scale(3)
    (scale(2), True, False)
    >>> list(scale(2)([1, 2]))
    [2, 4]
    """

    parameters = inspect.signature(factory).parameters.values()
    by_position = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    position = by_position.index('weights') if 'weights' in by_position else None

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        args = tuple(_own(value) if number == position else value for number, value in enumerate(args))
        if 'weights' in kwargs:
            kwargs = kwargs | {'weights': _own(kwargs['weights'])}
        made = factory(*args, **kwargs)
        if not isinstance(made, Description):
            raise TypeError(
                f'{code(factory)}, marked with described, must return a stage or a source, got {code(made)}'
            )
        if isinstance(made.seed, UnseededEntropy):
            bound = inspect.signature(factory).bind(*args, **kwargs)
            if 'seed' not in bound.signature.parameters:
                raise TypeError(f'{code(factory)} draws random numbers: give it a parameter seed, and pass that on')
            if 'seed' in kwargs or 'seed' not in bound.arguments:
                kwargs = kwargs | {'seed': made.seed}
            else:  # None was given by position
                bound.arguments['seed'] = made.seed
                args, kwargs = bound.args, bound.kwargs
        made._call = FactoryCall(make, args, kwargs)
        return made

    make._is_described = True  # type: ignore[attr-defined]
    return cast('F', make)


def _own(weights: Any) -> Any:
    """A copy of weights that may be changed later."""
    return copy.copy(weights) if isinstance(weights, list | np.ndarray) else weights


def is_described(factory: object) -> bool:
    """Whether this is a factory marked with ``described``."""
    return getattr(factory, '_is_described', False) is True


def same(a: Any, b: Any) -> bool:
    """Whether two values have the same type and are equal; arrays inside them are compared as a whole.

    Examples
    --------
    >>> same([np.zeros(2), 'a'], [np.zeros(2), 'a']), same(np.zeros(2), np.zeros(3)), same(1, True)
    (True, False, False)
    """
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        return same(a.tolist(), b.tolist()) if a.dtype.hasobject else a.tobytes() == b.tobytes()
    if is_partial(a):
        return same((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    if isinstance(a, operator.attrgetter | operator.itemgetter | operator.methodcaller):
        return same(a.__reduce__(), b.__reduce__())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if (fields := fields_of(a)) is not None:
        others = dict(fields_of(b) or [])
        return len(fields) == len(others) and all(name in others and same(part, others[name]) for name, part in fields)
    try:
        return bool(a == b) or bool(a != a and b != b)  # noqa: PLR0124 -- NaN
    except Exception:  # a user's __eq__ may raise or answer with an array
        return False

"""What a thread has set for itself, so that functions compute the same in other threads and in processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

import numpy as np

T = TypeVar('T')

_is_beside_others: ContextVar[bool] = ContextVar('is_beside_others', default=False)


class Settings:
    """The context variables of the calling thread as they are now, among them what numpy and decimal compute with.

    Examples
    --------
    >>> with np.errstate(divide='raise'):
    ...     settings = Settings()
    >>> settings.run(np.geterr)['divide'], np.geterr()['divide']
    ('raise', 'warn')
    """

    def __init__(self) -> None:
        self._variables = copy_context()
        self._variables.run(_copy_decimal_context)

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function with these settings; what it sets itself goes no further."""
        return self._variables.copy().run(_call, function, args)

    def sent_with(self, work: object) -> SentSettings:
        """What is unpickled as ``work``, in a process that is given the settings of numpy and decimal thereby."""
        return self.run(SentSettings, work)


class SentSettings:
    """Something to pickle, and the settings that it is to be used with."""

    def __init__(self, work: object):
        errors = np.geterr()
        calls = {'call', 'log'} & set(errors.values())  # else what is to be called may be anything
        decimal = sys.modules.get('decimal')
        self._parts = work, errors, np.geterrcall() if calls else None, decimal and decimal.getcontext()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, self._parts


def _received(work: object, errors: Any, call: Any, decimal_context: Any) -> object:
    np.seterr(**errors)
    np.seterrcall(call)
    if decimal_context is not None:
        sys.modules['decimal'].setcontext(decimal_context)  # loaded with the context
    return work


def is_beside_others() -> bool:
    """Whether this is a thread of ``prefetch`` or of ``threads(n)``, which runs beside those of the program."""
    return _is_beside_others.get()


def _call(function: Callable[..., T], args: tuple[Any, ...]) -> T:
    _is_beside_others.set(True)
    _copy_decimal_context()
    return function(*args)


def _copy_decimal_context() -> None:
    # The variable holds an object that is changed in place, by another thread as well.
    if (decimal := sys.modules.get('decimal')) is not None:
        decimal.setcontext(decimal.getcontext().copy())

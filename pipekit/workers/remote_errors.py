"""Errors on their way to another process: as they are where they survive that, and told of where they do not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from ..describing.display import code
from ..errors import RemoteError


def sendable_error(error: BaseException, dumps: Callable[[Any], bytes] = pickle.dumps) -> BaseException:
    """An error that can be pickled: itself, or a ``RemoteError``.

    Examples
    --------
    >>> sendable_error(OSError(2, 'gone'))
    FileNotFoundError(2, 'gone')
    >>> sendable_error(OSError(line for line in 'ab')).type_name
    'OSError'
    """
    try:
        again = pickle.loads(dumps(error))
        is_same = type(again) is type(error) and len(again.args) == len(error.args)
        if is_same and vars(again).keys() == vars(error).keys():
            return error
    except BaseException:  # whatever pickling it makes of it
        pass
    import traceback  # here, because it takes a while to load

    text = ''.join(traceback.format_exception(error))
    return RemoteError(type(error).__qualname__, list(map(code, error.args)), text)

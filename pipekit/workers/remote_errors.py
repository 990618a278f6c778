"""Errors on their way to another process: as they are if they can be pickled, else replaced by a ``RemoteError``."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from ..describing.display import code
from ..errors import RemoteError

MAX_CAUSES = 20  # of an error; a recursion may have made hundreds


def sendable_error(error: BaseException, dumps: Callable[[Any], bytes] = pickle.dumps) -> BaseException:
    """The error itself if pickling keeps its type, arguments and attributes, else a ``RemoteError`` in its place."""
    _shorten_causes(error)
    try:
        unpickled = pickle.loads(dumps(error))
        is_same = type(unpickled) is type(error) and len(unpickled.args) == len(error.args)
        if is_same and vars(unpickled).keys() == vars(error).keys():
            return error
    except BaseException:  # pickling runs code of the user's, which may raise anything
        pass
    import traceback  # here, because it takes a while to load

    text = ''.join(traceback.format_exception(error))
    return RemoteError(type(error).__qualname__, list(map(code, error.args)), text)


def _shorten_causes(error: BaseException) -> None:
    errors = [error]
    for _ in range(MAX_CAUSES):
        causes = (cause for each in errors for cause in (each.__cause__, each.__context__) if cause is not None)
        errors = list({id(cause): cause for cause in causes}.values())
    for last in errors:
        last.__cause__ = last.__context__ = None

"""Errors on their way to another process: as they are if they can be pickled, else replaced by a ``RemoteError``."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from ..describing.display import code
from ..errors import RemoteError


def sendable_error(error: BaseException, dumps: Callable[[Any], bytes] = pickle.dumps) -> BaseException:
    """The error itself if pickling keeps its type, arguments and attributes, else a ``RemoteError`` in its place."""
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

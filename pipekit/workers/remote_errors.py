"""Errors on their way to another process: as they are if they can be pickled, else replaced by a ``RemoteError``."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..describing.display import code
from ..errors import RemoteError

MAX_CAUSES = 20  # of an error; a recursion may have made hundreds


REMEDIES = {  # of what may go wrong in another process
    'started': 'run it with -c "import pipekit", and the initializer if there is one, to see it fail',
    'imported': 'what it needs must be importable by sys.path as that is when the batches are opened',
    'unpickled': 'its module must be importable there; install it, or extend sys.path before the batches are opened',
    'called': 'what your script does at its top level is not done there; call it in a new Python to see it fail',
}


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


def loaded(load: Callable[[], BaseException]) -> BaseException:
    """The error that ``load`` returns, or the one that it raises."""
    try:
        return load()
    except BaseException as error:
        return error


def noted(error: BaseException, *texts: str) -> BaseException:
    """The error with a note, if it takes one."""
    with suppress(Exception):
        error.add_note(': '.join(texts))
    return error


def _shorten_causes(error: BaseException) -> None:
    errors = [error]
    for _ in range(MAX_CAUSES):
        causes = (cause for each in errors for cause in (each.__cause__, each.__context__) if cause is not None)
        errors = list({id(cause): cause for cause in causes}.values())
    for last in errors:
        last.__cause__ = last.__context__ = None

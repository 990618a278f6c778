"""pipekit's own errors. Errors raised by the user's functions pass through unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class PipekitError(Exception):
    """The base class of pipekit's own errors.

    Examples
    --------
    >>> issubclass(Exhausted, PipekitError)
    True
    """


class Closed(PipekitError):
    """A batch was requested after close, or after its epoch had ended."""


class Exhausted(PipekitError):
    """The epoch would be empty, because the source has ended."""


class NotResumable(PipekitError):
    """A stream has to be opened again or at a later position, but its source is an iterator."""


class StateMismatch(PipekitError, ValueError):
    """The state was saved by another pipeline, or is not a valid state."""


class RemoteError(PipekitError):
    """Replaces an error in a worker process that could not be pickled: its type's name, arguments and traceback.

    Attributes
    ----------
    type_name
        The name of the error's type.
    arguments
        The ``repr`` of each of its arguments.
    traceback
        The text of its traceback.
    """

    def __init__(self, type_name: str, arguments: list[str], traceback: str):
        super().__init__(type_name, arguments, traceback)
        self.type_name = type_name
        self.arguments = arguments
        self.traceback = traceback

    def __str__(self) -> str:
        return f'{self.type_name}({", ".join(self.arguments)}), raised in a worker process:\n\n{self.traceback}'


class WorkerCrashed(PipekitError):
    """Worker processes died repeatedly, at the same sample or while starting.

    Attributes
    ----------
    exit_code
        The exit code of the last one; if a signal killed it, the negative number of the signal.
    """

    def __init__(self, message: str, exit_code: int | None):
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class TooManyFailures(PipekitError, ExceptionGroup[Exception]):
    """More samples have failed than ``skip`` or ``replace`` allows. Groups the first ten errors."""

    def derive(self, exceptions: Sequence[Exception]) -> TooManyFailures:  # type: ignore[override]
        """Group some of the errors, for ``except*`` and ``split``."""
        return TooManyFailures(self.message, exceptions)


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Wrap an import: if the module is missing, the error names the extra to install.

    Examples
    --------
    >>> with needs('plot', 'a picture of a report'):
    ...     import no_such_module
    Traceback (most recent call last):
    ModuleNotFoundError: a picture of a report needs no_such_module: pip install "pipekit-batches[plot]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = f'{what} needs {error.name}: pip install "pipekit-batches[{extra}]"'
        raise ModuleNotFoundError(text, name=error.name) from error

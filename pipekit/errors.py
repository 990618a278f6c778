"""The errors that pipekit raises on its own account; a user's own errors pass through as they are."""


class PipekitError(Exception):
    """The base of pipekit's own errors.

    Examples
    --------
    >>> issubclass(Exhausted, PipekitError)
    True
    """


class Closed(PipekitError):
    """A batch was asked of something that hands out no more: a closed ``BatchIterator``, an ended epoch."""


class Exhausted(PipekitError):
    """An epoch would be empty, because the source has ended."""


class NotResumable(PipekitError):
    """A stream would have to be opened again, or in its middle, but its source is an iterator."""


class StateMismatch(PipekitError, ValueError):
    """A state was saved by another pipeline, or is no state at all."""

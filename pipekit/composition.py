"""``pipeline(...)``: combines a source and stages into one description."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from .batches.batch_iterator import BatchIterator
from .batches.prefetch import Prefetch
from .describing.descriptions import FactoryCall, is_described
from .describing.display import code, is_partial
from .plans.pipeline import IterableStage, Pipeline, Stage, join_stages
from .stages.functions import SampleFunction
from .streams.iterables import needs_no_arguments, source_of
from .streams.stream import Stream

if TYPE_CHECKING:
    Source: TypeAlias = Iterable[Any] | Callable[[], Iterable[Any]]
    StageLike: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]


STAGES_FOR: dict[Any, str] = {
    map: 'did you mean apply(func)?',
    filter: 'did you mean keep(predicate)?',
    islice: 'did you mean take(n)?',
}


# The stub beside this file has the overloads from which type checkers infer what a pipeline yields.
def pipeline(*parts: Source | StageLike | Prefetch) -> Pipeline | BatchIterator | Stage:
    """Combine a source and stages.

    The result is a description: nothing runs, opens or starts yet.

    Parameters
    ----------
    *parts
        First the source: a pipeline, a sequence or another iterable, an iterator, or a function without arguments that
        makes an iterator. Then stages. Last, for batches from a background thread, ``prefetch(...)``. Without a source,
        the stages form one stage, for use in other pipelines.

        A function from an iterable to an iterator is a stage too, if it can be distinguished from a sample function:
        a generator function, an iterator class, a function of ``toolz``, ``itertools`` or ``more_itertools``, or a
        function with ``Iterable`` or ``Iterator`` in its annotations.

    Returns
    -------
    Pipeline, BatchIterator or Stage
        A ``Stage`` if the first part is a stage, a ``BatchIterator`` if the last part is ``prefetch(...)``, otherwise a
        ``Pipeline``.

    Raises
    ------
    TypeError
        If a part is not a source, a stage or ``prefetch(...)``, or is in the wrong position.
    NotResumable
        If a stage has to open the source more than once, and the source is an iterator.

    Examples
    --------
    >>> from pipekit import apply, combine_batches, keep, pipeline
    >>> even_squares = pipeline(keep(lambda x: x % 2 == 0), apply(lambda x: x**2))
    >>> list(pipeline(range(8), even_squares, combine_batches(2, list)))
    [[0, 4], [16, 36]]
    >>> from more_itertools import pairwise
    >>> list(pipeline('abc', pairwise, apply(''.join)))
    ['ab', 'bc']
    >>> pipeline([1, 2], abs)
    Traceback (most recent call last):
    TypeError: expected a stage, got abs; did you mean apply(abs)?
    """
    if not parts:
        raise TypeError('pipeline needs a source or a stage')
    first: Any
    others: list[Any]
    first, *others = parts
    if isinstance(first, BatchIterator | Prefetch):
        raise TypeError(f'prefetch(...) is always the last part of a pipeline, got {code(first)} as the first')
    if isinstance(first, Stage) or (_is_iterable_stage(first) and not needs_no_arguments(first, unknown=False)):
        whole = join_stages([_stage(part) for part in parts])
        whole._call = FactoryCall(pipeline, whole.stages, {})
        return whole
    source = source_of(first)
    end = others.pop() if others and isinstance(others[-1], Prefetch) else None
    stages = [_stage(part) for part in others]
    whole_pipeline = Pipeline(source.source, (*source.stages, *stages))
    return whole_pipeline if end is None else BatchIterator(whole_pipeline, end)


def _stage(part: Any) -> Stage[Any, Any]:
    if isinstance(part, Stage):
        return part
    if isinstance(part, Prefetch):
        raise TypeError(f'{part!r} is always the last part of a pipeline that has a source')
    if _is_iterable_stage(part):
        _check_takes_iterable(part)
        return IterableStage(part)
    if is_described(part):
        hint = f'did you mean {code(part)}(...)?'
    elif callable(part):
        hint = f'did you mean apply({code(part)})?'
    else:
        hint = 'the source comes first, and only stages after it'
    raise TypeError(f'expected a stage, got {code(part)}; {hint}')


def _is_iterable_stage(part: Any) -> bool:
    """Whether a callable is recognisably a function from an iterable to an iterator, without calling it."""
    if not callable(part) or isinstance(part, SampleFunction | Stream):
        return False
    func: Any = part
    while is_partial(func):
        func = func.func
    if isinstance(func, type):
        return issubclass(func, Iterator)
    if inspect.isfunction(func) and (getattr(func, '__module__', None) or '').partition('.')[0] in (
        'toolz',
        'more_itertools',
    ):
        return True
    first, *_ = [*inspect.signature(func).parameters.values(), None] if inspect.isfunction(func) else [None]
    if first is None:
        return False
    if first.annotation is not first.empty:
        return _says_iterable(first.annotation)
    return inspect.isgeneratorfunction(func) or _says_iterable(inspect.signature(func).return_annotation)


def _check_takes_iterable(part: Any) -> None:
    try:
        inspect.signature(part, follow_wrapped=False).bind(())
        return
    except TypeError as error:
        cause: Exception = error
    except ValueError as error:  # of a builtin, which does nothing before it is asked for a value
        if getattr(part, '__module__', '') not in ('builtins', 'itertools'):
            return
        try:
            part(())
            return
        except TypeError:
            cause = error
    remedy = STAGES_FOR.get(part, f'give its other arguments with functools.partial({code(part)}, ...)')
    raise TypeError(f'expected a stage, a function of one iterable, got {code(part)}; {remedy}') from cause


def _says_iterable(annotation: Any) -> bool:
    return any(name in str(annotation) for name in ('Iterable', 'Iterator', 'Generator'))

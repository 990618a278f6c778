"""The checks fail for stages that break a law: one stage per law."""

import threading

import numpy as np
import pytest

from pipekit import apply, combine_batches, pipeline, sample
from pipekit.plans.pipeline import Stage
from pipekit.testing import check_stage


class Value:
    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return isinstance(other, Value) and self.number == other.number

    __hash__ = None


def values():
    return map(Value, range(10))


def resumes_one_too_far(upstream, cursor, context):
    pairs = upstream(cursor, context)
    return ((value, cursor + 1) for value, cursor in pairs)


def counts_in_vain(upstream, cursor, context):
    return ((value, 1) for value, _ in upstream(cursor, context))


def reads_when_opened(upstream, cursor, context):
    return iter(list(upstream(cursor, context)))


def looks_at_the_context(upstream, cursor, context):
    return ((value.number if context.run.fuses else -1, cursor) for value, cursor in upstream(cursor, context))


def pairs_up(iterable):
    first = None
    for second in iterable:
        if first is not None:
            yield first, second
        first = second


def drops_errors(iterable):
    iterator = iter(iterable)
    while True:
        try:
            yield next(iterator)
        except Exception:
            return


def replaces_errors(iterable):
    try:
        yield from iterable
    except Exception as error:
        raise ValueError('something went wrong') from error


def reads_ahead(iterable):
    kept = []
    for value in iterable:
        kept.append(value)
        if len(kept) == 4:
            yield from kept
            kept = []
    yield from kept


def holds(iterable):
    for value in iterable:  # noqa: UP028
        yield value


def draws_globally(value):
    return value.number + np.random.default_rng().random()


def leaves_a_thread(iterable):
    threading.Thread(target=threading.Event().wait, args=[5], daemon=True).start()
    yield from iterable


@pytest.mark.parametrize(
    ('law', 'stage'),
    [
        ('law 1, re-iterable', apply(draws_globally)),
        ('law 2, resumable', Stage(resumes_one_too_far)),
        ('law 2, resumable', Stage(counts_in_vain)),
        ('law 4, lazy', Stage(reads_when_opened)),
        ('law 4, lazy', reads_ahead),
        ('law 6, transparent', replaces_errors),
        ('law 7, clean', leaves_a_thread),
        ('law 9, not held', holds),
        ('law 10, fusion', Stage(looks_at_the_context)),
    ],
)
def test_the_error_names_the_law_that_a_stage_breaks(law, stage):
    with pytest.raises(AssertionError, match=law):
        check_stage(stage, values, reads_at_most=1)


def test_a_generator_function_that_obeys_the_laws_passes():
    check_stage(pairs_up, [1, 2, 3, 4], reads_at_most=2)


def test_a_source_that_cannot_be_opened_again_is_refused():
    with pytest.raises(TypeError, match='can be opened again, got'):
        check_stage(combine_batches(2), iter([1, 2]))


def test_a_function_that_is_not_a_stage_is_refused():
    with pytest.raises(TypeError, match=r'did you mean apply\(draws_globally\)'):
        check_stage(draws_globally, values)


def test_an_unseeded_source_is_pure_within_a_process():
    check_stage(combine_batches(2), sample([1, 2, 3]))


def test_a_whole_pipeline_is_checked_as_source_and_stage():
    check_stage(pipeline(apply(abs), combine_batches(2)), pipeline(range(9), apply(abs)), fresh_process=True)

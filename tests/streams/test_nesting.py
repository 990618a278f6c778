"""How deep a pipeline may be: many stages in a row, sources in one another, and an error that names them."""

import pytest

from pipekit import apply, combine_batches, keep, mix, pipeline, prefetch, shuffle, skip, take
from pipekit.plans.operations import Custom
from pipekit.plans.pipeline import Stage
from pipekit.streams.nesting import streams_within


def is_even(value):
    return value % 2 == 0


def nested_mixes(n):
    mixed = pipeline('ab')
    for seed in range(n):
        mixed = mix(mixed, seed=seed)
    return mixed


def batches_of(stream):
    with pipeline(stream, prefetch()) as batches:
        return list(batches)


@pytest.mark.parametrize('run', [list, batches_of])
def test_a_thousand_keeps_in_a_row_can_be_opened(run):
    many = pipeline(range(9), *[keep(is_even)] * 500, combine_batches(1, sum), *[keep(is_even)] * 500)
    assert run(many) == [0, 2, 4, 6, 8]
    assert list(many.resume(3)) == [4, 6, 8]


def test_so_can_keeps_between_other_stages():
    stages = [keep(is_even), apply(abs, on_error=skip(OSError))] * 300
    assert list(pipeline(range(9), *stages)) == [0, 2, 4, 6, 8]


def test_a_stage_called_on_an_iterator_over_a_pipeline_goes_on_with_that_pipeline():
    values = range(5)
    for _ in range(150):
        values = apply(abs)(values)
    assert len(values.stream.stages) == 150
    assert list(values) == [0, 1, 2, 3, 4]


def nested_iterators(values, steps):
    for _ in range(1000):
        values = apply(abs)(values)
        for _ in range(steps):
            next(values)
    return values


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (
            lambda: pipeline(range(5), *[take(3)] * 1000),
            '1000 stages, from take(3) to take(3), are more than the limit',
        ),
        (lambda: pipeline(range(5), *[shuffle(2, seed=0)] * 1000), 'let one stage do the work of several'),
        (lambda: nested_mixes(1000), '1001 sources are nested in one another'),
        (lambda: pipeline(nested_mixes(1000), apply(str.upper)), 'put the sources into one mix(...)'),
        (lambda: nested_iterators(iter(range(9)), 0), 'sources are nested in one another'),
        (lambda: nested_iterators(range(10**4), 1), 'sources are nested in one another'),
    ],
)
@pytest.mark.parametrize('run', [iter, batches_of])
def test_what_is_too_deep_is_named_when_it_is_opened(make, said, run):
    with pytest.raises(RecursionError) as caught:
        run(make())
    assert said in str(caught.value)
    assert 'call sys.setrecursionlimit' in str(caught.value)


def test_a_recursion_of_the_users_is_left_as_it_is():
    def endless(*args):
        return endless(*args)

    for made in (pipeline('ab', apply(endless)), pipeline('ab', Stage.from_operations(Custom(endless)))):
        with pytest.raises(RecursionError) as caught:
            list(made)
        assert str(caught.value).startswith('maximum recursion depth exceeded')


def test_a_branch_that_is_shared_is_walked_once():
    mixed = mix('ab', seed=0)
    for seed in range(40):
        mixed = mix(mixed, mixed, seed=seed)
    assert sum(1 for _ in streams_within(mixed)) == 42
    assert not mixed.skips

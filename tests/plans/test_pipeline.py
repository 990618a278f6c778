import numpy as np
import pytest

from pipekit import (
    apply,
    combine_batches,
    expiration_pool,
    keep,
    pipeline,
    repeat,
    shuffle,
    skip,
    take,
    threads,
    unpack,
)


def draw(value, rng):
    return rng.random()


@pytest.mark.parametrize('stage', [apply(next), keep(next), unpack(next), combine_batches(1, lambda _: next(iter([])))])
def test_a_stray_stop_iteration_does_not_end_the_data_silently(stage):
    with pytest.raises(RuntimeError):
        list(stage([(iter([]),)] if 'unpack' in repr(stage) else [iter([])]))


def test_inserting_a_stage_with_another_seed_changes_no_randomness():
    before = list(pipeline('ab', apply(draw, seed=0)))
    assert list(pipeline('ab', take(2), shuffle(1, seed=5), take(2), apply(draw, seed=0))) != before
    assert list(pipeline('ab', apply(ord), apply(draw, seed=0))) == before


def test_a_random_function_draws_anew_for_each_sample_stage_and_seed():
    draws = [list(pipeline('ab', apply(draw, seed=seed))) for seed in (0, 1)]
    draws.append(list(pipeline('ab', apply(str, seed=None), apply(draw, seed=1), apply(draw, seed=1))))
    draws.append(list(pipeline('ab', apply(draw, seed=1), apply(draw, seed=1), apply(draw, seed=1))))
    assert len(set(np.ravel(draws))) == 8


def test_each_pass_draws_anew_and_the_first_one_as_without_repeat():
    once, twice = (pipeline('abc', apply(draw, seed=0), *stages) for stages in ([], [repeat(2)]))
    assert list(twice)[:3] == list(once)
    assert len(set(twice)) == 6


def test_stages_joined_as_one_are_single_stages_in_a_pipeline():
    first, second, third = take(3), apply(str), combine_batches(2, list)
    joined = pipeline(first, pipeline(second, third))
    assert joined.stages == pipeline('abc', joined).stages == (first, second, third)
    assert joined.operations == (*first.operations, *second.operations, *third.operations)


@pytest.mark.parametrize(
    ('stage', 'replays', 'keeps_structure', 'skips', 'calls_function'),
    [
        (take(3), False, True, False, False),
        (expiration_pool(2, 2, seed=0), True, True, False, False),
        (apply(abs), False, False, False, True),
        (apply(abs, on_error=skip()), False, False, True, True),
        (combine_batches(2), False, False, False, True),
        (pipeline(take(3), apply(abs)), False, False, False, True),
        (pipeline(take(3), shuffle(2, seed=0)), False, True, False, False),
    ],
)
def test_a_stage_has_the_properties_of_its_operations(stage, replays, keeps_structure, skips, calls_function):
    properties = stage.replays, stage.keeps_structure, stage.skips, stage.calls_function
    assert properties == (replays, keeps_structure, skips, calls_function)


def test_the_workers_of_a_stage_are_those_of_its_last_function():
    assert pipeline(apply(abs, workers=threads(2)), take(3), apply(str, workers=threads(3))).workers == threads(3)
    assert take(3).workers is None

"""The plan of a pipeline, as data: which operations are run together."""

import pytest

from pipekit import apply, combine_batches, expiration_pool, keep, pipeline, processes, shuffle, skip, take, threads
from pipekit.describing.display import code
from pipekit.plans.fusion import BatchStep, ElementStep, GatherStep, MapStep, ShareStep, SingleStep, plan
from pipekit.plans.operations import Chunk, Custom, Map

TWO, THREE = processes(2), processes(3)
BATCHES = combine_batches(2, list)


def name_of(operation):
    return code(operation.function) if isinstance(operation, Map) else type(operation).__name__


def names_of(operations):
    return ' '.join(name_of(placed.operation) for placed in operations)


def shown(step):
    match step:
        case SingleStep(operation):
            return names_of([operation])
        case MapStep(maps):
            return f'map({names_of(maps)})'
        case BatchStep(sample_maps, Chunk(), batch_maps):
            return f'batch({names_of(sample_maps)} | {names_of(batch_maps)})'
        case GatherStep(reordering, Chunk(), combining, _, fallback):
            return f'gather({names_of([*reordering, combining])} | {", ".join(map(shown, fallback))})'
        case ElementStep(reordering):
            return f'elements({names_of(reordering)})'
        case ShareStep(reordering, map_steps, _, batch_step):
            first = [] if reordering is None else [ElementStep(reordering)]
            last = [] if batch_step is None else [batch_step]
            return f'share({", ".join(map(shown, [*first, *map_steps, *last]))})'


def planned(stages, **options):
    return [shown(step) for step in plan(pipeline('abc', *stages)._operations, **options)]


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        ([], []),
        ([take(1)], ['Custom']),
        ([apply(ord)], ['map(ord)']),
        ([apply(ord), apply(float)], ['map(ord float)']),
        ([apply(ord), take(1), apply(float)], ['map(ord)', 'Custom', 'map(float)']),
        ([apply(ord), apply(float), BATCHES, apply(len)], ['map(ord float)', 'Chunk', 'map(list len)']),
        ([apply(ord), apply(float, workers=threads(2))], ['map(ord)', 'map(float)']),
        ([apply(ord, workers=TWO), apply(float, workers=TWO), apply(abs)], ['map(ord float)', 'map(abs)']),
        ([apply(ord, workers=TWO), BATCHES], ['map(ord)', 'Chunk', 'map(list)']),
        ([apply(ord), keep(bool), apply(float)], ['map(ord)', 'Custom', 'map(float)']),
        ([combine_batches(lambda chunk, value: True, list)], ['Custom', 'map(list)']),
    ],
)
def test_neighbouring_maps_with_the_same_workers_are_one_step(stages, expected):
    assert planned(stages) == expected


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        ([apply(ord, workers=TWO), BATCHES], ['batch(ord | list)']),
        ([apply(ord, workers=TWO), apply(float, workers=TWO), BATCHES], ['batch(ord float | list)']),
        ([apply(ord, workers=TWO), combine_batches(2, list, workers=TWO)], ['batch(ord | list)']),
        (
            [apply(ord, workers=TWO), combine_batches(2, list, workers=TWO), apply(len, workers=TWO)],
            ['batch(ord | list len)'],
        ),
        ([apply(ord, workers=TWO), BATCHES, apply(len)], ['batch(ord | list)', 'map(len)']),
        ([apply(ord, workers=TWO), BATCHES, BATCHES], ['batch(ord | list)', 'Chunk', 'map(list)']),
        ([apply(ord, workers=TWO), combine_batches(2, list, workers=THREE)], ['map(ord)', 'Chunk', 'map(list)']),
        ([apply(ord, workers=TWO), combine_batches(2, list, workers=threads(2))], ['map(ord)', 'Chunk', 'map(list)']),
        ([apply(ord, workers=threads(2)), BATCHES], ['map(ord)', 'Chunk', 'map(list)']),
        ([apply(ord), combine_batches(2, list, workers=TWO)], ['map(ord)', 'Chunk', 'map(list)']),
        ([apply(ord, workers=TWO), take(3), BATCHES], ['map(ord)', 'Custom', 'Chunk', 'map(list)']),
        ([apply(ord, workers=TWO, on_error=skip()), BATCHES], ['map(ord)', 'Chunk', 'map(list)']),
        ([apply(ord, workers=TWO)], ['map(ord)']),
    ],
)
def test_processes_make_whole_batches(stages, expected):
    assert planned(stages, has_workers=True) == expected


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        ([BATCHES], ['gather(list | Chunk, map(list))']),
        ([shuffle(3), take(2), BATCHES], ['gather(Custom Custom list | Custom, Custom, Chunk, map(list))']),
        ([BATCHES, apply(len), take(2)], ['gather(list | Chunk, map(list))', 'map(len)', 'Custom']),
        ([apply(ord), BATCHES], ['map(ord)', 'Chunk', 'map(list)']),
        ([keep(bool), BATCHES], ['Custom', 'Chunk', 'map(list)']),
        ([combine_batches(2, tuple)], ['Chunk', 'map(tuple)']),
        ([combine_batches(2, list, workers=TWO)], ['Chunk', 'map(list)']),
        ([combine_batches(lambda chunk, value: True, list)], ['Custom', 'map(list)']),
        ([take(2)], ['elements(Custom)']),
        ([shuffle(3), apply(ord), take(2)], ['elements(Custom)', 'map(ord)', 'Custom']),
        ([expiration_pool(2, 2), take(2)], ['Custom', 'Custom']),
        ([], []),
    ],
)
def test_batches_of_elements_that_no_operation_looks_at_are_gathered(stages, expected):
    def gather_for(combine):
        return abs if combine is list else None

    assert planned(stages, gather_for=gather_for) == expected


def test_without_fusing_each_operation_is_a_step():
    stages = [shuffle(3), apply(ord, workers=TWO), apply(float, workers=TWO), BATCHES]
    expected = ['Custom', 'map(ord)', 'map(float)', 'Chunk', 'map(list)']
    assert planned(stages, fuses=False, has_workers=True, gather_for=lambda combine: abs) == expected


def test_every_operation_is_in_exactly_one_step():
    stages = [shuffle(3), BATCHES, apply(len, workers=TWO), BATCHES, apply(len), apply(abs)]
    operations = pipeline('abc', *stages)._operations
    steps = plan(operations, has_workers=True, gather_for=lambda combine: abs)
    assert [type(step) for step in steps] == [GatherStep, BatchStep, MapStep]
    gather, batch, maps = steps
    assert [*gather.reordering, gather.chunk, gather.combining] == [
        operations[0],
        operations[1].operation,
        operations[2],
    ]
    assert [*batch.sample_maps, batch.chunk, *batch.batch_maps] == [
        operations[3],
        operations[4].operation,
        operations[5],
    ]
    assert isinstance(operations[0].operation, Custom)
    assert list(maps.maps) == operations[6:]


def shared(workers=None, size=4):
    return combine_batches(size, list, rank=1, world_size=2, workers=workers)


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        ([shared()], ['share()', 'map(list)']),
        ([apply(ord), shared()], ['share(map(ord))', 'map(list)']),
        ([keep(bool), apply(ord), shared()], ['Custom', 'share(map(ord))', 'map(list)']),
        ([apply(ord), take(3), apply(float), shared()], ['map(ord)', 'Custom', 'share(map(float))', 'map(list)']),
        ([apply(ord), apply(float, workers=threads(2)), shared()], ['share(map(ord), map(float))', 'map(list)']),
        ([apply(ord, workers=TWO), shared()], ['share(batch(ord | list))']),
        ([apply(abs, workers=THREE), apply(ord, workers=TWO), shared()], ['share(map(abs), batch(ord | list))']),
        ([apply(ord, workers=TWO), shared(workers=THREE)], ['share(map(ord))', 'map(list)']),
        (
            [BATCHES, apply(len), shared(), BATCHES],
            ['Chunk', 'share(map(list len))', 'map(list)', 'Chunk', 'map(list)'],
        ),
    ],
)
def test_the_maps_before_a_share_run_on_the_share(stages, expected):
    assert planned(stages, has_workers=True) == expected


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        ([apply(ord), shared()], ['share(elements(), map(ord))', 'map(list)']),
        (
            [shuffle(3, seed=0), take(2), apply(ord), shared()],
            ['share(elements(Custom Custom), map(ord))', 'map(list)'],
        ),
        ([shuffle(3, seed=0), keep(bool), shared()], ['elements(Custom)', 'Custom', 'share()', 'map(list)']),
        ([expiration_pool(2, 2, seed=0), shared()], ['Custom', 'share()', 'map(list)']),
        ([apply(ord), take(2), shared()], ['map(ord)', 'Custom', 'share()', 'map(list)']),
    ],
)
def test_a_share_of_a_sequence_looks_up_its_own_elements_alone(stages, expected):
    assert planned(stages, gather_for=lambda combine: None) == expected

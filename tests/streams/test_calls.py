"""Calls composed into one function of a pair: what it returns, records and says of errors."""

from itertools import product

import pytest

from pipekit import skip
from pipekit.streams.calls import Call, function_of_calls, with_previous_cursor
from pipekit.streams.error_notes import StageLocation
from pipekit.streams.metering import OFF, Meter
from pipekit.streams.on_error import Missing

LOCATIONS = [StageLocation(name, number, 3, shares_cursors=True) for number, name in enumerate(['first', 'second'], 2)]


def jitter(value, rng):
    return value + rng.random()


def calls(*functions, **options):
    return [
        Call(function, location=location, **options) for function, location in zip(functions, LOCATIONS, strict=False)
    ]


def test_the_functions_are_called_in_order_and_the_cursor_is_kept():
    assert function_of_calls(calls(float, str), key=())((-3, 7)) == ('-3.0', 7)


def test_random_numbers_depend_on_seed_ordinal_key_and_cursor():
    drawn = [
        function_of_calls([Call(jitter, seed=seed, ordinal=ordinal)], key)((0, cursor))[0]
        for seed, ordinal, key, cursor in product([0, 1], [0, 1], [(), (1,)], [1, 2])
    ]
    assert len(set(drawn)) == 16
    again = function_of_calls([Call(jitter, seed=1, ordinal=1)], (1,))
    assert [again((0, cursor))[0] for cursor in (1, 2)] == drawn[-2:]


@pytest.mark.parametrize('recorder', [OFF, Meter(is_exact=True)], ids=['off', 'recording'])
@pytest.mark.parametrize('options', [{}, {'on_error': (skip(KeyError),)}], ids=['plain', 'on_error'])
def test_the_note_names_the_call_that_failed_and_the_cursor_before(recorder, options):
    function = function_of_calls(calls(abs, lambda value: 1 / value, **options), (), start=4, recorder=recorder)
    function((-1, 5))
    with pytest.raises(ZeroDivisionError) as caught:
        function((0, 6))
    assert caught.value.__notes__ == [
        'in second, the 3rd of 3 stages, on sample 0 (cursor 6)\nto run it again: pipeline.replay(5)'
    ]
    with pytest.raises(ZeroDivisionError) as caught:
        function((0, 9), 8)
    assert 'pipeline.replay(8)' in caught.value.__notes__[0]


def test_calls_are_recorded_while_the_recorder_records():
    meter = Meter(is_exact=True)
    function = function_of_calls(calls(abs, float), (), recorder=meter)
    function((1, 1))
    meter.is_recording = False
    function((1, 2))
    assert [call[0] for call in meter.calls] == ['2', '3']


def test_where_samples_may_be_skipped_a_result_has_an_attempt_for_each_stage_reached():
    function = function_of_calls(calls(int, abs, on_error=(skip(ValueError),)), ())
    good, bad = function(('-3', 1)), function(('x', 2))
    assert (good.value, good.cursor, [attempt.exception for attempt in good.attempts]) == (3, 1, [None, None])
    assert (bad.value, bad.cursor) == (Missing.SKIPPED, 2)
    (attempt,) = bad.attempts
    assert (attempt.path, attempt.sample, type(attempt.exception)) == ('2', 'x', ValueError)


def test_each_pair_gets_the_cursor_before_it():
    pairs = iter([('a', 1), ('b', 2)])
    assert list(with_previous_cursor(pairs, start=0)) == [('a', 1, 0), ('b', 2, 1)]

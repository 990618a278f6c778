"""Cursors: their two forms, and the checks of those that somebody else has kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipekit.streams.cursors import (
    START,
    as_lists,
    checked_index,
    cursor_of,
    drop_first,
    enumerate_from,
    split_cursor,
    with_prefix,
)

CURSORS = st.recursive(st.integers(min_value=0), lambda parts: st.lists(parts).map(tuple))


@given(CURSORS)
def test_a_cursor_survives_json(cursor):
    assert cursor_of(json.loads(json.dumps(as_lists(cursor)))) == cursor


@pytest.mark.parametrize('value', [-1, 1.0, True, None, '1', [1, [2, -3]], {1: 2}])
def test_anything_else_is_not_a_cursor(value):
    with pytest.raises(ValueError, match='a cursor is a non-negative int or nested tuples of them, got '):
        cursor_of(value)


def test_an_index_is_checked():
    assert checked_index(3, 'take(3)', 3) == checked_index(3, 'take(3)') == 3
    with pytest.raises(ValueError, match=r"the cursor 4 is not one of 'abc', which has 3 values"):
        checked_index(4, 'abc', 3)
    with pytest.raises(ValueError, match=r"the cursor \(1, 2\) is not one of 'abc', whose cursors are ints"):
        checked_index((1, 2), 'abc')


def test_the_start_splits_into_the_starts_of_the_parts():
    assert split_cursor(START, [int, tuple, None], 'mix') == (START, (), START)


@pytest.mark.parametrize('cursor', [1, (1,), (1, 2, 3), ((1, 2), 3), (1, 2)])
def test_a_cursor_that_does_not_split_is_an_error(cursor):
    with pytest.raises(ValueError, match=r"is not one of 'mix', whose cursors are tuples of 2"):
        split_cursor(cursor, [int, tuple], 'mix')


def test_values_are_numbered_by_their_cursors():
    assert list(enumerate_from(lambda: 'abc', 1)) == [('b', 2), ('c', 3)]
    assert [with_prefix(3, pair) for pair in enumerate_from(lambda: 'ab', 0)] == [('a', (3, 1)), ('b', (3, 2))]


def test_dropping_more_than_there_is_is_an_error():
    assert list(drop_first(3, iter('abc'))) == []
    with pytest.raises(ValueError, match='the cursor 4 is past the end, after 3 values'):
        drop_first(4, iter('abc'))

"""What a source may be, told without calling or reading it."""

import itertools
from collections import deque
from itertools import islice

import numpy as np
import pytest
from toolz import curry

from pipekit.describing.display import code
from pipekit.streams.iterables import is_sequence, needs_no_arguments, source_of


@pytest.mark.parametrize('value', [[1], 'ab', range(3), np.zeros(2), deque([1])], ids=code)
def test_what_has_a_length_and_indices_is_a_sequence(value):
    assert is_sequence(value)


@pytest.mark.parametrize('value', [{1: 2}, {1}, iter([1]), np.array(5), list, None], ids=code)
def test_mappings_sets_iterators_and_types_are_not_sequences(value):
    assert not is_sequence(value)


def test_a_function_whose_parameters_have_defaults_needs_no_arguments():
    assert needs_no_arguments(lambda n=3: n, unknown=False)
    assert not needs_no_arguments(lambda n: n, unknown=True)
    assert not needs_no_arguments(curry(lambda n=3: n), unknown=True)


@pytest.mark.parametrize('unknown', [True, False])
def test_of_a_builtin_without_a_signature_it_is_unknown(unknown):
    assert needs_no_arguments(iter, unknown=unknown) is unknown


class Rows:
    def __iter__(self):
        return iter('abc')


class Indexed:
    def __getitem__(self, index):
        return 'ab'[index]


@pytest.mark.parametrize(('kind', 'values'), [(Rows, 'abc'), (Indexed, 'ab'), (itertools.count, None)])
def test_a_class_that_needs_no_argument_is_a_source(kind, values):
    source = source_of(kind)
    for _ in range(2):
        assert list(islice(source, 3)) == ([0, 1, 2] if values is None else list(values))
    assert list(islice(source.resume(1), 2)) == [1, 2] if values is None else list(values)[1:]


class OfFile:
    def __init__(self, path):
        self.path = path

    def __iter__(self):
        return iter(self.path)


async def rows():
    return 'abc'


async def async_rows():
    yield 'a'


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        (OfFile, 'got OfFile, which takes arguments; did you mean OfFile(...)?'),
        (int, 'got int; a source is a sequence'),
        (list, 'got list; a source is a sequence'),
        (object, 'got object; a source is a sequence'),
        (rows, 'got rows, which is async; pass a function that returns an iterable'),
        (async_rows, 'got async_rows, which is async; pass a function that returns an iterable'),
    ],
)
def test_other_classes_and_coroutines_are_not(wrong, said):
    with pytest.raises(TypeError) as caught:
        source_of(wrong)
    assert str(caught.value).startswith('expected a source, ')
    assert said in str(caught.value)

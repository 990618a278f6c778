"""What a source may be, told without calling or reading it."""

from collections import deque

import numpy as np
import pytest
from toolz import curry

from pipekit.describing.display import code
from pipekit.streams.iterables import is_sequence, needs_no_arguments


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

"""Ranks of mpi4py: their shares, joined, are the batches of one rank, and their states are equal."""

import json
from importlib.util import find_spec

import pytest
from ranks.launching import MPIEXEC

pytestmark = [
    pytest.mark.skipif(not (find_spec('mpi4py') and MPIEXEC.exists()), reason='needs mpi4py and mpich'),
    pytest.mark.timeout(120),
]


@pytest.fixture
def joined(python_of_ranks):
    """The joined batches, and the state of each rank."""

    def run(n_ranks, n_batches, *state):
        printed = json.loads(python_of_ranks(n_ranks, 'shares_over_mpi.py', n_batches, *map(json.dumps, state)))
        return printed['batches'], printed['states']

    return run


def test_three_ranks_make_the_batches_of_one_and_have_its_state(joined):
    batches, [state] = joined(1, 100)
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 3]
    assert joined(3, 100) == (batches, [state] * 3)


def test_the_state_of_three_ranks_is_continued_by_two_and_by_one(joined):
    whole, [end] = joined(1, 100)
    first, states = joined(3, 2)
    assert first == whole[:2]
    assert states == states[:1] * 3
    state = states[0]
    for n_ranks in 1, 2:
        assert joined(n_ranks, 100, state) == (whole[2:], [end] * n_ranks)

import pickle

import pytest

from pipekit.plans.operations import PendingBatch
from pipekit.plans.tasks import BatchTask, Task
from pipekit.streams.calls import Call

SUM_OF_ABS = BatchTask(Task([Call(abs)], key=()), Task([Call(sum)], key=()))
PENDING = PendingBatch([(-3, 1), (4, 2)], before=0, makes_batch=True)


def test_a_task_returns_a_pair():
    assert Task([Call(abs), Call(float)], key=())((-3, 1, 0)) == (3.0, 1)


def test_a_batch_task_returns_the_batch_with_the_last_cursor():
    assert SUM_OF_ABS(PENDING) == (7, 2)


def test_a_batch_task_of_an_incomplete_chunk_processes_the_samples_and_returns_no_batch():
    assert SUM_OF_ABS(PENDING._replace(makes_batch=False)) is None
    with pytest.raises(TypeError):
        SUM_OF_ABS(PENDING._replace(pairs=[('a', 1)], makes_batch=False))


def test_a_measured_task_returns_its_calls_too():
    result, calls = Task([Call(abs)], key=(), is_measured=True)((-3, 1, 0))
    assert result == (3, 1)
    assert len(calls) == 1
    measured = BatchTask(*(Task([Call(f)], key=(), is_measured=True) for f in (abs, sum)))
    batch, calls = measured(PENDING)
    assert batch == (7, 2)
    assert len(calls) == 3


def test_a_task_begins_once_for_each_sample_and_for_the_batch():
    begun = []
    SUM_OF_ABS(PENDING, lambda: begun.append(1))
    assert len(begun) == 3


@pytest.mark.parametrize(
    ('step', 'text'),
    [(1, 'abs of -3 (cursor 1)'), (2, 'abs of 4 (cursor 2)'), (3, 'sum of the batch up to the cursor 2')],
)
def test_a_batch_task_says_what_a_step_does(step, text):
    assert SUM_OF_ABS.doing(PENDING, step) == text


@pytest.mark.parametrize(('task', 'item'), [(Task([Call(abs)], key=(1,)), (-3, 1, 0)), (SUM_OF_ABS, PENDING)])
def test_a_task_can_be_pickled_and_have_another_key(task, item):
    copy = pickle.loads(pickle.dumps(task))
    assert copy(item) == task(item) == task.keyed((2,))(item)
    assert task.keyed((2,)).key == (2,)
    assert task.keyed((2,)).identity == task.identity

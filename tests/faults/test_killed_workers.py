"""Worker processes that are killed, or that leave, are replaced; a sample that kills them all is found."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')

THIRD = 'for the 3rd time in a row'


def test_a_killed_worker_changes_nothing_but_a_warning(run):
    assert run('one_is_killed') == (
        0,
        "True\n['a process of processes(2) was killed by SIGKILL during double of 50 (cursor 51); "
        "a new one repeats its work'] []\n",
        '',
    )


@pytest.mark.parametrize('size', ['', 3], ids=['samples', 'batches'])
def test_all_workers_killed_at_once_again_and_again_change_nothing(run, size):
    assert run('all_are_killed_again_and_again', size) == (0, 'True 1\n[]\n', '')


def test_a_worker_killed_while_it_writes_a_shared_block_changes_nothing(run):
    assert run('one_is_killed_while_it_writes_a_block') == (0, 'True\n[] True True\n', '')


def test_a_worker_killed_in_the_middle_of_a_batch_changes_nothing(run):
    assert run('one_is_killed_in_the_middle_of_a_batch') == (
        0,
        "True\n['a process of processes(2) was killed by SIGKILL during combine of the batch up to the cursor 12; "
        "a new one repeats its work'] []\n",
        '',
    )


def test_workers_killed_as_they_start_change_nothing(run):
    warning = 'a process of processes(2) was killed by SIGKILL; a new one repeats its work'
    assert run('nine_are_killed_as_they_start') == (0, f'True\n[{warning!r}] []\n', '')


@pytest.mark.parametrize('when', ['in it', 'after it'])
def test_a_replaced_worker_calls_the_initializer_again(run, when):
    assert run('one_with_an_initializer_is_killed', when) == (0, 'True 1\n[]\n', '')


def test_workers_that_never_start_are_an_error(run):
    text = 'a process of processes(4) exited with code 3 while starting, for the 40th time in a row'
    assert run('none_ever_starts', 'error') == (0, f'{text} 3\n[]\n', '')


def test_an_error_of_the_start_says_where_and_what_to_do(run):
    code, out, err = run('none_ever_starts', 'note')
    remedy = 'run it with -c "import pipekit", and the initializer if there is one, to see it fail\n[]\n'
    assert (code, err) == (0, '')
    assert out.startswith('raised in a worker process that was to run ')
    assert out.endswith(f'/python: {remedy}')


@pytest.mark.parametrize(
    ('how', 'told'),
    [
        ('exits', 'exited with code 7'),
        ('aborts', 'was killed by SIGABRT'),
        ('closes its descriptors', ''),  # and ends in one way or another
    ],
)
def test_a_worker_that_leaves_is_replaced(run, how, told):
    code, out, err = run('one_leaves', how)
    first, rest = out.splitlines()
    assert (code, first, rest[:2]) == (0, 'True 1', '[]')
    assert told in rest
    assert err == '' or how == 'aborts'


def test_a_killed_worker_takes_along_what_it_has_started(run):
    assert run('one_is_killed_that_has_started_another_process') == (0, 'True\n[]\n', '')


@pytest.mark.parametrize('memory', ['shared memory', 'no shared memory'])
@pytest.mark.parametrize('ahead', ['', 4])
def test_a_sample_that_kills_its_workers_is_found_in_its_group(run, memory, ahead):
    code, out, err = run('a_sample_kills', ahead, memory)
    assert code == 0
    assert err == ''
    message, exit_code, rest = out.splitlines()
    workers = f'processes(2, ahead={ahead})' if ahead else 'processes(2)'
    assert message == f'a process of {workers} was killed by SIGKILL during load of 300 (cursor 301), {THIRD}'
    assert (exit_code, rest) == ('-9', 'True []')


@pytest.mark.parametrize(
    ('guilty', 'told'),
    [
        ('load', 'was killed by SIGKILL during load of 30 (cursor 31)'),
        ('combine', 'exited with code 5 during combine of the batch up to the cursor 32'),
    ],
)
def test_a_sample_that_kills_its_workers_is_found_in_its_batch(run, guilty, told):
    assert run('a_sample_of_a_batch_kills', guilty) == (0, f'a process of processes(2) {told}, {THIRD}\nTrue []\n', '')


def test_after_a_crash_the_next_epoch_goes_on_from_where_it_was(run):
    assert run('a_sample_kills_until_the_next_epoch') == (0, 'True []\n', '')


ALL = list(range(12))
WITHOUT = [value for value in ALL if value != 5]


@pytest.mark.parametrize(
    ('how', 'told'),
    [  # what was delivered, the samples that failed, and how many processes died
        ('skip', f'{WITHOUT} [5] 3'),
        ('skip any exception', f'{WITHOUT} [5] 3'),
        ('replace', f'{[*ALL[:5], -5, *ALL[6:]]} [5] 3'),
        ('replace before another function', f'{ALL} [5] 3'),
        ('random numbers', f'{WITHOUT} [5] 3'),
        ('the policy of another function', f'{WITHOUT} [5] 3'),
        ('retry', f'{ALL} [] 5'),
        ('retry too often', f'WorkerCrashed {ALL[:5]} [] 6'),
        ('retry and skip', f'{WITHOUT} [5] 6'),
        ('retry in a batch', f'{ALL} [] 5'),
        ('retry a batch', f'{ALL} [] 5'),
        ('skip a batch', f'{[*ALL[:3], *ALL[6:]]} [[3, 4, 5]] 3'),
        ('over the budget', f'TooManyFailures {ALL[:5]} [5] 3'),
        ('other exceptions', f'WorkerCrashed {ALL[:5]} [] 3'),
        ('a replacement that dies', f'WorkerCrashed {ALL[:5]} [] 3'),
        ('another function that dies', f'WorkerCrashed {[float(value) for value in ALL[:5]]} [] 6'),
    ],
)
def test_a_sample_that_kills_its_workers_obeys_on_error(run, how, told):
    assert run('a_sample_kills_and_is_handled', how) == (0, f'{told}\n[]\n', '')


def test_a_sample_that_kills_its_workers_is_skipped_in_each_pass(run):
    code, out, err = run('a_sample_kills_in_each_pass')
    assert (code, out.split()[0], out.split()[-1], err) == (0, 'True', '[]', '')


@pytest.mark.parametrize(('way', 'value'), [('there', '<DeadlyToRead>'), ('back', '60')])
def test_a_value_that_kills_as_it_is_sent_is_found(run, way, value):
    code, out, err = run('a_value_kills_as_it_is_sent', way)
    message, rest = out.splitlines()
    assert (code, rest, err) == (0, 'True []', '')
    assert f'was killed by SIGKILL during load of {value} (cursor 61), {THIRD}' in message

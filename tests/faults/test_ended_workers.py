"""However worker processes are ended in the middle of their work, nothing is left."""

import os
import signal
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')

INTERRUPT_SECONDS = 2.0 + 3.0  # until nothing runs; three of them are for a busy machine


def test_closing_does_not_wait_for_a_function_that_hangs(run):
    begin = time.monotonic()
    code, out, err = run('it_is_closed_while_a_function_is_stuck')
    assert time.monotonic() - begin < 30
    *lines, remains, took = out.splitlines()
    assert (code, sorted(lines), remains, err) == (0, ['0 1', 'stuck'], '[]', '')
    assert float(took) < INTERRUPT_SECONDS


@pytest.mark.parametrize(('then', 'expected'), [('closes', (0, '[]\n', '')), ('dies', (-signal.SIGKILL, '', ''))])
def test_an_initializer_that_hangs_holds_nothing_up(start, tmp_path, then, expected):
    with start('it_ends_while_an_initializer_is_stuck', then) as process:
        assert process.stdout.readline() == 'stuck\n'
        (tmp_path / 'go').touch()
        assert process.finish() == expected


def test_a_function_may_finish_what_it_does_when_the_batches_are_closed(start, tmp_path):
    with start('it_is_closed_while_a_function_runs') as process:
        assert process.stdout.readline() == 'begun\n'
        (tmp_path / 'go').touch()
        assert process.finish() == (0, 'done\n[]\n', '')


def ended(process):
    """The exit code, what is printed but for that the workers are at work, and stderr, soon after it was asked for."""
    begin = time.monotonic()
    code, out, err = process.finish()
    assert time.monotonic() - begin < 30
    return code, set(out.splitlines()) - {'ready', 'stuck'}, err


@pytest.mark.parametrize(
    ('function', 'how', 'expected'),
    [
        ('stuck', 'returns', 0),
        ('stuck', 'exits', 7),
        ('busy', 'exits at once', 7),
        ('stuck', 'is killed', -9),
        ('busy', 'is killed', -9),
        ('hold_the_gil', 'is killed', -9),
    ],
)
def test_however_it_is_left_nothing_is_left(start, function, how, expected):
    with start('it_leaves_while_workers_run', function, how) as process:
        assert ended(process) == (expected, set(), '')


def test_an_error_that_ends_it_is_all_that_is_told(start):
    with start('it_leaves_while_workers_run', 'stuck', 'raises') as process:
        code, printed, err = ended(process)
    assert (code, printed, err.count('Traceback')) == (1, set(), 1)
    assert err.endswith('KeyError: 1\n')


@pytest.mark.parametrize(('function', 'how'), [('float', 'forgets'), ('busy', 'closes')])
def test_however_it_lets_go_of_them_nothing_is_left(start, function, how):
    with start('it_lets_go_of_workers_that_run', function, how) as process:
        assert ended(process) == (0, {'[]'}, '')


@pytest.mark.parametrize('to', ['the main process', 'its group'])
@pytest.mark.parametrize('function', ['stuck', 'slow'])
def test_an_interrupt_ends_everything_without_noise(start, to, function):
    with start('it_is_interrupted', function) as process:
        assert process.stdout.readline() == 'stuck\n'
        begin = time.monotonic()
        if to == 'its group':
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        code, _, err = process.finish()
        assert time.monotonic() - begin < INTERRUPT_SECONDS
        assert code == -signal.SIGINT
        assert err.count('Traceback') == 1
        assert err.endswith('KeyboardInterrupt\n')


@pytest.mark.parametrize('delay', [0.0, 0.2])
@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGKILL])
def test_a_signal_as_it_starts_ends_everything_without_noise(start, delay, sent):
    with start('it_gets_a_signal_as_it_starts', int(sent), delay) as process:
        assert process.stdout.readline() == 'starts\n'
        code, _, err = process.finish()
        assert code == -sent
        assert err.count('Traceback') == (sent == signal.SIGINT)


def test_a_forgotten_worker_that_hangs_ends_with_the_process_at_the_latest(start, tmp_path):
    with start('it_forgets_workers_that_are_stuck') as process:
        assert process.stdout.readline() == 'stuck\n'
        (tmp_path / 'go').touch()
        assert process.finish() == (0, '', '')

"""What a prefetch thread does to its process: at its exit, at a signal, at a fork. Each scenario is a process."""

import json
import os
import signal
import sys
import time

import pytest

CLOSE_SECONDS = 2.0  # for which closing waits for a function that runs

needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
needs_signals = pytest.mark.skipif(sys.platform == 'win32', reason='needs POSIX signals')


def test_a_process_that_does_not_close_exits_in_silence(run):
    assert run('it_is_not_closed') == (0, '[0, 1, 2]\n', '')


def test_a_process_exits_from_inside_the_loop(run):
    assert run('it_exits_from_inside_the_loop') == (7, '', '')


def test_an_exception_in_flight_is_all_that_is_printed(run):
    code, out, err = run('it_raises_inside_the_loop')
    assert (code, out) == (1, '')
    assert err.startswith('Traceback')
    assert err.endswith('KeyError: 0\n')
    assert err.count('Traceback') == 1


def test_an_error_of_the_thread_ends_the_process_as_one_of_its_own(run):
    assert run('a_function_exits') == (5, '', '')


def test_an_error_that_nobody_waits_for_is_not_printed(run):
    assert run('an_error_is_not_waited_for') == (0, '', '')


def test_an_exit_waits_for_the_function_that_runs(run):
    assert run('it_exits_while_a_function_runs') == (0, 'returned\n', '')


def test_an_exit_does_not_wait_for_ever(run):
    begin = time.monotonic()
    assert run('it_exits_while_functions_are_stuck')[::2] == (0, '')
    assert time.monotonic() - begin < CLOSE_SECONDS + 3


def test_a_close_that_gave_up_is_not_repeated_by_the_exit(run):
    begin = time.monotonic()
    code, _, err = run('it_is_closed_while_a_function_is_stuck')
    assert code == 1
    assert 'RuntimeWarning: closed while a function in' in err
    assert time.monotonic() - begin < 1.5 * CLOSE_SECONDS + 1


def test_a_thread_that_consumes_at_the_exit_does_not_hold_it_up(run):
    code, _, err = run('a_thread_consumes_at_the_exit')
    assert (code, err) == (0, '')


def test_forgotten_batches_leave_no_threads_and_no_files(run):
    assert run('batches_are_forgotten') == (0, '0 0\n', '')


def test_waiting_uses_no_time_of_the_processor(run):
    code, out, _ = run('everybody_waits')
    assert code == 0
    assert float(out.split()[-1]) < 0.03


@needs_signals
def test_ctrl_c_reaches_the_main_thread_at_once_while_it_waits(start):
    with start('an_interrupt_is_caught') as process:
        assert process.stdout.readline() == 'stuck\n'
        time.sleep(0.05)  # so that it most likely waits by now; either way it must end
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.finish() == (3, 'interrupted\n', '')
        assert time.monotonic() - begin < 1


@needs_signals
def test_ctrl_c_prints_one_traceback(start):
    with start('an_interrupt_is_not_caught') as process:
        assert process.stdout.readline() == 'stuck\n'
        process.send_signal(signal.SIGINT)
        code, _, err = process.finish()
        assert code == -signal.SIGINT
        assert err.count('Traceback') == 1
        assert err.endswith('KeyboardInterrupt\n')


@needs_signals
def test_after_ctrl_c_the_batches_go_on(start):
    with start('it_goes_on_after_an_interrupt') as process:
        assert process.stdout.readline() == 'waits\n'
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.finish() == (0, '[0, 1] [2, 3, 4, 5, 6, 7, 8, 9, 10]\n', '')


@needs_signals
def test_after_ctrl_c_in_a_stall_the_batches_go_on(start):
    with start('it_goes_on_after_an_interrupt_in_a_stall') as process:
        assert process.stdout.readline() == 'stalls\n'
        process.send_signal(signal.SIGINT)
        code, out, err = process.finish()
    assert (code, out.splitlines()[-1], err) == (0, '0 1 2 3 4', '')


@needs_signals
@pytest.mark.parametrize(
    ('kind', 'fewest', 'lost_at_most'),
    [('one ready', 100, 1.0), ('three ready', 100, 1.0), ('between two looks for a stall', 20, 0.1)],
)
def test_a_storm_of_interrupts_neither_hangs_nor_doubles_a_batch(run, kind, fewest, lost_at_most):
    code, out, err = run('a_storm_of_interrupts', kind)
    assert (code, err) == (0, '')
    ticks, lost, *sound = out.split()
    assert int(ticks) > fewest
    # A batch is lost to the loop if the interrupt comes between the end of next() and its own first line.
    assert int(lost) <= lost_at_most * int(ticks)
    assert sound == ['True', 'True']


@needs_signals
def test_a_storm_of_signals_that_look_and_close_breaks_nothing(run):
    assert run('a_storm_of_signals_that_look_and_close') == (0, 'True True []\n', '')


@needs_signals
def test_a_handler_may_take_batches_from_the_loop_that_it_interrupts(run):
    assert run('a_handler_takes_batches') == (0, 'True True\n', '')


@needs_fork
def test_a_forked_child_gets_an_error_and_may_open_the_batches_again(run):
    assert run('a_forked_child_opens_the_batches_again') == (0, '0 0 [1, 2] [3, 4, 5]\n', '')


@needs_fork
def test_a_child_forked_while_another_thread_waits_is_free(start):
    with start('it_forks_while_another_thread_waits') as process:
        assert process.finish() == (0, '0 3\n', '')


@needs_fork
def test_a_child_forked_by_a_signal_handler_in_the_middle_of_a_wait_is_told_so(start):
    with start('a_handler_forks_in_the_middle_of_a_wait') as process:
        assert process.stdout.readline() == 'waits\n'
        time.sleep(0.05)  # so that it most likely waits by now; either way it must end
        process.send_signal(signal.SIGUSR1)
        assert process.finish() == (0, '[0, 1, 2, 3, 4] 3\n', '')


@needs_fork
def test_a_child_that_does_nothing_with_the_batches_exits_in_silence(run):
    assert run('a_forked_child_does_nothing') == (0, '0 1\n', '')


@needs_signals
def test_a_killed_process_leaves_nothing(start):
    with start('a_function_is_stuck') as process:
        assert process.stdout.readline() == 'stuck\n'
        process.kill()
        assert process.finish() == (-signal.SIGKILL, '', '')


def test_a_process_with_worker_threads_exits_in_silence(run):
    assert run('it_exits_with_worker_threads') == (5, '0.0\n', '')


@pytest.mark.parametrize('times', [1, 2])
def test_an_exit_does_not_wait_for_worker_threads_for_ever(run, times):
    begin = time.monotonic()
    assert run('it_exits_while_worker_threads_are_stuck', times) == (0, 'stuck\n' * times, '')
    assert time.monotonic() - begin < times * CLOSE_SECONDS + 3


@pytest.mark.skipif((3, 12) <= sys.version_info < (3, 12, 2), reason='this Python starts no thread then')
@pytest.mark.parametrize('opens', ['opens them there', 'goes on with batches that are open'])
def test_a_thread_may_train_after_the_main_thread_has_ended(run, opens):
    code, out, err = run('a_thread_trains_after_the_main_thread_has_ended', opens)
    epochs = out.splitlines()
    assert (code, err, len(epochs)) == (0, '', 3 + opens.startswith('goes on'))
    assert [number for epoch in epochs for number in json.loads(epoch)] == list(range(2 * len(epochs)))

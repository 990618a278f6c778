"""Stages, pipelines, threads and processes that use worker processes at once do not disturb each other."""

import signal
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')


def test_two_pipelines_with_processes_at_once(run):
    assert run('two_pipelines_run_at_once') == (0, 'True\n4\n[]\n', '')


@pytest.mark.parametrize(('name', 'count'), [('', 2), ('other', 4)])
def test_two_stages_of_processes_with_kills(run, name, count):
    assert run('workers_of_two_stages_are_killed', name) == (0, f'True {count}\n[]\n', '')


def test_an_error_between_two_stages_comes_after_what_is_before_it(run):
    scenario = 'all_are_killed_between_two_stages_and_none_can_start'
    assert run(scenario) == (0, 'True /nowhere/python\n[]\n', '')


def test_consumers_in_threads_share_the_batches(run):
    assert run('threads_consume') == (0, 'True []\n', '')


def test_a_fork_of_the_main_process_neither_disturbs_nor_keeps_anything(run, tmp_path):
    printed = '0 [1.0, 2.0, 3.0, 4.0] [5.0, 6.0, 7.0, 8.0, 9.0]\n'
    assert run('the_main_process_forks') == (-signal.SIGKILL, printed, '')
    (tmp_path / 'go').touch()


def test_a_storm_of_signals_that_close_does_not_block(run):
    assert run('a_storm_of_signals_that_close') == (0, 'True []\n', '')

"""What functions may do in worker processes: print, start threads, fork, lie beside modules with any names."""

import signal
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')


def test_what_a_function_prints_is_printed(run):
    code, out, err = run('a_function_prints')
    assert code == 0
    assert sorted(out.splitlines()) == ['[]', *(f'value {value}' for value in range(5))]
    assert sorted(err.splitlines()) == [f'error {value}' for value in range(5)]


@pytest.mark.parametrize(('then', 'expected'), [('closes', (0, '[]\n', '')), ('dies', (-signal.SIGKILL, '', ''))])
def test_threads_that_a_function_starts_hold_nothing_up(run, then, expected):
    assert run('a_function_starts_threads', then) == expected


@pytest.mark.parametrize(('then', 'n_warnings'), [('goes on', 0), ('is killed', 1)])
def test_a_function_may_fork(run, then, n_warnings):
    assert run('a_function_forks', then) == (0, f'True {n_warnings}\n[]\n', '')


def test_a_module_in_the_current_directory_is_not_taken_for_one_of_pythons(run):
    assert run('the_folder_has_modules_with_names_of_pythons') == (0, '[0.0, 1.0, 2.0]\n[]\n', '')

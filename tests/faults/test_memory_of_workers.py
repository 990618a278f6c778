"""With little shared memory, or few descriptors, the values are the same; kept batches stay valid."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')


def test_without_shared_memory_the_values_are_the_same_with_a_warning(run):
    assert run('there_is_no_shared_memory') == (
        0,
        "True\n['large arrays go through a pipe to and from processes(2), which is several times slower: "
        "[Errno 24] no memory files'] []\n",
        '',
    )


@pytest.mark.parametrize(
    ('why', 'figures'),
    [
        ('files are small', 'bytes of shared memory are left'),
        ('no space is left', 'bytes of shared memory: [Errno 28] No space'),
    ],
)
def test_too_little_shared_memory_changes_nothing_but_a_warning(run, why, figures):
    code, out, err = run('there_is_too_little_shared_memory', why)
    lines = out.splitlines()
    assert (code, lines[0], lines[2:], err) == (0, 'True 1', ['[]'], '')
    assert lines[1].startswith('large arrays go through a pipe to and from processes(2, ahead=4)')
    assert lines[1].endswith(figures)


def test_a_warning_that_is_an_error_is_one_and_hangs_nothing(run):
    assert run('a_warning_is_an_error') == (
        0,
        'a process of processes(2) was killed by SIGKILL during load of 30 (cursor 31); '
        'a new one repeats its work\n[]\n',
        '',
    )


def test_kept_batches_stay_valid_and_take_no_descriptors(run):
    assert run('batches_are_kept_where_descriptors_are_few') == (0, 'True\nTrue True\nTrue []\n[]\n', '')


def test_too_few_descriptors_are_an_error_that_leaves_nothing(run):
    assert run('there_are_too_few_descriptors') == (0, 'True\n[]\n', '')


def test_what_is_big_in_both_directions_at_once_does_not_block(run):
    assert run('values_are_big_in_both_directions') == (0, 'True\n[]\n', '')

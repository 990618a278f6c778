"""An error in a worker process arrives as it is, after what comes before it; so does one in sending."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')


@pytest.mark.parametrize(
    ('kind', 'told'),
    [
        ('of the system', "FileNotFoundError ('a.png', 2)"),
        ('of decoding', "UnicodeDecodeError (b'ab', 'why')"),
        ('with unusual arguments', 'Unusual (1, 2)'),
        ('a group', 'ExceptionGroup (KeyError(1), 3)'),
        ('an interrupt', 'KeyboardInterrupt ()'),
        ('an exit', 'SystemExit (4,)'),
        ('the end of an iterator', 'RuntimeError StopIteration(4)'),
        ('one that cannot be pickled', "RemoteError ('Unpicklable', ['1'])"),
        ('with a cause', 'ValueError (KeyError(7),)'),
    ],
)
def test_an_error_arrives_as_it_is_after_what_comes_before_it(run, kind, told):
    assert run('a_function_raises', kind) == (0, f'{told} True True\n[]\n', '')


def test_what_cannot_be_sent_is_named(run):
    assert run('something_cannot_be_sent') == (
        0,
        "30 cannot send the result of first of 30 (cursor 31) back: sample['lines'] is <generator>, "
        'which cannot be pickled\n'
        '30 cannot send the input of float of <lock> (cursor 31) to processes(2): sample is <lock>, '
        'which cannot be pickled\n'
        '0 cannot send <lambda> to processes(2), because it cannot be pickled\n[]\n',
        '',
    )


@pytest.mark.parametrize('way', ['there', 'back'])
def test_what_cannot_be_made_again_at_the_other_end_comes_after_what_is_before_it(run, way):
    assert run('something_cannot_be_made_at_the_other_end', way) == (0, 'not here True\n[]\n', '')

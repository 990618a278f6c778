import pickle

import pytest

from pipekit import RemoteError
from pipekit.workers.remote_errors import sendable_error


class TwoArguments(Exception):
    def __init__(self, first, second):
        super().__init__(f'{first} and {second}')


class Forgetful(Exception):
    def __reduce__(self):
        return Forgetful, self.args


def with_attribute(error):
    error.attribute = 1
    return error


@pytest.mark.parametrize(
    'error', [OSError(2, 'gone'), ValueError('a', 1), KeyboardInterrupt(), KeyError([1])], ids=repr
)
def test_an_error_that_can_be_pickled_is_sent_as_it_is(error):
    assert sendable_error(error) is error


@pytest.mark.parametrize(
    ('error', 'name', 'arguments'),
    [
        (OSError(line for line in 'ab'), 'OSError', ['<generator>']),
        (TwoArguments(1, 2), 'TwoArguments', ["'1 and 2'"]),
        (with_attribute(Forgetful(1)), 'Forgetful', ['1']),
    ],
)
def test_other_errors_are_replaced_by_a_remote_error(error, name, arguments):
    sent = pickle.loads(pickle.dumps(sendable_error(error)))
    assert isinstance(sent, RemoteError)
    assert (sent.type_name, sent.arguments) == (name, arguments)
    assert name in sent.traceback

import gc
import os
import weakref

import pytest

from pipekit.memory import forks
from pipekit.memory.forks import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


class Owner:
    def __init__(self, name, called):
        self.name = name
        self.called = called

    def renew(self):
        self.called.append(self.name)

    def fail(self):
        self.called.append(self.name)
        raise OSError(self.name)


def ends_well(check):
    """Whether a function returns True in a forked child."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_functions_are_called_in_the_child_alone_and_in_order():
    called = []
    owners = [Owner(name, called) for name in 'abc']
    for owner in owners:
        in_child(owner.renew)
    assert ends_well(lambda: called == ['a', 'b', 'c'])
    assert not called


def test_an_object_is_not_kept_alive_and_no_longer_called():
    called = []
    owner, other = Owner('a', called), Owner('b', called)
    in_child(owner.renew)
    in_child(other.renew)
    ref, n_calls = weakref.ref(owner), len(forks._calls)
    del owner
    gc.collect()
    assert ref() is None
    assert len(forks._calls) < n_calls
    assert ends_well(lambda: called == ['b'])


def test_one_that_raises_leaves_the_others_called(capfd):
    called = []
    owners = [Owner(name, called) for name in 'abc']
    in_child(owners[0].renew)
    in_child(owners[1].fail)
    in_child(owners[2].renew)
    assert ends_well(lambda: called == ['a', 'b', 'c'])


def test_a_function_that_is_no_method_is_kept():
    called = []
    in_child(lambda: called.append('a'))
    assert ends_well(lambda: called == ['a'])
    forks._calls.popitem()

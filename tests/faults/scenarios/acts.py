"""What the scenarios are made of. Each is a function of a script, which is run with its name and its arguments."""

import os
import signal
import sys
import threading
import time
import warnings
from functools import partial

numbers = range(10**9)
kept = []  # alive until the process ends, as the variables of a script are
warned = []
say = partial(print, flush=True)


def play(scenarios):
    """Run the scenario that the command line names."""
    _, name, *arguments = sys.argv
    scenarios[name](*arguments)


def note_warnings():
    """Let the package's warnings be looked at in ``warned``; all others stay errors."""
    warnings.simplefilter('always', RuntimeWarning)
    warnings.showwarning = lambda message, *_: warned.append(str(message))


def once(name='once'):
    """Whether no process of this scenario has called it before."""
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.002)


def stuck(value, at=2):
    if value == at:
        os.write(1, b'stuck\n')
        threading.Event().wait()
    return value

"""Processes that tests start. They import the package that is tested, whatever folder they run in."""

import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from faults.scenarios.running import pids

import pipekit

collect_ignore_glob = ['*/programs', '*/scenarios']  # which run when they are imported

TIMEOUT_SECONDS = 60.0  # far more than any scenario takes
END_TIMEOUT_SECONDS = 5.0  # a process that ends has one second to do so; the rest is for a busy machine


@pytest.fixture(scope='session', autouse=True)
def processes_import_the_same_package():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv('PYTHONPATH', str(Path(pipekit.__file__).parents[1]), prepend=os.pathsep)
        yield


@pytest.fixture(scope='session', autouse=True)
def processes_end_at_an_interrupt():
    # A shell that starts the tests in the background has it ignored, which processes inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Scenario(subprocess.Popen):
    """A scenario that runs."""

    def finish(self):
        """The exit code, stdout and stderr, once nothing that it started is left."""
        out, err = self.communicate(timeout=TIMEOUT_SECONDS)
        deadline = time.monotonic() + END_TIMEOUT_SECONDS
        while pids(session=self.pid):
            assert time.monotonic() < deadline, 'a process is left'
            time.sleep(0.01)
        return self.returncode, out, err


@contextmanager
def started(command, folder):
    process = Scenario(
        [sys.executable, '-W', 'error', *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        for pid in pids(session=process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def named_memory():
    return set(Path('/dev/shm').glob('*pipekit*'))


@pytest.fixture
def start(request, tmp_path):
    """Start a scenario, by its name and its arguments, in ``tmp_path``; for a ``with`` statement.

    ``test_x.py`` runs functions of the script ``scenarios/x.py`` beside it, each as a process of its own.
    """
    script = request.path.parent / 'scenarios' / request.path.name.removeprefix('test_')
    before = named_memory()
    yield lambda *words: started([script, *map(str, words)], tmp_path)
    assert named_memory() <= before


@pytest.fixture
def run(start):
    """Run a scenario, by its name and its arguments: the exit code, stdout and stderr."""

    def run(*words):
        with start(*words) as process:
            return process.finish()

    return run


def pytest_collection_finish():
    # What is loaded by now stays; to look at it in each of the many collections takes long.
    gc.collect()
    gc.freeze()

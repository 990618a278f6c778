"""Each scenario is a process of its own: ``test_x.py`` runs functions of the script ``scenarios/x.py``."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from scenarios.running import pids

import pipekit

collect_ignore = ['scenarios']  # which run when they are imported

SCENARIOS = Path(__file__).parent / 'scenarios'
ROOT = str(Path(pipekit.__file__).parents[1])
SOON = 60.0  # seconds; far more than anything here takes
TO_END = 5.0  # seconds: who ends now has up to one to end in, on a machine that has other things to do


class Scenario(subprocess.Popen):
    """A scenario that runs."""

    def finish(self):
        """The exit code, stdout and stderr, once nothing that it started is left."""
        out, err = self.communicate(timeout=SOON)
        deadline = time.monotonic() + TO_END
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
        env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, [ROOT, os.environ.get('PYTHONPATH')]))},
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


@pytest.fixture
def start(request, tmp_path):
    """Start a scenario, by its name and its arguments, in ``tmp_path``; for a ``with`` statement."""
    script = SCENARIOS / request.path.name.removeprefix('test_')
    return lambda *words: started([script, *map(str, words)], tmp_path)


@pytest.fixture
def run(start):
    """Run a scenario, by its name and its arguments: the exit code, stdout and stderr."""

    def run(*words):
        with start(*words) as process:
            return process.finish()

    return run


@pytest.fixture(autouse=True)
def named_memory_is_left_by_nobody():
    def named():
        return set(Path('/dev/shm').glob('*pipekit*'))

    before = named()
    yield
    assert named() <= before

"""Programs of several ranks, started by a launcher. Nothing that they start is left, whatever happens."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name('programs')
MPIEXEC = Path(sys.executable).with_name('mpiexec')  # of the package mpich
TIMEOUT_SECONDS = 100.0  # imports take most of it, on a machine with fewer cores than ranks

MARK = 'PIPEKIT_LAUNCHED_BY'  # in the environment of all processes of a launch: launchers start sessions of their own


def marked(mark):
    """The ids of the processes of a launch, for Linux; elsewhere, none are seen."""
    for path in Path('/proc').glob('[0-9]*/environ'):
        with suppress(OSError):  # it has ended meanwhile, or is of another user
            if f'{MARK}={mark}'.encode() in path.read_bytes().split(b'\0'):
                yield int(path.parent.name)


@contextmanager
def launched(command, folder, **variables):
    mark = uuid4().hex
    paths = [os.environ['PYTHONPATH'], str(ROOT / 'examples')]
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(paths), 'OMP_NUM_THREADS': '1', MARK: mark} | variables
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()

"""Programs of several ranks, each in the folder of its test."""

import sys

import pytest
from ranks.launching import MPIEXEC, PROGRAMS, TIMEOUT_SECONDS, launched


@pytest.fixture
def launch(tmp_path):
    """Run a command in ``tmp_path``; the exit code, stdout and stderr."""

    def launch(*command, **variables):
        with launched(command, tmp_path, **variables) as process:
            out, err = process.communicate(timeout=TIMEOUT_SECONDS)
            return process.returncode, out, err

    return launch


@pytest.fixture
def python_of_ranks(launch):
    """Run a program of ``programs`` with so many ranks by a launcher of MPI; what it prints."""

    def run(n_ranks, program, *words):
        code, out, err = launch(MPIEXEC, '-n', n_ranks, sys.executable, PROGRAMS / program, *words)
        assert code == 0, err
        return out

    return run

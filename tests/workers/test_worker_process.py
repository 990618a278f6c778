import pytest

from pipekit.workers import worker_process
from pipekit.workers.worker_process import how_it_ended, oom_kills


@pytest.mark.parametrize(
    ('exit_code', 'kills_since', 'expected'),
    [
        (0, 0, 'exited with code 0'),
        (3, 1, 'exited with code 3'),
        (-6, 1, 'was killed by SIGABRT'),
        (-9, 0, 'was killed by SIGKILL'),
        (-9, 1, 'was killed by SIGKILL because the system ran out of memory'),
        (-63, 0, 'was killed by signal 63'),
    ],
)
def test_how_a_process_ended(exit_code, kills_since, expected, monkeypatch):
    monkeypatch.setattr(worker_process, 'oom_kills', lambda: 5)
    assert how_it_ended(exit_code, 5 - kills_since) == expected


def test_the_system_counts_the_processes_killed_when_it_ran_out_of_memory():
    assert oom_kills() >= 0

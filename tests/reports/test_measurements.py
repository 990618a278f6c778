"""What ``python -m pipekit bench`` has measured, as a table and as JSON; and the peak memory of processes."""

import json
import sys

import pytest

from pipekit.reports.measurements import Measurements, peak_memory


def measurements(**changes):
    values = {
        'target': 'train:batches',
        'pipeline': "pipeline('abc')",
        'first_batch': 0.5,
        'waits': [0.001] * 98 + [0.002] * 2,
        'seconds': 2.0,
        'n_bytes': 3 << 20,
        'step': 0.0,
        'peaks': [],
        'ended': None,
        'report': None,
    }
    return Measurements(**values | changes)


def test_measurements_print_as_the_pipeline_a_table_and_the_report():
    assert repr(measurements()).splitlines() == [
        "pipeline('abc')",
        '',
        'measured            100 batches in 2 s',
        'first batch         after 500 ms',
        'batches per second  50',
        'bytes per second    1.5 MiB',
        'wait for a batch    1 ms (median), 2 ms (99%)',
        '',
        'Measured in the calling thread, without a report; --prefetch adds a prefetch thread and a report.',
    ]


@pytest.mark.parametrize(
    ('changes', 'line'),
    [
        ({'peaks': [3 << 20]}, 'peak memory         3 MiB in 1 process'),
        ({'peaks': [1 << 30, 1 << 29]}, 'peak memory         1.5 GiB in 2 processes'),
        ({'n_bytes': 1999 * 2}, 'bytes per second    1.95 KiB'),
        ({'n_bytes': 999 * 2}, 'bytes per second    999 bytes'),
        ({'seconds': 0.01}, 'batches per second  10,000'),
        ({'ended': 'Ctrl-C'}, 'Ended early: Ctrl-C'),
    ],
)
def test_a_table_has_a_line_for(changes, line):
    assert line in repr(measurements(**changes)).splitlines()


def test_measurements_are_json():
    values = measurements(peaks=[1, 2]).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert (values['batches'], values['batches_per_second'], values['bytes_per_second']) == (100, 50, 1.5 * (1 << 20))
    assert values['wait'] == pytest.approx({'p50': 0.001, 'p99': 0.002})
    assert (values['peak_memory'], values['processes']) == (3, 2)


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows does not report it')
def test_this_process_has_a_peak():
    assert all(peak > 0 for peak in peak_memory())
    assert peak_memory()


@pytest.mark.parametrize(('platform', 'unit'), [('darwin', 1), ('linux', 1024)])
def test_without_proc_only_this_process_has_a_peak(platform, unit, monkeypatch):
    resource = pytest.importorskip('resource')
    monkeypatch.setattr('pipekit.reports.measurements._peaks_of', lambda pid: iter(()))
    monkeypatch.setattr(sys, 'platform', platform)
    (peak,) = peak_memory()
    assert 0 < peak <= unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_on_windows_there_is_no_peak(monkeypatch):
    monkeypatch.setattr('pipekit.reports.measurements._peaks_of', lambda pid: iter(()))
    monkeypatch.setattr(sys, 'platform', 'win32')
    assert peak_memory() == []

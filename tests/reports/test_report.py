"""A report is available at any time, in several forms; headroom repeats a few batches at no cost."""

import json
import subprocess
import sys
import time
from itertools import islice

import pytest
from timed_training import sleeps, train

from pipekit import apply, combine_batches, pipeline, prefetch, sample, shuffle
from pipekit.reports.report import report_on
from pipekit.streams.metering import Meter


def test_a_report_is_a_table_html_and_json():
    report = train(apply(sleeps(0.002)), shuffle(3, seed=0), combine_batches(4))
    text = repr(report)
    assert text.splitlines()[0].split() == ['stage', 'in', 'seen', 'per', 'batch', 'median', '95%', 'computing']
    assert text.splitlines()[-1] == report.verdict
    assert '<table' in report._repr_html_()
    assert json.loads(json.dumps(report.to_dict()))['stages'][0]['stage'] == 'apply(load)'


def test_with_too_few_batches_the_verdict_says_so():
    batches = pipeline(range(9), prefetch())
    assert batches.report().verdict == 'Too few batches yet to say where the time goes: 0.'
    with batches:
        next(iter(batches))
        assert 'Too few batches yet' in batches.report().verdict
    assert 'Too few batches yet' in batches.report().verdict


def test_a_report_without_batches_has_no_stages():
    assert report_on(Meter(), pipeline(range(3)).rows(), 3).to_dict()['stages'] == []


def test_reports_are_loaded_on_first_use():
    code = (
        'import sys, pipekit\n'
        'batches = pipekit.pipeline(range(9), pipekit.prefetch())\n'
        'assert "pipekit.reports.report" not in sys.modules\n'
        'batches.report()\n'
        'assert "matplotlib" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], timeout=60, check=True)


def test_the_verdict_is_logged_regularly(caplog):
    with caplog.at_level('INFO', logger='pipekit'):
        train(apply(abs), n=30, step=0.002, report_every=0.01)
    texts = [record.getMessage() for record in caplog.records]
    assert 2 <= len(texts) <= 30
    assert all('training' in text or 'Too few batches' in text for text in texts)


def test_headroom_repeats_a_few_batches():
    batches = pipeline(sample(range(100), seed=0), apply(sleeps(0.004)), combine_batches(2, list), prefetch(10))
    with batches:
        for _ in batches:
            time.sleep(0.001)
        state = batches.state_dict()
        headroom = batches.headroom(50)
        assert len(headroom) == 50
        seen = list(headroom)
        assert batches.state_dict() == state
        expected = list(islice(batches, 4))
    assert seen[:4] == expected
    assert seen[4:8] == expected
    assert 'if batches cost nothing' in repr(headroom)
    assert 'times as fast' in headroom.verdict


def test_headroom_repeats_the_batches_of_one_pass():
    headroom = pipeline(range(3), combine_batches(2, list), prefetch()).headroom(3)
    assert headroom.verdict == 'Loop over it first, training on each batch.'
    assert list(headroom) == [[0, 1], [2], [0, 1]]


@pytest.mark.parametrize(('option', 'value'), [('report_every', 0), ('report_every', 'x'), ('profile', 3)])
def test_wrong_options_are_rejected_at_once(option, value):
    with pytest.raises((TypeError, ValueError), match=option):
        prefetch(**{option: value})

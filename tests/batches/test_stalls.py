"""Warnings about a long wait for a batch. A stuck function is released when the warning has been given."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

import pipekit
from pipekit import Closed, apply, combine_batches, keep, pipeline, prefetch, processes, replace, retry, skip, threads

TIMEOUT_SECONDS = 20.0  # far more than anything here takes
PACKAGE = os.path.dirname(pipekit.__file__) + os.sep  # how the files of its frames begin


class Stuck:
    """A function that waits at one value until it is released."""

    def __init__(self, at):
        self.at = at
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, value):
        if value == self.at:
            self.entered.set()
            assert self.go.wait(TIMEOUT_SECONDS)
        return value


@contextmanager
def warned(act=lambda: None):
    """Collect the warnings, and call ``act`` after each."""
    texts = []

    def show(message, category, filename, *_):
        assert category is RuntimeWarning
        assert filename == __file__
        texts.append(str(message))
        act()

    with warnings.catch_warnings():
        warnings.simplefilter('always')
        warnings.showwarning = show
        yield texts


def warning_of(stuck, *parts):
    """The warning about a pipeline that is stuck."""
    with warned(stuck.go.set) as texts, pipeline(*parts, prefetch(buffer_size=9, stall_after=0.2)) as batches:
        assert stuck.entered.wait(TIMEOUT_SECONDS)
        list(batches)
    return texts[0]


def test_a_stall_in_the_calling_thread_names_the_stage_and_the_sample():
    stuck = Stuck(3)
    lines = warning_of(stuck, range(9), apply(stuck), combine_batches(9)).splitlines()
    assert lines[0] == 'no batch for 0.2 s, and still waiting'
    assert lines[1].startswith('for at least 0.')
    assert lines[1].endswith(' of 3 stages, on sample 3 (cursor 4)')
    assert 's, the thread pipekit-prefetch is in apply(<Stuck>), the 2nd of 3 stages' in lines[1]
    assert lines[2] == 'to run it again: pipeline.replay(3)'
    assert lines[3] == 'the stack of the thread pipekit-prefetch:'
    assert lines[4].endswith(', in __call__')
    assert lines[5] == '    assert self.go.wait(TIMEOUT_SECONDS)'
    assert not any(PACKAGE in line for line in lines)


@pytest.mark.parametrize('own', [True, False])
def test_a_stall_in_threads_names_the_thread(own):
    stuck = Stuck(3)
    with ThreadPoolExecutor(2, thread_name_prefix='borrowed') as borrowed:
        text = warning_of(stuck, range(9), apply(stuck, workers=threads(2) if own else borrowed))
    name = r'pipekit-threads(2)_' if own else 'borrowed_'
    assert f', the thread {name}' in text
    assert ', the 2nd of 2 stages, on sample 3 (cursor 4)\nto run it again: pipeline.replay(3)\n' in text
    assert '\nthe prefetch thread waits for a result of <Stuck> from <ThreadPoolExecutor>\n' in text or own
    assert f'\nthe stack of the thread {name}' in text
    assert '    assert self.go.wait(TIMEOUT_SECONDS)\n' in text
    assert PACKAGE not in text


def test_threads_that_do_the_same_are_shown_once():
    barrier, go = threading.Barrier(9), threading.Event()

    def stuck(value):
        barrier.wait(TIMEOUT_SECONDS)
        assert go.wait(TIMEOUT_SECONDS)
        return value

    parts = range(8), apply(stuck, workers=threads(8)), prefetch(stall_after=0.2)
    with warned(go.set) as texts, pipeline(*parts) as batches:
        barrier.wait(TIMEOUT_SECONDS)
        assert list(batches) == list(range(8))
    text = texts[0]
    assert text.count(' is in apply(stuck, workers=threads(8)), the 2nd of 2 stages') == 4
    assert '\nand 4 more are busy\n' in text
    assert text.count(' and 7 others:\n') == text.count('the stack of') == 1


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs named pipes')
@pytest.mark.parametrize('makes_batches', [False, True])
def test_a_stall_in_processes_names_the_process(tmp_path, makes_batches):
    entered, go = str(tmp_path / 'entered'), str(tmp_path / 'go')
    os.mkfifo(entered)
    os.mkfifo(go)

    def stuck(value):
        if value == 3:
            with open(entered, 'w', encoding='ascii') as file:
                file.write(str(os.getpid()))
            with open(go, encoding='ascii') as file:
                file.read()
        return value

    def let_through():
        open(go, 'w', encoding='ascii').close()

    end = [combine_batches(2)] if makes_batches else []
    parts = range(6), apply(stuck, workers=processes(1)), *end, prefetch(2, stall_after=0.5)
    with warned(let_through) as texts, pipeline(*parts) as batches:
        with open(entered, encoding='ascii') as file:
            pid = file.read()
        list(batches)
        list(batches)
    text = texts[0]
    assert text.endswith(f'the process {pid} is busy with stuck of 3 (cursor 4)')


def test_a_stall_in_the_source_shows_where():
    stuck = Stuck(3)
    text = warning_of(stuck, lambda: map(stuck, range(9)), combine_batches(9))
    assert 'the prefetch thread is in the source, or in a stage that calls no function on single samples\n' in text
    assert ', in __call__\n    assert self.go.wait(TIMEOUT_SECONDS)\n' in text


def test_a_stall_in_a_generator_function_shows_where():
    stuck = Stuck(3)

    def generator(values):
        yield from map(stuck, values)

    text = warning_of(stuck, range(9), apply(abs), generator, combine_batches(9))
    assert ', in generator\n' in text


def test_a_stall_without_user_frames_shows_those_of_pipekit():
    stuck, queue = Stuck(None), SimpleQueue()
    stuck.entered.set()
    stuck.go.set = lambda: [queue.put(number) for number in range(99)]
    text = warning_of(stuck, lambda: map(SimpleQueue.get, [queue]))
    assert PACKAGE in text


def test_a_stall_in_combining_names_the_batch():
    stuck = Stuck([0, 1])
    text = warning_of(stuck, range(4), combine_batches(2, stuck))
    assert 'combine_batches(2, <Stuck>), the 2nd of 2 stages, on batch [0, 1] (cursor 2)\n' in text


def test_a_stall_in_a_predicate_names_the_sample():
    stuck = Stuck(3)
    text = warning_of(stuck, range(1, 6), keep(stuck))
    assert 'keep(<Stuck>), the 2nd of 2 stages, on sample 3 (cursor 3)\nto run it again: pipeline.replay(2)\n' in text


@pytest.mark.parametrize('on_error', [skip(), replace(abs), retry(1)])
def test_a_stall_in_a_stage_with_on_error_names_the_sample(on_error):
    stuck = Stuck(3)
    text = warning_of(stuck, range(9), apply(stuck, on_error=on_error), combine_batches(2))
    assert ', the 2nd of 3 stages, on sample 3 (cursor 4)\n' in text


def test_a_stall_in_a_function_that_decides_the_batch_size_names_the_sample():
    stuck = Stuck(3)
    text = warning_of(stuck, range(9), combine_batches(lambda chunk, sample: len(chunk) < stuck(sample), list))
    assert 'combine_batches(<lambda>, list), the 2nd of 2 stages, on sample 3 (cursor 4)\n' in text


def test_the_frames_of_pipekit_are_shown_on_request(monkeypatch):
    monkeypatch.setenv('PIPEKIT_FULL_TRACEBACKS', '1')
    stuck = Stuck(3)
    assert PACKAGE in warning_of(stuck, range(9), apply(stuck))


def test_another_pipeline_is_not_blamed():
    stuck, other = Stuck(3), Stuck(3)
    with pipeline(range(9), apply(other, workers=threads(1)), prefetch(buffer_size=9)):
        assert other.entered.wait(TIMEOUT_SECONDS)
        text = warning_of(stuck, range(9), apply(stuck))
        other.go.set()
    assert text.count('Stuck') == text.count('the stack of') == 1


def test_a_shorter_wait_does_not_warn():
    stuck = Stuck(3)
    with (
        warned() as texts,
        pipeline(range(9), apply(stuck), prefetch(3, buffer_size=9, stall_after=TIMEOUT_SECONDS)) as batches,
    ):
        threading.Timer(0.3, stuck.go.set).start()
        assert stuck.entered.wait(TIMEOUT_SECONDS)
        assert [*batches, *batches] == [0, 1, 2, 3, 4, 5]
    assert texts == []


def test_none_never_warns():
    stuck = Stuck(3)
    with warned() as texts, pipeline(range(9), apply(stuck), prefetch(stall_after=None)) as batches:
        threading.Timer(0.3, stuck.go.set).start()
        assert list(batches) == list(range(9))
    assert texts == []


def test_each_stall_warns_once():
    go = threading.Semaphore(0)

    def stuck(value):
        if value in (1, 2):
            assert go.acquire(timeout=TIMEOUT_SECONDS)
        return value

    def let_through_later():
        threading.Timer(0.3, go.release).start()  # many times `stall_after`

    parts = range(4), apply(stuck), prefetch(stall_after=0.03)
    with warned(let_through_later) as texts, pipeline(*parts) as batches:
        assert list(batches) == [0, 1, 2, 3]
    assert [sum(f' on sample {number} (' in text for text in texts) for number in (1, 2)] == [1, 1]


def test_the_batches_can_be_closed_in_a_stall():
    stuck = Stuck(3)
    with pipeline(range(9), apply(stuck), prefetch(stall_after=0.1)) as batches:

        def close():
            threading.Timer(0.1, stuck.go.set).start()
            batches.close()

        with warned(lambda: threading.Thread(target=close).start()) as texts, pytest.raises(Closed):
            list(batches)
    assert len(texts) == 1
    assert stuck.go.wait(TIMEOUT_SECONDS)
    with batches:
        assert next(iter(batches)) == 3


def test_the_warning_may_close_the_batches():
    stuck = Stuck(3)
    batches = pipeline(range(9), apply(stuck), prefetch(stall_after=0.1))

    def close():
        stuck.go.set()
        batches.close()

    with warned(close), pytest.raises(Closed):
        list(batches)


def test_a_warning_that_is_an_error_reaches_the_consumer_and_loses_no_batch():
    stuck = Stuck(3)
    with pipeline(range(9), apply(stuck), prefetch(stall_after=0.1)) as batches:
        got = []
        with pytest.raises(RuntimeWarning, match=r'on sample 3 \(cursor 4\)'):  # as pytest is told to
            got.extend(batches)
        stuck.go.set()
        with warned():
            assert list(batches) == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize('wrong', [0, -1, float('nan'), float('inf')])
def test_stall_after_is_a_positive_number(wrong):
    with pytest.raises(ValueError, match=f'stall_after must be a positive number or None, got .*{wrong}'):
        prefetch(stall_after=wrong)


@pytest.mark.parametrize('wrong', ['60', True, (60,)])
def test_stall_after_is_a_number(wrong):
    with pytest.raises(TypeError, match='stall_after must be a positive number or None, got '):
        prefetch(stall_after=wrong)


def test_stall_after_may_be_longer_than_a_lock_can_wait():
    with pipeline('ab', prefetch(stall_after=1e300)) as batches:
        assert list(batches) == ['a', 'b']
    assert repr(prefetch(stall_after=5)) == 'prefetch(stall_after=5)'

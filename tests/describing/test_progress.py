"""Bars for long work: in a terminal, in a notebook, and nowhere else. Each scenario is a process."""

import os
import re
import subprocess
import sys
from textwrap import dedent

import pytest
from tqdm import tqdm

from pipekit import combine_batches, keep, pipeline, prefetch, sample

TIMEOUT_SECONDS = 60.0  # far more than anything here takes
needs_terminal = pytest.mark.skipif(sys.platform == 'win32', reason='needs pseudo-terminals')

# Nothing here takes a second: the delay is shortened, or is not over when the work is done.
PREAMBLE = """
import sys, threading, time
import pipekit.describing.progress
from pipekit import apply, pipeline, prefetch, processes

def values():
    for number in range(50):
        time.sleep(0.005)
        yield number

def resumed_at(cursor):
    batches = pipeline(values, prefetch(1))
    batches.load_state_dict({**batches.state_dict(), 'cursor': cursor, 'delivered': cursor})
    with batches:
        return list(batches)

def in_processes():
    with pipeline(range(9), apply(abs, workers=processes(2)), prefetch()) as batches:
        return list(batches)
"""
REPLAYS = 'pipekit.describing.progress.DELAY_SECONDS = 0.01\nassert resumed_at(40) == [40]'
STARTS = 'pipekit.describing.progress.DELAY_SECONDS = 0.0\nassert in_processes() == list(range(9))'


def script(text):
    return [sys.executable, '-W', 'error', '-c', PREAMBLE + dedent(text)]


def shown_in_terminal(text):
    """What a script writes to a terminal that is its stderr."""
    import fcntl
    import struct
    import termios

    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    process = subprocess.Popen(script(text), stdout=subprocess.DEVNULL, stderr=there)
    os.close(there)
    seen = b''
    try:
        while part := os.read(here, 1 << 16):
            seen += part
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(here)
    assert process.wait(TIMEOUT_SECONDS) == 0, seen.decode()
    return seen.decode()


@needs_terminal
@pytest.mark.parametrize(('text', 'bar'), [(REPLAYS, 'resuming by replay: '), (STARTS, 'starting processes(2): ')])
def test_long_work_shows_a_bar_in_a_terminal_and_takes_it_away(text, bar):
    shown = shown_in_terminal(text)
    assert bar in shown
    assert shown.rpartition('\r')[0].endswith(' ')
    assert '\n' not in shown


@needs_terminal
@pytest.mark.parametrize('text', [REPLAYS, STARTS])
def test_short_work_shows_nothing(text):
    assert shown_in_terminal(re.sub(r'DELAY_SECONDS = [0-9.]+', 'DELAY_SECONDS = 100', text)) == ''


@pytest.mark.parametrize('text', [REPLAYS, STARTS])
def test_a_log_file_gets_nothing(text, tmp_path):
    with open(tmp_path / 'log', 'w', encoding='utf-8') as log:
        command = script(f'{text}\nassert "tqdm" not in sys.modules')
        subprocess.run(command, stderr=log, timeout=TIMEOUT_SECONDS, check=True)
    assert (tmp_path / 'log').read_text(encoding='utf-8') == ''


@needs_terminal
@pytest.mark.parametrize('text', [REPLAYS, STARTS])
def test_without_tqdm_nothing_is_shown(text):
    assert shown_in_terminal(f'sys.modules["tqdm"] = None\n{text}') == ''


@pytest.mark.parametrize('stderr', ['None', '__import__("io").StringIO()', 'closed'])
def test_an_odd_stderr_does_no_harm(stderr):
    subprocess.run(script(f"closed = open('/dev/null')\nclosed.close()\nsys.stderr = {stderr}\n{REPLAYS}"), check=True)


@needs_terminal
def test_a_bar_leaves_no_thread_and_fixes_no_start_method():
    assert shown_in_terminal(f"""
{REPLAYS}
import multiprocessing
assert threading.enumerate() == [threading.main_thread()]
assert multiprocessing.get_start_method(allow_none=True) is None
""")


@needs_terminal
def test_an_error_while_skipping_is_the_users_own():
    shown_in_terminal("""
def broken():
    yield 1
    raise OSError('broken')

try:
    list(pipeline(broken).resume(3))
except OSError as error:
    assert error.args == ('broken',)
else:
    raise AssertionError
""")


def test_a_notebook_shows_the_bar():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PREAMBLE + REPLAYS)])
    NotebookClient(notebook, timeout=TIMEOUT_SECONDS, kernel_name='python3').execute()
    assert 'resuming by replay: ' in str(notebook.cells[0].outputs)


def test_tqdm_knows_the_length_of_an_epoch():
    with pipeline(sample('abc', seed=0), combine_batches(2), prefetch(7)) as batches, open(os.devnull, 'w') as nowhere:
        bar = tqdm(batches, file=nowhere)
        assert (bar.total, len(list(bar)), bar.n) == (7, 7, 7)


def test_tqdm_takes_an_epoch_without_a_length():
    with pipeline('abc', keep(bool), prefetch()) as batches, open(os.devnull, 'w') as nowhere:
        bar = tqdm(batches, file=nowhere)
        assert (bar.total, list(bar), bar.n) == (None, ['a', 'b', 'c'], 3)

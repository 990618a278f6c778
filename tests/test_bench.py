"""``python -m pipekit bench``, as a user runs it: in a folder with their script."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque, namedtuple
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from pipekit import bench
from pipekit.__main__ import main
from pipekit.reports.measurements import VERSION

TIMEOUT_SECONDS = 60.0  # far more than anything here takes
PREAMBLE = """
import os, signal, sys, threading, time
import numpy as np
import pipekit
from pipekit import apply, combine_batches, pipeline, prefetch, processes, repeat, sample, threads

def load(number):
    return np.full(100, number, np.float32), number

stages = apply(load), combine_batches(4)
"""
BYTES = 4 * (100 * 4 + 8)  # of a batch

needs_signals = pytest.mark.skipif(sys.platform == 'win32', reason='needs POSIX signals')
needs_proc = pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc for the memory of other processes')
needs_processes = pytest.mark.skipif(os.name != 'posix', reason='needs POSIX')


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Write a script into the current folder; the import of ``training`` is undone after the test."""

    def write(text, name='training.py'):
        (tmp_path / name).write_text(PREAMBLE + dedent(text), encoding='utf-8')
        importlib.invalidate_caches()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    yield write
    sys.modules.pop('training', None)


@pytest.fixture
def measured(script, capsys):
    """Measure ``batches`` of a script in this process; gives the printed text, or with ``--json`` the values."""

    def measure(text, *options, target='training.py:batches'):
        script(text)
        options = options or ('--batches', '5')
        sys.modules.pop('training', None)
        assert main(['bench', target, *options]) == 0
        printed = capsys.readouterr().out
        return json.loads(printed) if '--json' in options else printed

    return measure


@contextmanager
def started(*arguments, shell=(), stderr=subprocess.PIPE):
    command = [*shell, sys.executable, '-m', 'pipekit', *arguments]
    streams = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': stderr}
    process = subprocess.Popen(command, text=True, **streams)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments, shell=()):
    with started(*arguments, shell=shell) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        return process.returncode, out, err


def test_it_prints_the_pipeline_the_measurements_and_the_report(script):
    script('batches = pipeline(sample(range(9), seed=0), *stages, prefetch(3))')
    code, out, err = run('bench', 'training.py:batches', '--batches', '20')
    assert (code, err) == (0, '')
    assert re.fullmatch(
        r"""pipeline\(sample\(range\(0, 9\), seed=0\), apply\(load\), combine_batches\(4\), prefetch\(3\)\)

measured            20 batches in .*
first batch         after .*
batches per second  .*
bytes per second    .*
wait for a batch    .* \(median\), .* \(99%\)
(peak memory         .* in 1 process\n)?
stage               in               seen +per batch +median +95% +computing
apply\(load\)         prefetch thread  .*
combine_batches\(4\)  prefetch thread  .*
\d+ batches: .* to make one, .* to train on it, .* of the time waiting
For a verdict, give the time of a training step: --step MS.
""",
        out,
    )


def test_json_has_all_of_it(measured):
    text = 'batches = pipeline(sample(range(9), seed=0), *stages, prefetch(3))'
    values = measured(text, '--batches', '50', '--json')
    assert (values['target'], values['batches'], values['step'], values['ended']) == (
        'training.py:batches',
        50,
        0,
        None,
    )
    assert values['pipeline'] == text.removeprefix('batches = ').replace(
        '*stages', 'apply(load), combine_batches(4)'
    ).replace('range(9)', 'range(0, 9)')
    assert values['batches_per_second'] == pytest.approx(50 / values['seconds'])
    assert values['bytes_per_second'] == pytest.approx(50 * BYTES / values['seconds'])
    assert 0 < values['wait']['p50'] <= values['wait']['p99'] <= values['seconds']
    assert values['first_batch'] > 0
    assert values['report']['n_batches'] == 1 + 5 + 50
    assert [stage['stage'] for stage in values['report']['stages']] == ['apply(load)', 'combine_batches(4)']
    assert values['versions'].keys() == {'pipekit', 'numpy', 'python'}
    assert values['versions']['numpy'] == np.__version__


def test_the_how_to_shows_what_it_prints(script):
    page = Path(__file__).parents[1].joinpath('docs', 'howto', 'find-the-bottleneck.md').read_text(encoding='utf-8')
    (code, *_) = re.findall(r'^```{code-cell}\n(.*?)^with make_batches', page, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r'^```console\n\$ python -m pipekit (.*?)^```', page, re.MULTILINE | re.DOTALL)
    command, _, shown = shown.partition('\n')
    script(f'{code}\nbatches = make_batches(3)', 'train.py')
    returned, printed, err = run(*command.split(), '--seconds', '0.5')
    # Without numbers, units and the verdict, which the machine may change.
    words = [re.findall(r'[a-z_]{3,}', text.strip().rpartition('\n')[0]) for text in (printed, shown)]
    assert (returned, err, words[0]) == (0, '', words[1])


def test_it_measures_for_the_seconds_given_after_a_warm_up(measured):
    values = measured('batches = pipeline(sample(range(9), seed=0), *stages, prefetch())', '--seconds', '0.2', '--json')
    assert values['seconds'] >= 0.2
    assert values['report']['n_batches'] > 2


PIPELINES = {
    'batches': 'batches = pipeline(range(9), *stages, prefetch())',
    'an epoch of so many': 'batches = pipeline(range(9), *stages, repeat(), prefetch(2))',
    'a function': 'def batches(n=3): return pipeline(range(9), *stages, prefetch())',
    'make_infinite_batch_iter': """
        def batches():
            return pipekit.make_infinite_batch_iter(sample(range(9)), batch_size=2, n_iters_per_epoch=3)
    """,
    'a pipeline': 'batches = pipeline(range(9), *stages)',
    'a source': 'batches = sample(range(9))',
    'a function that makes a pipeline': 'batches = lambda: pipeline(range(9), *stages)',
    'load_by_random_id': 'batches = pipekit.load_by_random_id(load, ids=range(9))',
    'an open one': 'batches = pipeline(range(9), *stages, prefetch()); next(iter(batches))',
    'a closed one': 'batches = pipeline(range(9), *stages, prefetch()); batches.close()',
}


@pytest.mark.parametrize('text', PIPELINES.values(), ids=PIPELINES)
def test_whatever_gives_batches_is_measured_epoch_after_epoch(text, measured):
    assert measured(text, '--batches', '30', '--json')['batches'] == 30


def test_a_name_may_have_dots_and_a_script_may_be_a_module(measured):
    text = """
        class Training:
            batches = pipeline(range(9), *stages, prefetch())
    """
    assert 'measured' in measured(text, target='training:Training.batches')


def test_the_time_to_the_first_batch_includes_the_call_of_the_function(measured):
    text = """
        def batches():
            time.sleep(0.1)
            return pipeline(range(9), *stages, prefetch())
    """
    values = measured(text, '--batches', '5', '--json')
    assert values['first_batch'] >= 0.1
    assert values['seconds'] > 0


def test_without_prefetch_it_is_measured_in_the_calling_thread(measured):
    text = 'batches = pipeline(range(9), *stages)'
    assert measured(text).endswith(
        '\nMeasured in the calling thread, without a report; --prefetch adds a prefetch thread and a report.\n'
    )
    assert measured(text, '--batches', '5', '--json')['report'] is None


def test_prefetch_is_appended_on_request(measured):
    values = measured('batches = pipeline(range(9), *stages)', '--batches', '9', '--prefetch', '--json')
    assert values['pipeline'].endswith(', prefetch(profile=False))')
    assert values['report']['n_batches'] > 9


@pytest.mark.parametrize('end', ['', ', prefetch(3, buffer_size=2)'])
def test_profile_makes_the_report_exact(end, measured):
    text = f'batches = pipeline(range(9), *stages, repeat(){end})'
    values = measured(text, '--batches', '9', '--profile', '--json')
    assert 'profile=True' in values['pipeline']
    assert ('prefetch(3, buffer_size=2, ' in values['pipeline']) == bool(end)
    assert values['report']['stages'][0]['stage'] == 'range(0, 9)'


def test_with_a_step_the_verdict_is_about_keeping_up(measured):
    values = measured('batches = pipeline(range(9), *stages, prefetch())', '--batches', '10', '--step', '20', '--json')
    assert values['batches_per_second'] <= 1 / values['step'] == 50
    assert values['report']['step'] >= 0.02
    assert 'training; nothing to change' in values['report']['verdict']


def test_a_finite_source_ends_it_early(measured):
    values = measured('batches = pipeline(range(40), *stages, prefetch(4))', '--batches', '99', '--json')
    assert values['ended'] == 'the source ended after 10 batches; add repeat() to start it again'
    assert values['batches'] == 9
    assert 'Ended early: the source <' in measured('batches = pipeline(iter(range(80)), *stages)', '--batches', '50')
    text = 'batches = iter(pipeline(range(80), *stages))'
    assert 'Ended early: the source has ended\n' in measured(text, '--batches', '50')


def test_a_single_batch_is_measured_including_the_start(measured):
    values = measured('batches = pipeline(iter(range(3)), *stages, prefetch())', '--json')
    assert (values['batches'], values['wait']['p50']) == (1, values['first_batch'])
    assert values['report']['verdict'] == 'Too few batches yet to say where the time goes: 1.'


FORM = 'expected module:name or script.py:name, got '
KIND = 'expected a pipeline, or a function without arguments that returns one'
TARGETS = {
    'training': f"{FORM}'training'",
    'training.py': f"{FORM}'training.py'",
    'training:': f"{FORM}'training:'",
    ':batches': f"{FORM}':batches'",
    '.training:batches': f"{FORM}'.training:batches'",
    'training.py:batches()': f"{FORM}'training.py:batches()'",
    'nowhere:batches': 'there is no module nowhere',
    'training.more:batches': 'there is no module training.more',
    'nowhere.py:batches': 'there is no file {folder}/nowhere.py',
    'json.py:batches': '{folder}/json.py has the name of another module; rename it',
    'training:nothing': 'training has no nothing',
    'training.py:ids.nothing': 'training.py has no ids.nothing',
    'training.py:ids': f'training.py:ids is [1, 2], of type list; {KIND}',
    'training.py:load': f'training.py:load is load, of type function; {KIND}',
    'training.py:makes': f"training.py:makes() is 'batches', of type str; {KIND}",
    'training.py:stage': f'training.py:stage is apply(load), of type Stage; {KIND}',
    'training.py:empty': 'training.py:empty gives no batches: the source has ended',
    'training.py:none': 'training.py:none gives no batches: the source ended after 0 batches',
    'training.py:gone': 'training.py:gone gives no batches: the source <list_iterator> is an iterator',
}


@pytest.mark.parametrize('target', TARGETS)
def test_an_invalid_target_is_an_error_of_one_line(target, script, tmp_path, capsys):
    script("""
        ids = [1, 2]
        stage = apply(load)
        empty = pipeline([], stage)
        none = pipeline([], stage, prefetch())
        gone = pipeline(iter([1]), stage, prefetch())
        list(gone)
        def makes(): return 'batches'
    """)
    script('', 'json.py')
    with pytest.raises(SystemExit) as left:
        main(['bench', target])
    printed, error = capsys.readouterr()
    assert (left.value.code, printed, error.count('\n')) == (2, '', 1)
    assert error.startswith('python -m pipekit bench: ' + TARGETS[target].format(folder=tmp_path))


@pytest.mark.parametrize(
    'options',
    [
        ['--seconds', '0'],
        ['--seconds', 'nan'],
        ['--batches', '1.5'],
        ['--step', '-1'],
        ['--batches', '1', '--seconds', '1'],
    ],
    ids=' '.join,
)
def test_wrong_options_are_errors(options, capsys):
    with pytest.raises(SystemExit) as left:
        main(['bench', 'training:batches', *options])
    assert left.value.code == 2
    assert f'error: argument {options[-2]}: ' in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [[], ['--help'], ['bench', '--help']], ids=' '.join)
def test_help_lists_the_commands(arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (0, '')
    assert out.startswith('usage: python -m pipekit ')
    assert 'bench' in out


def test_the_version_is_printed():
    assert run('--version') == (0, f'pipekit {VERSION}\n', '')


def test_a_users_error_keeps_its_note_and_shows_no_frames_of_pipekit(script):
    script("""
        def fails(number):
            raise LookupError(f'no sample {number}')

        batches = pipeline(range(9), apply(fails), prefetch())
    """)
    code, out, err = run('bench', 'training.py:batches')
    assert (code, out) == (1, '')
    assert 'in fails\n' in err
    assert 'bench.py' not in err
    assert err.endswith(
        'LookupError: no sample 0\nin apply(fails), the 2nd of 2 stages, on sample 0 (cursor 1)\n'
        'to run it again: pipeline.replay(0)\n'
    )


@pytest.mark.parametrize('text', ['import nowhere', 'object().nothing', 'def batches(): {}[0]'])
def test_an_error_in_the_script_or_the_function_passes_through(text, script):
    script(text)
    expected = {'import': ModuleNotFoundError, 'object().nothing': AttributeError, 'def': KeyError}[text.split()[0]]
    with pytest.raises(expected):
        main(['bench', 'training.py:batches'])


def test_a_script_is_imported_rather_than_run_and_sees_no_arguments(script):
    script(
        """
        import helper
        assert sys.argv[1:] == []
        batches = pipeline(range(9), apply(helper.load), combine_batches(4), prefetch())
        if __name__ == '__main__':
            sys.exit('run')
    """,
        'my-training.py',
    )
    script('', 'helper.py')
    code, out, err = run('bench', 'my-training.py:batches', '--batches', '5')
    assert (code, err) == (0, '')
    assert 'apply(load)' in out


def test_a_module_is_found_in_the_current_folder(script):
    script('batches = pipeline(range(9), *stages, prefetch())')
    code, _, err = run('bench', 'training:batches', '--batches', '5')
    assert (code, err) == (0, '')


PROCESSES = """
    with open('imported', 'a') as file:
        file.write('.')

    OFFSET = 3

    class Sample(tuple):
        pass

    def add(sample):
        assert 'training' not in sys.modules
        return Sample((sample[0] + OFFSET, os.getpid()))

    batches = pipeline(range(9), apply(load), apply(add, workers=processes(2)), combine_batches(4), prefetch())
"""


@needs_processes
def test_processes_use_functions_of_a_script_without_importing_it_again(script, tmp_path):
    script(PROCESSES)
    code, _, err = run('bench', 'training.py:batches', '--batches', '5')
    assert (code, err) == (0, '')
    assert (tmp_path / 'imported').read_text(encoding='utf-8') == '.'


def test_a_script_needs_only_the_core_dependencies(measured, monkeypatch):
    monkeypatch.setitem(sys.modules, 'cloudpickle', None)
    assert '5 batches in ' in measured('batches = pipeline(range(9), *stages, prefetch())')


def test_a_borrowed_process_executor_finds_the_script(script):
    script("""
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        executor = ProcessPoolExecutor(1, get_context('spawn'))
        batches = pipeline(range(9), apply(load, workers=executor), combine_batches(4), prefetch())
    """)
    code, _, err = run('bench', 'training.py:batches', '--batches', '5')
    assert (code, err) == (0, '')


@needs_processes
def test_a_killed_process_is_replaced_and_measuring_goes_on(script):
    script("""
        def dies_once(number):
            if number == 5 and not os.path.exists('killed'):
                open('killed', 'w').close()
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        batches = pipeline(range(9), apply(dies_once, workers=processes(1)), combine_batches(2), prefetch())
    """)
    code, out, err = run('bench', 'training.py:batches', '--batches', '9')
    assert (code, out.count('9 batches in ')) == (0, 1)
    assert 'RuntimeWarning: a process of processes(1) was killed by SIGKILL during dies_once of 5' in err


INTERRUPTED = """
    def load(number):
        if number == {at}:
            print('waiting', file=sys.stderr, flush=True)
            time.sleep(1)
        time.sleep(0.001)
        return number

    batches = pipeline(range(10**9), apply(load{workers}), combine_batches(2){end})
"""


@needs_signals
@pytest.mark.parametrize('workers', ['', ', workers=threads(2)', ', workers=processes(2)'])
@pytest.mark.parametrize('end', ['', ', prefetch()'])
def test_ctrl_c_prints_the_measurements_so_far(end, workers, script):
    # Fewer batches are made ahead than come before that one.
    script(INTERRUPTED.format(at=200, workers=workers, end=end))
    with started('bench', 'training.py:batches', '--seconds', '1000', '--json') as process:
        assert process.stderr.readline() == 'waiting\n'
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    values = json.loads(out)
    assert (process.returncode, err, values['ended']) == (0, '', 'Ctrl-C')
    assert values['batches'] > 0


@needs_signals
@pytest.mark.parametrize('end', ['', ', prefetch()'])
def test_ctrl_c_before_the_first_batch_prints_nothing(end, script):
    script(INTERRUPTED.format(at=1, workers='', end=end))
    with started('bench', 'training.py:batches') as process:
        assert process.stderr.readline() == 'waiting\n'
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=TIMEOUT_SECONDS) == ('', 'python -m pipekit bench: no batch yet\n')
    assert process.returncode == 130


def test_a_reader_that_closes_the_pipe_ends_it_silently(script):
    script('batches = pipeline(range(9), *stages, prefetch())')
    with started('bench', 'training.py:batches', '--batches', '5') as process:
        process.stdout.close()
        assert process.stderr.read() == ''
        assert process.wait(TIMEOUT_SECONDS) == 1


@pytest.mark.skipif(os.name != 'posix', reason='needs a POSIX shell')
@pytest.mark.parametrize('closing', ['<&-', '>&-', '2>&-'])
def test_a_closed_standard_stream_is_not_an_error(closing, script):
    script('batches = pipeline(range(9), *stages, prefetch())')
    code, out, err = run(
        'bench', 'training.py:batches', '--batches', '5', shell=['sh', '-c', f'exec "$0" "$@" {closing}']
    )
    assert (code, err) == (0, '')
    assert ('measured' in out) == (closing != '>&-')


@needs_signals
def test_a_terminal_shows_what_is_being_measured(script):
    script('batches = pipeline(range(9), *stages, prefetch())')
    reads, writes = os.openpty()
    try:
        with started('bench', 'training.py:batches', '--batches', '5', stderr=writes) as process:
            assert b'measuring training.py:batches; Ctrl-C ends it early' in os.read(reads, 100)
            assert '5 batches in ' in process.communicate(timeout=TIMEOUT_SECONDS)[0]
    finally:
        os.close(reads)
        os.close(writes)


def test_what_the_users_code_prints_is_not_in_the_json(script):
    script("""
        def load(number):
            print('loading')
            return number

        print('imported')
        batches = pipeline(range(9), apply(load), combine_batches(4), prefetch())
    """)
    code, out, err = run('bench', 'training.py:batches', '--batches', '5', '--json')
    assert (code, json.loads(out)['batches']) == (0, 5)
    assert err.startswith('imported\nloading\n')


@needs_processes
@pytest.mark.parametrize('closing', ['', '2>&-', '<&- 2>&-'])
def test_what_worker_processes_print_is_not_in_the_json(closing, script):
    script("""
        def load(number):
            print('loading', flush=True)
            return number

        batches = pipeline(range(9), apply(load, workers=processes(1)), combine_batches(4), prefetch())
    """)
    shell = ['sh', '-c', f'exec "$0" "$@" {closing}']
    code, out, err = run('bench', 'training.py:batches', '--batches', '5', '--json', shell=shell)
    assert (code, json.loads(out)['batches']) == (0, 5)
    assert err.startswith('' if closing else 'loading\n')


@dataclass
class Sample:
    image: np.ndarray
    label: object


class Tensor:
    nbytes = 12


@pytest.mark.parametrize(
    ('batch', 'size'),
    [
        (np.zeros(3), 24),
        (np.float32(3), 4),
        ((np.zeros(3), [np.zeros(2), 'a']), 40),
        ({'image': np.zeros((2, 2), np.uint8), 'more': {'label': np.zeros(1)}}, 12),
        (Sample(np.zeros(3), Tensor()), 36),
        (namedtuple('Pair', 'a b')(np.zeros(1), deque([np.zeros(1)])), 16),
        (memoryview(b'abc'), 3),
        (['text', b'bytes', 1, 2.5, True, None, object(), range(9), np.ndarray], 0),
    ],
)
def test_the_bytes_of_a_batch_are_those_of_its_arrays(batch, size):
    assert bench.nbytes(batch) == size


@needs_proc
def test_peak_memory_includes_what_was_freed(script):
    script("""
        def batches():
            np.ones(200 << 17)
            return pipeline(range(9), *stages, prefetch())
    """)
    code, out, err = run('bench', 'training.py:batches', '--batches', '5', '--json')
    values = json.loads(out)
    assert (code, err) == (0, '')
    assert values['peak_memory'] > 200 << 20
    assert values['processes'] == 1


@needs_proc
@needs_processes
def test_shared_memory_counts_once(script):
    script("""
        images = np.ones((16, 1 << 20))

        def load(number):
            return float(images[number].sum())

        batches = pipeline(range(16), apply(load, workers=processes(3)), combine_batches(16), prefetch())
    """)
    code, out, err = run('bench', 'training.py:batches', '--batches', '20', '--json')
    values = json.loads(out)
    assert (code, err, values['processes']) == (0, '', 4)
    assert 2 * 128 << 20 < values['peak_memory'] < 4 * 128 << 20  # once in this process, once shared by all


def test_if_memory_is_unknown_the_table_leaves_it_out(measured, monkeypatch):
    monkeypatch.setattr('pipekit.bench.peak_memory', list)
    assert 'memory' not in measured('batches = pipeline(range(9), *stages, prefetch())')

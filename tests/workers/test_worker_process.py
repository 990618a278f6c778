import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from pipekit import apply, pipeline, prefetch, processes
from pipekit.workers import worker_process
from pipekit.workers.worker_process import check_python, how_it_ended, oom_kills

HASH_SEEDS = Path(__file__).parent / 'programs' / 'hash_seeds.py'


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


def program(folder, name, text):
    path = folder / name
    path.write_bytes(text)
    path.chmod(0o755)
    return str(path)


NOT_PYTHON = {
    'none': lambda folder: None,
    'an empty name': lambda folder: '',
    'a file that is not there': lambda folder: str(folder / 'python'),
    'a folder': str,
    'a file that is no program': lambda folder: __file__,
    'a name that is nowhere': lambda folder: 'pythonic-no-such-program',
    'a shell': lambda folder: shutil.which('sh'),
    'another name of a shell': lambda folder: 'sh',
    'a web server that embeds Python': lambda folder: program(folder, 'uwsgi', b'ELF Py_Initialize'),
    'an editor that embeds Python': lambda folder: program(folder, 'blender', b'ELF Py_RunMain'),
    'an empty program': lambda folder: program(folder, 'train', b''),
}
PYTHON = {
    'this one': lambda folder: sys.executable,
    'a name': lambda folder: 'python',
    'a wrapper': lambda folder: program(folder, 'python-with-modules', b'#!/bin/sh'),
    'another kind': lambda folder: program(folder, 'pypy3', b''),
    'a path': lambda folder: Path(sys.executable),
    'large letters': lambda folder: program(folder, 'Python', b''),
    'a link of another name': lambda folder: linked(folder / 'interpreter'),
}


def linked(path):
    path.symlink_to(os.path.realpath(sys.executable))
    return str(path)


@pytest.mark.parametrize('kind', NOT_PYTHON)
def test_what_is_not_python_is_an_error_before_anything_is_started(kind, tmp_path, monkeypatch):
    executable = NOT_PYTHON[kind](tmp_path)
    monkeypatch.setattr(sys, 'executable', executable)
    monkeypatch.setattr(subprocess, 'Popen', None)
    with (
        pytest.raises(
            RuntimeError, match=r'cannot start processes\(2\): .*; use threads\(n\), or set sys.exec'
        ) as caught,
        pipeline([1, 2], apply(abs, workers=processes(2)), prefetch()) as batches,
    ):
        list(batches)
    assert f'sys.executable is {executable!r}, which is ' in str(caught.value)


@pytest.mark.parametrize('kind', PYTHON)
def test_what_may_be_python_is_started(kind, tmp_path, monkeypatch):
    executable = PYTHON[kind](tmp_path)
    monkeypatch.setenv('PATH', os.path.dirname(sys.executable), prepend=os.pathsep)
    monkeypatch.setattr(sys, 'executable', executable)
    check_python('processes(2)')


@pytest.mark.parametrize('frozen', [True, 1, 'macosx_app', 'windows_exe', 'dll', 'console_exe'])
def test_a_frozen_program_does_not_start_itself(frozen, monkeypatch):
    monkeypatch.setattr(sys, 'frozen', frozen, raising=False)
    monkeypatch.setattr(subprocess, 'Popen', None)
    with (
        pytest.raises(RuntimeError, match=r'cannot start processes\(2\): this program is frozen, .*; use threads'),
        pipeline([1, 2], apply(abs, workers=processes(2)), prefetch()) as batches,
    ):
        list(batches)


@pytest.mark.parametrize(
    ('seed', 'flags'),
    [
        *product([None, '0', '5', '4294967295', 'random'], ['', '-E']),
        *product([None, '5'], ['-I', '-O', '-s', '-P', '-B', '-X utf8', '-E -O', '-W error']),
    ],
)
def test_all_processes_have_one_hash_seed(seed, flags, monkeypatch):
    monkeypatch.delenv('PYTHONHASHSEED', raising=False)
    if seed is not None:
        monkeypatch.setenv('PYTHONHASHSEED', seed)
    done = subprocess.run(
        [sys.executable, *flags.split(), HASH_SEEDS, os.path.dirname(os.path.dirname(worker_process.__file__))],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    here, *there = done.stdout.splitlines()
    assert len(there) == 2
    assert len({line.split()[0] for line in there}) == 2
    classes = {line.split()[1] for line in there}
    assert len(classes) == 1
    if seed not in (None, 'random') and not {'-E', '-I'} & set(flags.split()):
        assert classes == {here}


ENTRIES = {
    'the current folder': ('', 'here'),
    'a name': ('lib', 'here/lib'),
    'a longer one': ('lib/more', 'here/lib/more'),
    'one above': ('../there', 'there'),
    'dots': ('./lib/.', 'here/lib'),
    'one that is not there': ('other', None),
    'one that stands for a finder': ('__editable__.x.finder.__path_hook__', None),
    'a file': ('code.zip', 'here/code.zip'),
}


@pytest.mark.parametrize('kind', ENTRIES)
def test_an_entry_of_the_path_is_absolute_if_it_exists(kind, tmp_path, monkeypatch):
    entry, expected = ENTRIES[kind]
    (tmp_path / 'here' / 'lib' / 'more').mkdir(parents=True)
    (tmp_path / 'here' / 'code.zip').touch()
    (tmp_path / 'there').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert worker_process._absolute(entry) == (entry if expected is None else str(tmp_path / expected))


@pytest.mark.parametrize('entry', [None, 5, b'lib', ['lib'], '/', os.getcwd()])
def test_any_other_entry_stays(entry):
    assert worker_process._absolute(entry) == entry


@pytest.mark.parametrize('imported', ['before', 'after'])
def test_a_script_that_changes_its_folder_finds_its_modules(imported, tmp_path):
    (tmp_path / 'here' / 'lib').mkdir(parents=True)
    (tmp_path / 'there').mkdir()
    (tmp_path / 'here' / 'lib' / 'my_module.py').write_text('def double(x):\n    return 2 * x\n')
    lines = ['import os, sys', 'sys.path.insert(0, "lib")', 'import my_module', 'os.chdir("../there")']
    if imported == 'after':
        lines = ['import os, sys', 'os.chdir("../here")', 'sys.path.insert(0, "lib")', 'import my_module']
    code = [
        *lines,
        'from pipekit import apply, pipeline, prefetch, processes',
        'with pipeline([1, 2], apply(my_module.double, workers=processes(1)), prefetch()) as batches:',
        '    print(list(batches))',
    ]
    folder = tmp_path / ('here' if imported == 'before' else 'there')
    done = subprocess.run(
        [sys.executable, '-c', '\n'.join(code)], capture_output=True, text=True, timeout=100, check=False, cwd=folder
    )
    assert (done.stdout, done.stderr) == ('[2, 4]\n', '')

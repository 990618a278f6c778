"""A module may train at its top level while it is imported: nothing waits for the end of that import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / 'programs'
TIMEOUT_SECONDS = 60
NAMES = re.findall(r"^    '([\w ]+)': lambda", (PROGRAMS / 'trains_at_import.py').read_text(encoding='utf-8'), re.M)
LAUNCHERS = {
    'import': ['-c', 'import trains_at_import'],
    'from import': ['-c', 'from trains_at_import import load'],
    'importlib': ['-c', 'from importlib import import_module; import_module("trains_at_import")'],
    'an import in an import': ['-c', 'import imports_it'],
    'a package': ['-c', 'import package_of_it'],
    'in a package': ['-c', 'import other_package.train'],
    'python -m': ['-m', 'trains_at_import'],
    'python -m of a package': ['-m', 'package_of_it'],
    'runpy': ['-c', 'from runpy import run_module; run_module("trains_at_import", run_name="__main__")'],
    'runpy under its name': ['-c', 'from runpy import run_module; run_module("trains_at_import")'],
    'runpy of a path': ['-c', f'from runpy import run_path; run_path({str(PROGRAMS / "trains_at_import.py")!r})'],
    'a script': [str(PROGRAMS / 'trains_at_import.py')],
    'a thread': [
        '-c',
        'from threading import Thread; t = Thread(target=__import__, args=["trains_at_import"]); t.start(); t.join()',
    ],
}
FILES = {
    'imports_it.py': 'import trains_at_import',
    'package_of_it/__init__.py': (PROGRAMS / 'trains_at_import.py').read_text(encoding='utf-8'),
    'package_of_it/__main__.py': '',
    'other_package/__init__.py': '',
    'other_package/train.py': (PROGRAMS / 'trains_at_import.py').read_text(encoding='utf-8'),
}


def lines_of(launcher, kind, names, folder):
    path = os.pathsep.join([str(PROGRAMS), str(folder), *filter(None, [os.environ.get('PYTHONPATH')])])
    environment = os.environ | {'PYTHONPATH': path, 'KIND': kind, 'PARTS': ','.join(names)}
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding='utf-8')
    done = subprocess.run(
        [sys.executable, *LAUNCHERS[launcher]],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last.startswith('trained in ')  # once
    assert [line[: len(name)] for line, name in zip(lines, names, strict=True)] == names
    return lines


@pytest.fixture(scope='module')
def expected(tmp_path_factory):
    return lines_of('a script', 'inline', NAMES, tmp_path_factory.mktemp('expected'))


@pytest.mark.parametrize('kind', ['inline', 'threads', 'processes'])
def test_everything_works_in_an_import(expected, kind, tmp_path):
    assert len(NAMES) >= 20
    assert lines_of('import', kind, NAMES, tmp_path) == expected


@pytest.mark.parametrize('launcher', LAUNCHERS)
def test_any_launcher_gets_the_same_from_processes(expected, launcher, tmp_path):
    names = ['a function', 'objects back', 'a cache', 'reports']
    wanted = [line for line in expected if line.startswith(tuple(names))]
    assert lines_of(launcher, 'processes', names, tmp_path) == wanted

"""The house: one kind of thing per room, imports downward only, names sorted."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pipekit

ROOMS = [
    'errors',
    'describing',
    'describing.structures',
    'describing.display',
    'describing.tables',
    'describing.tracebacks',
    'describing.progress',
    'describing.descriptions',
    'describing.arguments',
    'memory',
    'memory.forks',
    'memory.blocks',
    'memory.file_descriptors',
    'memory.shared',
    'workers',
    'workers.remote_errors',
    'streams',
    'streams.cursors',
    'streams.error_notes',
    'streams.randomness',
    'streams.metering',
    'stages',
    'stages.combiners',
    'stages.arrays',
    'stages.indices',
    'workers.kinds',
    'workers.work',
    'workers.pickling',
    'workers.channels',
    'workers.process_main',
    'workers.endings',
    'workers.jobs',
    'workers.worker_process',
    'workers.process_pool',
    'workers.pools',
    'streams.on_error',
    'streams.failures',
    'streams.stream',
    'streams.iterables',
    'stages.tasks',
    'stages.gathering',
    'stages.pipeline',
    'stages.sources',
    'stages.functions',
    'stages.mapping',
    'stages.batching',
    'batches',
    'batches.states',
    'reports',
    'reports.figures',
    'reports.show',
    'reports.timings',
    'reports.verdicts',
    'reports.timeline',
    'reports.report',
    'batches.stalls',
    'batches.prefetch',
    'batches.prefetch_thread',
    'batches.batch_iterator',
    'composition',
    'compat',
    'testing',
    'targets',
    'reports.peaks',
    'reports.measurements',
    'bench',
    '__main__',
    '__init__',
]
PACKAGE = Path(pipekit.__file__).parent


def path_of(room):
    path = PACKAGE.joinpath(*room.split('.'))
    return path / '__init__.py' if path.is_dir() else path.with_suffix('.py')


def imported_rooms(room):
    house = ['pipekit', *room.split('.')]
    is_folder = path_of(room).stem == '__init__' != room
    for node in ast.walk(ast.parse(path_of(room).read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = house[1 : len(house) - node.level + is_folder]
            yield '.'.join([*above, *(node.module or '').split('.')]).strip('.')
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name.partition('.')[2] for name in names if name.partition('.')[0] == 'pipekit')


def test_every_room_is_on_the_plan():
    assert sorted(PACKAGE.rglob('*.py')) == sorted(map(path_of, ROOMS))


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_imports_from_those_below_it_only(room):
    below = ROOMS[: ROOMS.index(room)]
    assert set(imported_rooms(room)) <= set(below)


def test_the_public_names_are_sorted_and_are_all_there_is():
    assert pipekit.__all__ == sorted(pipekit.__all__)
    rooms = {name for name, value in vars(pipekit).items() if inspect.ismodule(value)}
    assert {name for name in vars(pipekit) if not name.startswith('_')} - rooms == set(pipekit.__all__)


@pytest.mark.parametrize('name', pipekit.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    value = getattr(pipekit, name)
    assert '>>>' in value.__doc__ or (isinstance(value, type) and issubclass(value, pipekit.PipekitError))


def test_the_import_loads_no_more_than_the_core_needs():
    code = 'import sys, pipekit; print(*sorted({name.partition(".")[0] for name in sys.modules}))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True)
    third_party = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert {name for name in third_party if not name.startswith('_')} <= {'numpy', 'toolz', 'more_itertools', 'pipekit'}

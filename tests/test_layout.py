"""The house: one kind of thing per wing, imports downward only, a public face that shows what is meant for users."""

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from more_itertools import ilen

import pipekit

# From the top floor down: a file imports from files below it only. Files on one line do not import each other.
HOUSE = """
    __main__
    __init__        bench
    testing         compat
    composition

    batches         batch_iterator
                    delivery
                    prefetch_thread
                    stalls  prefetch  states  generator_checks
    stages          batching  mapping  ordering  sources  arrays  purity
                    seeding
                    held_generators
                    functions  combiners  draws
                    leaves
    plans           pipeline
                    running
                    fusion  gathering  tasks  shares
                    operations
    files           rows  npy  json_lines  tar  parquet  columns
                    reader  index  passes
                    opening  sequence
    reports         measurements
                    report  show
                    timeline  verdicts
                    timings  figures

    streams         iterables
                    stream
                    context  calls
                    activities  failures  index_stream
                    error_notes  on_error  randomness  nesting
                    cursors  metering
                    global_generators

    workers         pools
                    process_pool  thread_pool  borrowed
                    worker_process
                    process_main  jobs
                    channels  remote_logs
                    pickling
                    kinds  remote_errors  resources  settings

    memory          shared
                    blocks
                    forks  file_descriptors  locks
    describing      arguments
                    descriptions  tables
                    display  progress  tracebacks
                    structures

    errors
"""
WINGS = {'batches', 'stages', 'plans', 'files', 'reports', 'streams', 'workers', 'memory', 'describing'}
PACKAGE = Path(pipekit.__file__).parent
MOST_FILES, MOST_LINES, LONGEST_CHAIN = 14, 350, 14
SITE = {'sitecustomize', 'usercustomize'}  # loaded before anything else, where an installation has them


def floors():
    """The floors of the picture, the lowest one first, each a list of modules."""
    wing = ''
    for line in HOUSE.splitlines():
        names = line.split()
        if names and not line.startswith(' ' * 20):
            wing = names.pop(0) if names[0] in WINGS else ''
        if names:
            yield [f'{wing}.{name}'.strip('.') for name in names]


FLOORS = list(floors())[::-1]
MODULES = [module for floor in FLOORS for module in floor]


def path_of(module):
    return PACKAGE.joinpath(*module.split('.')).with_suffix('.py')


@cache
def imports_of(module):
    """The modules of the package that a module imports, anywhere in it."""
    here = module.split('.')[:-1]
    found = set()
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = here[: len(here) + 1 - node.level]
            base = '.'.join([*above, *filter(None, [node.module])])
            names = [base] if base in MODULES else [f'{base}.{alias.name}'.strip('.') for alias in node.names]
            found.update(names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found.update(name.partition('.')[2] for name in names if name.partition('.')[0] == 'pipekit')
    return {name for name in found if path_of(name).exists()}  # else it is a stub, for type checkers alone


@cache
def chain_from(module):
    return [*max(map(chain_from, imports_of(module)), key=len, default=[]), module]


def test_every_file_is_in_the_picture():
    wings = {PACKAGE / wing / '__init__.py' for wing in WINGS}
    assert set(PACKAGE.rglob('*.py')) - wings == set(map(path_of, MODULES))


@pytest.mark.parametrize('floor', range(len(FLOORS)))
def test_a_file_imports_from_the_floors_below_only(floor):
    below = set(chain.from_iterable(FLOORS[:floor]))
    for module in FLOORS[floor]:
        assert imports_of(module) <= below, module


@pytest.mark.parametrize('module', MODULES)
def test_a_wing_imports_from_those_that_it_stands_on(module):
    allowed = {
        'batches': WINGS,
        'stages': WINGS - {'batches', 'reports'},
        'plans': WINGS - {'batches', 'stages', 'reports'},
        'files': {'files', 'streams', 'workers', 'memory', 'describing'},
        'reports': {'reports', 'streams', 'workers', 'describing'},
        'streams': {'streams', 'workers', 'memory', 'describing'},
        'workers': {'workers', 'memory', 'describing'},
        'memory': {'memory'},
        'describing': {'describing'},
    }
    wing = module.partition('.')[0]
    if wing in WINGS:
        assert {other.partition('.')[0] for other in imports_of(module)} <= allowed[wing] | {'errors'}


def test_the_longest_chain_of_imports():
    longest = max(map(chain_from, MODULES), key=len)
    assert len(longest) <= LONGEST_CHAIN, ' -> '.join(longest)


@pytest.mark.parametrize('wing', sorted(WINGS))
def test_a_wing_says_what_lives_there_and_is_not_crowded(wing):
    says = ast.get_docstring(ast.parse((PACKAGE / wing / '__init__.py').read_text(encoding='utf-8')))
    assert len(says.splitlines()) == 2
    assert ilen(module for module in MODULES if module.startswith(f'{wing}.')) <= MOST_FILES


@pytest.mark.parametrize('module', MODULES)
def test_no_file_is_long(module):
    assert len(path_of(module).read_text(encoding='utf-8').splitlines()) <= MOST_LINES


def test_the_public_face_shows_the_public_names_and_the_wings():
    assert pipekit.__all__ == sorted(pipekit.__all__)
    assert set(dir(pipekit)) == {*pipekit.__all__, *WINGS, '__version__', 'testing'}
    assert all(hasattr(pipekit, name) for name in dir(pipekit))
    with pytest.raises(AttributeError, match="'pipekit' has no attribute 'shuffel'"):
        pipekit.shuffel  # noqa: B018


@pytest.mark.parametrize('name', sorted({*dir(pipekit)} - WINGS - {'testing'}))
def test_no_public_name_hides_a_module(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f'pipekit.{name}')


@pytest.mark.parametrize('name', pipekit.__all__)
def test_every_public_object_is_in_pipekit_and_pickles_by_that_name(name):
    value = getattr(pipekit, name)
    assert value.__module__ == 'pipekit'
    assert pickle.loads(pickle.dumps(value)) is value


@pytest.mark.parametrize('name', pipekit.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    value = getattr(pipekit, name)
    assert '>>>' in inspect.getdoc(value) or (isinstance(value, type) and issubclass(value, pipekit.PipekitError))


def test_the_import_loads_no_more_than_the_core_needs():
    code = 'import sys, pipekit; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    top = {name.partition('.')[0] for name in loaded} - set(sys.stdlib_module_names)
    assert {name for name in top if not name.startswith('_')} <= {'numpy', 'toolz', 'more_itertools', 'pipekit', *SITE}
    on_first_use = {'pipekit.reports', 'pipekit.bench', 'pipekit.testing', 'pipekit.batches.stalls'}
    assert not on_first_use & loaded

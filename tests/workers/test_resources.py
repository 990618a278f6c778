"""What each thread or process opens for itself: when, by whom, and that nothing of it is left."""

import copy
import gc
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO, StringIO
from mmap import mmap
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import cloudpickle
import numpy as np
import pytest

from pipekit import apply, per_worker, pipeline, prefetch, processes, shuffle, threads
from pipekit.describing.display import code

KINDS = [None, threads(1), threads(3), processes(1), processes(2)]
TIMEOUT_SECONDS = 20


class Log:
    """Lines that threads and processes have written, of a file."""

    def __init__(self, folder):
        self.path = str(folder / 'log')

    def write(self, *words):
        with open(self.path, 'a', encoding='ascii') as file:
            file.write(' '.join(map(str, (*words, os.getpid(), threading.get_ident()))) + '\n')

    def lines(self, word):
        """Who has written a word: each a process and a thread."""
        text = Path(self.path).read_text(encoding='ascii') if os.path.exists(self.path) else ''
        return [line.split()[1:] for line in text.splitlines() if line.split()[0] == word]


class Resource:
    """Writes down when it is opened, used and closed."""

    def __init__(self, log, name=''):
        self.log, self.name = log, name
        log.write(f'opened{name}')

    def use(self, value):
        assert not hasattr(self, 'is_closed')
        self.log.write(f'used{self.name}')
        return value

    def close(self):
        self.is_closed = True
        self.log.write(f'closed{self.name}')


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


@pytest.fixture(params=KINDS, ids=repr)
def workers(request):
    return request.param


def epochs(pipe, n=1):
    with pipeline(pipe, prefetch()) as batches:
        return [list(batches) for _ in range(n)]


def test_each_worker_opens_its_own_once_and_closes_it(log, workers):
    resource = per_worker(partial(Resource, log))
    pipe = pipeline(range(40), apply(lambda value: resource().use(value), workers=workers))
    assert epochs(pipe, 2) == [list(range(40))] * 2
    opened = log.lines('opened')
    assert 1 <= len(opened) <= getattr(workers, 'n', 1)
    assert len({tuple(who) for who in opened}) == len(opened)
    assert sorted(log.lines('closed')) == sorted(opened)  # by the thread or process that opened it
    assert {tuple(who) for who in log.lines('used')} == {tuple(who) for who in opened}
    here = str(os.getpid()), str(threading.get_ident())
    assert all(tuple(who) != here for who in opened)


def test_it_is_opened_again_when_the_batches_are(log, workers):
    resource = per_worker(partial(Resource, log))
    batches = pipeline(range(9), apply(lambda value: resource().use(value), workers=workers), prefetch())
    for number in range(1, 4):
        with batches:
            assert list(batches) == list(range(9))
        n_opened = len(log.lines('opened'))
        assert n_opened == len(log.lines('closed')) >= number


def test_different_ones_are_apart_and_copies_are_not(log, workers):
    a, b = (per_worker(partial(Resource, log, name)) for name in 'ab')
    alike = per_worker(partial(Resource, log, 'a'))
    copied = copy.copy(a)
    assert (a == alike, a == copied, a == b) == (True, True, False)

    def use(value):
        assert a() is not alike()
        assert a() is copied()
        return b().use(alike().use(a().use(value)))

    # The shuffle keeps the functions apart: they are sent to a process one by one.
    first, last = apply(use, workers=workers), apply(lambda value: a().use(value), workers=workers)
    (values,) = epochs(pipeline(range(9), first, shuffle(1), last))
    assert values == list(range(9))
    for name, most in ('a', 2), ('b', 1):
        opened = [tuple(who) for who in log.lines(f'opened{name}')]
        assert max(Counter(opened).values()) == most
        assert sorted(map(tuple, log.lines(f'closed{name}'))) == sorted(opened)


@contextmanager
def reading(path):
    with open(path, encoding='ascii') as file:
        yield file.read()


def archive_of(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('name', 'text')
    return path


def tar_of(path):
    with tarfile.open(path, 'w') as archive:
        archive.add(__file__, 'name')
    return path


def npz_of(path):
    np.savez(path, a=np.arange(3))
    return path


def text_of(path):
    Path(path).write_text('text', encoding='ascii')
    return path


def open_map(path):
    with open(path, 'r+b') as file:
        return mmap(file.fileno(), 0)


# What is opened, of the path of a file that the first function makes; and what is read from it.
RESOURCES = {
    'zip': (archive_of, zipfile.ZipFile, lambda archive: archive.read('name')),
    'tar': (tar_of, tarfile.open, lambda archive: archive.getnames()),
    'npz': (npz_of, np.load, lambda arrays: arrays['a'].tolist()),
    'text file': (text_of, partial(open, encoding='ascii'), lambda file: (file.seek(0), file.read())),
    'bytes file': (text_of, partial(open, mode='rb', buffering=0), lambda file: (file.seek(0), file.read())),
    'map of a file': (text_of, open_map, lambda memory: memory[:]),
    'database': (
        str,
        lambda path: sqlite3.connect(':memory:'),
        lambda database: database.execute('select 1').fetchone(),
    ),
    'context manager': (text_of, reading, lambda text: text),
    'folder': (str, lambda path: TemporaryDirectory(), os.path.isdir),
    'temporary file': (str, lambda path: TemporaryFile(), lambda file: file.seek(0)),  # noqa: SIM115
    'executor': (str, lambda path: ThreadPoolExecutor(1), lambda executor: executor.submit(abs, -1).result()),
    'stack': (str, lambda path: ExitStack(), lambda stack: type(stack).__name__),
    'text in memory': (str, lambda path: StringIO('a'), lambda text: text.getvalue()),
    'bytes in memory': (str, lambda path: BytesIO(b'a'), lambda text: text.getvalue()),
    'array': (npz_of, lambda path: np.arange(9), lambda array: array.sum().item()),
    'number': (str, lambda path: 7, lambda number: number),
    'nothing': (str, lambda path: None, lambda nothing: nothing),
    'function': (str, lambda path: lambda value: value, lambda function: function(3)),
    'attribute close': (str, lambda path: type('Door', (), {'close': 3})(), lambda door: door.close),
    'class': (str, lambda path: dict, lambda kind: kind.__name__),
}


def descriptors():
    return {os.readlink(f'/dev/fd/{fd}') for fd in os.listdir('/dev/fd') if os.path.lexists(f'/dev/fd/{fd}')}


@pytest.mark.parametrize('name', RESOURCES)
@pytest.mark.parametrize('kind', [None, threads(2), processes(1)], ids=repr)
def test_any_resource_reads_the_same_anywhere_and_is_closed(tmp_path, name, kind):
    make, opens, read = RESOURCES[name]
    path = make(str(tmp_path / 'file.npz'))
    folders = set(os.listdir(tmp_path))
    resources = [per_worker(partial(opens, path))]

    def load(number, resource=resources[0]):
        return number, read(resource())

    expected = [load(number) for number in range(9)]
    before = descriptors()
    assert epochs(pipeline(range(9), apply(load, workers=kind))) == [expected]
    assert descriptors() <= before  # what this thread has opened is open
    assert set(os.listdir(tmp_path)) == folders
    resources.clear()
    del load
    gc.collect()
    assert not any(str(tmp_path) in target for target in descriptors())


def opens_at_third_try(tries):
    tries.append(1)
    if len(tries) < 3:
        raise OSError('no connection')
    return 'connection'


@pytest.mark.parametrize('kind', KINDS, ids=repr)
def test_an_error_in_opening_is_that_of_the_sample(kind):
    def make():
        raise OSError('no connection')

    resource = per_worker(make)

    def load(name):
        return resource()

    with pytest.raises(OSError, match='no connection') as caught:
        epochs(pipeline(['ada', 'bob'], apply(load, workers=kind)))
    assert "the 2nd of 2 stages, on sample 'ada'" in caught.value.__notes__[0]


def test_after_an_error_it_is_tried_again():
    resource = per_worker(partial(opens_at_third_try, []))
    for _ in range(2):
        with pytest.raises(OSError, match='no connection'):
            resource()
    assert resource() == 'connection'


def test_an_error_in_closing_is_logged_and_the_others_are_closed(log, caplog):
    class Broken:
        def close(self):
            raise OSError('cannot be closed')

    broken, resource = per_worker(Broken), per_worker(partial(Resource, log))
    with caplog.at_level(logging.ERROR, 'pipekit'):
        epochs(pipeline(range(3), apply(lambda _: (resource(), broken())[:0], workers=threads(1))))
    assert [record.getMessage() for record in caplog.records] == ['closing what per_worker(Broken) has opened failed']
    assert str(caplog.records[0].exc_info[1]) == 'cannot be closed'
    assert len(log.lines('closed')) == 1


def test_the_last_that_was_opened_is_closed_first(log):
    outer = per_worker(partial(Resource, log, 'outer'))
    inner = per_worker(lambda: (outer(), Resource(log, 'inner'))[1])
    epochs(pipeline(range(3), apply(lambda value: inner().use(value), workers=threads(1))))
    words = [line.split()[0] for line in Path(log.path).read_text(encoding='ascii').splitlines()]
    assert [word for word in words if 'used' not in word] == [
        'openedouter',
        'openedinner',
        'closedinner',
        'closedouter',
    ]


@pytest.mark.parametrize('is_open', [False, True])
@pytest.mark.parametrize('make', [dict, partial(dict, a=1), lambda: {1}, StringIO], ids=code)
def test_it_can_be_pickled_printed_and_compared(make, is_open):
    resource = per_worker(make)
    if is_open:
        resource()
    loaded = cloudpickle.loads(cloudpickle.dumps(resource))
    assert (loaded() is resource(), repr(loaded)) == (True, repr(resource))
    assert (resource == per_worker(make), hash(resource) == hash(per_worker(make))) == (True, True)
    assert resource != per_worker(list)


def test_it_prints_as_code():
    assert repr(per_worker(partial(open, 'a'))) == "per_worker(partial(open, 'a'))"
    assert repr(per_worker(make=BytesIO)) == 'per_worker(make=BytesIO)'


@pytest.mark.parametrize('make', [zipfile, 'data.zip', None, 3, BytesIO()], ids=code)
def test_what_opens_it_is_a_function(make):
    with pytest.raises(
        TypeError, match=r'make must be a function that opens a resource, got .*; did you mean a lambda\?'
    ):
        per_worker(make)


def test_outside_of_batches_it_is_closed_with_the_last_reference_or_the_thread(log):
    resources = [per_worker(partial(Resource, log))]
    assert list(pipeline([1, 2], apply(lambda value: resources[0]().use(value)))) == [1, 2]
    thread = threading.Thread(target=lambda: resources[0]().use(1))
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    with ThreadPoolExecutor(1) as executor:
        epochs(pipeline(range(3), apply(lambda value: resources[0]().use(value), workers=executor)))
        assert (len(log.lines('opened')), len(log.lines('closed'))) == (3, 1)
    assert (len(log.lines('opened')), len(log.lines('closed'))) == (3, 2)
    resources.clear()
    gc.collect()
    assert sorted(log.lines('closed')) == sorted(log.lines('opened'))


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_a_fork_opens_its_own_and_leaves_that_of_its_parent(log):
    resource = per_worker(partial(Resource, log))
    resource().use(1)
    child = os.fork()
    if not child:
        resource().use(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [int(pid) for pid, _ in log.lines('opened')] == [os.getpid(), child]
    assert not log.lines('closed')
    resource().use(1)


@pytest.mark.filterwarnings('ignore:a process of:RuntimeWarning')
def test_the_successor_of_a_killed_process_opens_its_own(log, tmp_path):
    resource = per_worker(partial(Resource, log))

    def load(number):
        resource()
        if number == 5 and not (tmp_path / 'killed').exists():
            (tmp_path / 'killed').touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return resource().use(number)

    assert epochs(pipeline(range(9), apply(load, workers=processes(1)))) == [list(range(9))]
    opened = log.lines('opened')
    assert len(opened) == 2
    assert log.lines('closed') == opened[1:]


@pytest.mark.parametrize('kind', ['None', 'threads(2)', 'processes(2)'])
@pytest.mark.parametrize('ending', ['closed', 'not closed', 'not iterated to its end', 'iterated here'])
def test_at_the_end_of_the_program_everything_is_closed(log, kind, ending):
    program = f"""
from functools import partial
from pathlib import Path
from pipekit import *
from test_resources import Log, Resource
resource = per_worker(partial(Resource, Log(Path({os.path.dirname(log.path)!r}))))
batches = pipeline(range(9), apply(lambda value: resource().use(value), workers={kind}), prefetch())
ending = {ending!r}
if ending == 'iterated here':
    list(batches.pipeline)
else:
    for batch in batches:
        if ending == 'not iterated to its end':
            break
if ending == 'closed':
    batches.close()
"""
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get('PYTHONPATH')])])
    environment = os.environ | {'PYTHONPATH': path}
    done = subprocess.run(
        [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert sorted(log.lines('closed')) == sorted(log.lines('opened'))
    assert log.lines('opened')

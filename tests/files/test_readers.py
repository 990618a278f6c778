"""Every reader, against what was written: in any worker, in bounded memory, with few files open and none left."""

import os
import pickle
import sys
import threading
from itertools import chain, islice

import numpy as np
import pytest
from files.writing import KINDS, LENGTHS, kind_of, write_files
from more_itertools import consume

from pipekit import Row, apply, combine_batches, pipeline, prefetch, processes, read_npy, retry, rows, threads
from pipekit.describing.descriptions import same
from pipekit.files.reader import OpenFiles
from pipekit.testing import check_stage

ON_DISK = sorted(set(KINDS) - {'zarr'})  # a zarr group is a folder, and keeps no file open


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return kind_of(request.param)


def open_files_in(folder):
    paths = []
    for name in os.listdir('/proc/self/fd'):
        try:
            paths.append(os.readlink(f'/proc/self/fd/{name}'))
        except OSError:
            continue
    return [path for path in paths if path.startswith(str(folder))]


needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='lists open files in /proc')


def test_each_row_is_what_was_written(kind, tmp_path):
    files, numbers = write_files(kind, tmp_path)
    read = kind.reader()
    assert read.lengths(files) == LENGTHS
    samples = list(pipeline(rows(files, LENGTHS, passes=1, shuffle=False), apply(read)))
    assert same(samples, [kind.expected(number) for number in chain(*numbers)])


@pytest.mark.parametrize('workers', [None, threads(3), processes(2)], ids=repr)
def test_any_worker_reads_the_same(kind, workers, tmp_path):
    files, _ = write_files(kind, tmp_path)
    source = rows(files, LENGTHS, window=6, lanes=3, batch_size=6, passes=2, seed=0)
    expected = list(pipeline(source, apply(kind.reader())))
    with pipeline(source, apply(kind.reader(), workers=workers), combine_batches(6, list), prefetch()) as batches:
        assert same(list(chain(*batches)), expected)


def test_a_reader_obeys_the_laws(kind, tmp_path):
    files, _ = write_files(kind, tmp_path)
    read = kind.reader()
    consume(pipeline(rows(files, LENGTHS, passes=1, shuffle=False), apply(read)))  # what a package starts is started
    check_stage(apply(read), lambda: iter(rows(files, LENGTHS, window=6, passes=1, seed=0)), limit=25)


def test_a_sample_does_not_share_memory_with_another(tmp_path):
    for name in 'npy', 'hdf5':
        kind = KINDS[name]
        pytest.importorskip('h5py')
        files, _ = write_files(kind, tmp_path, [4])
        read = kind.reader()
        first = read(Row(files[0], 2))
        array = first if name == 'npy' else first['images']
        array[:] = 77
        assert same(read(Row(files[0], 2)), kind.expected(2))
        assert array.base is None or array.base.nbytes <= array.nbytes


def test_a_reader_prints_compares_and_pickles_as_code(kind):
    read = kind.reader(max_open_files=3)
    assert repr(read) == f'{kind.reader.__name__}(max_open_files=3)'
    assert pickle.loads(pickle.dumps(read)) == read
    assert apply(read) == apply(kind.reader(max_open_files=3)) != apply(kind.reader())


def test_a_state_does_not_name_how_files_are_opened():
    def state(read):
        return pipeline(rows(['a'], [3], seed=0), apply(read)).fingerprint()

    assert state(read_npy(max_open_files=3, storage_options={'key': 'secret'})) == state(read_npy())


@pytest.mark.parametrize('said', [2, 4])
def test_a_file_with_other_rows_than_was_said_is_an_error(kind, said, tmp_path):
    files, _ = write_files(kind, tmp_path, [2, 3])
    with pytest.raises(ValueError, match=rf"part-1\S*' has 3 rows, and lengths said {said}; count them again"):
        list(pipeline(rows(files, [2, said], passes=1, shuffle=False), apply(kind.reader())))


@pytest.mark.parametrize('number', [3, -1])
def test_a_row_that_is_not_there_is_an_error(kind, number, tmp_path):
    files, _ = write_files(kind, tmp_path, [3])
    with pytest.raises(ValueError, match=f'has 3 rows, and no row {number}'):
        kind.reader()(Row(files[0], number))


def test_a_missing_file_is_named(kind, tmp_path):
    name = str(tmp_path / f'missing{kind.ending}')
    with pytest.raises(FileNotFoundError) as caught:
        kind.reader().lengths([name])
    assert any(name in note for note in caught.value.__notes__)


@pytest.mark.parametrize('value', [3, 'a.npy', ('a.npy',), None])
def test_what_is_no_row_is_an_error(value):
    with pytest.raises(TypeError, match=r'a reader takes a Row\(file, number\)'):
        read_npy()(value)


def test_a_path_may_be_given_in_place_of_its_name(kind, tmp_path):
    kind.write(tmp_path / f'a{kind.ending}', [4, 5])
    read = kind.reader()
    assert read.lengths([tmp_path / f'a{kind.ending}']) == [2]
    assert same(read(Row(tmp_path / f'a{kind.ending}', 1)), kind.expected(5))


@needs_proc
@pytest.mark.parametrize('name', ON_DISK)
def test_few_files_are_open_and_none_is_left(name, tmp_path):
    kind = kind_of(name)
    files, _ = write_files(kind, tmp_path, [3] * 12)
    read = kind.reader(max_open_files=4)
    assert read.lengths(files) == [3] * 12
    assert not open_files_in(tmp_path)
    source = rows(files, [3] * 12, window=36, seed=0)
    with pipeline(source, apply(read, workers=threads(2)), combine_batches(4, list), prefetch(20)) as batches:
        for _ in batches:
            assert len(open_files_in(tmp_path)) <= 8
    assert not open_files_in(tmp_path)


@needs_proc
def test_files_opened_outside_of_batches_are_closed_with_the_reader(tmp_path):
    files, _ = write_files(KINDS['npy'], tmp_path)
    read = read_npy()
    consume(islice(pipeline(rows(files, LENGTHS, seed=0), apply(read)), 20))
    assert open_files_in(tmp_path)
    del read
    assert not open_files_in(tmp_path)


@needs_proc
def test_a_thread_that_ends_closes_its_files(tmp_path):
    files, _ = write_files(KINDS['npy'], tmp_path, [3])
    read = read_npy()
    thread = threading.Thread(target=read, args=[Row(files[0], 1)])
    thread.start()
    thread.join()
    assert not open_files_in(tmp_path)


class Opened:
    length = 10

    def __init__(self, file, log):
        self.file, self.log = file, log

    def row(self, number):
        if self.log.pop(0) == 'fails':
            raise OSError('503 slow down')
        return self.file, number

    def close(self):
        self.log.append(f'closed {self.file}')


def test_the_file_used_least_recently_is_closed_for_another():
    log = []
    files = OpenFiles(lambda file, blocks: Opened(file, log), 2, 1)
    tables = [files.table(file) for file in 'abaca']
    assert log == ['closed b']
    assert tables[0] is tables[2] is tables[4]
    files.close()
    assert sorted(log) == ['closed a', 'closed b', 'closed c']


class FailsOnce:
    """A file that reads nothing the first time, as a server that is busy."""

    failed = 0

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def read(self, size=-1):
        if not FailsOnce.failed:
            FailsOnce.failed = 1
            raise OSError('503 slow down')
        return self._file.read(size)


def test_a_passing_error_is_retried_with_the_file_opened_again(tmp_path, monkeypatch):
    files, _ = write_files(KINDS['tar'], tmp_path, [4])
    read = KINDS['tar'].reader()
    read.lengths(files)
    opened = []

    def open_file(file, options, **caching):
        opened.append(file)
        return FailsOnce(open(file, 'rb'))

    monkeypatch.setattr(sys.modules['pipekit.files.tar'], 'open_file', open_file)
    source = rows(files, [4], passes=1, shuffle=False)
    samples = list(pipeline(source, apply(read, on_error=retry(2, OSError))))
    assert same(samples, [KINDS['tar'].expected(number) for number in range(4)])
    assert len(opened) == 2


MISSING = {'parquet': ('pyarrow', 'parquet'), 'hdf5': ('h5py', 'hdf5'), 'zarr': ('zarr', 'zarr')}


@pytest.mark.parametrize('name', MISSING)
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    package, extra = MISSING[name]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf'read_{name} needs {package}: .*pipekit-batches\[{extra}\]'):
        KINDS[name].reader()


def test_a_url_without_fsspec_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'fsspec.core', None)
    with pytest.raises(ModuleNotFoundError, match=r'opening memory://a.npy needs .*pipekit-batches\[files\]'):
        read_npy().lengths(['memory://a.npy'])


@pytest.mark.parametrize('name', MISSING)
def test_columns_are_chosen_by_name(name, tmp_path):
    kind = kind_of(name)
    files, _ = write_files(kind, tmp_path, [3])
    names = list(kind.expected(1))
    assert list(kind.reader(names[::-1])(Row(files[0], 1))) == names[::-1]
    assert same(kind.reader([names[1]])(Row(files[0], 1)), {names[1]: kind.expected(1)[names[1]]})
    with pytest.raises(ValueError, match=f"has no column 'nothing'; its columns are {names[0]}, {names[1]}"):
        kind.reader([names[0], 'nothing']).lengths(files)
    for wrong in 'images', 3, [], [3]:
        with pytest.raises(TypeError, match='columns must be a list of names or None'):
            kind.reader(wrong)


def test_files_to_count_are_a_list():
    with pytest.raises(TypeError, match=r"files must be a list of paths or URLs, got 'a.npy'; pass a list of it"):
        read_npy().lengths('a.npy')


def test_batches_of_arrays_are_as_written(tmp_path):
    files, _ = write_files(KINDS['npy'], tmp_path)
    source = rows(files, LENGTHS, passes=1, shuffle=False)
    (batch,) = pipeline(source, apply(read_npy()), combine_batches(25))
    assert same(batch, np.array([range(25), range(25)], np.int32).T)

"""Files of other file systems than the local one."""

from itertools import chain
from pathlib import Path

import pytest
from files.writing import KINDS, LENGTHS, kind_of, write_files

from pipekit import apply, pipeline, rows
from pipekit.describing.descriptions import same
from pipekit.files import opening

fsspec = pytest.importorskip('fsspec')


@pytest.fixture
def memory():
    system = fsspec.filesystem('memory')
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = ['']


@pytest.mark.parametrize('name', sorted(KINDS))
def test_a_reader_reads_from_any_file_system(name, tmp_path, memory):
    kind = kind_of(name)
    files, numbers = write_files(kind, tmp_path)
    urls = [f'memory://data/{Path(file).name}' for file in files]
    for file, url in zip(files, urls, strict=True):
        memory.put(file, url.removeprefix('memory:/'), recursive=Path(file).is_dir())
    read = kind.reader()
    assert read.lengths(urls) == LENGTHS
    samples = list(pipeline(rows(urls, LENGTHS, passes=1, shuffle=False), apply(read)))
    assert same(samples, [kind.expected(number) for number in chain(*numbers)])
    has_index = name in ('tar', 'json_lines')
    assert all(memory.exists(f'{url}.index') == has_index for url in urls)


def test_options_go_to_the_file_system(memory, monkeypatch):
    given = []
    monkeypatch.setattr('fsspec.core.url_to_fs', lambda url, **options: given.append(options) or (memory, '/a.npy'))
    with pytest.raises(FileNotFoundError):
        kind_of('npy').reader(storage_options={'anon': True}).lengths(['memory://a.npy'])
    assert given == [{'anon': True}]


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    assert opening.write_if_allowed(tmp_path / 'a', b'one', None)
    assert (tmp_path / 'a').read_bytes() == b'one'
    monkeypatch.setattr(Path, 'replace', lambda *_: (_ for _ in ()).throw(OSError('no space left')))
    assert not opening.write_if_allowed(tmp_path / 'a', b'two', None)
    assert [path.name for path in tmp_path.iterdir()] == ['a']
    assert (tmp_path / 'a').read_bytes() == b'one'
    assert not opening.write_if_allowed(tmp_path / 'missing' / 'a', b'one', None)

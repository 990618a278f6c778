"""Indexes: built once, kept beside the file, and refused when they are stale."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from files.writing import KINDS, write_files

from pipekit import Row
from pipekit.files import index

MODULES = {'tar': 'pipekit.files.tar.samples_of', 'json_lines': 'pipekit.files.json_lines.line_bounds'}


@pytest.fixture(params=sorted(MODULES))
def name(request):
    return request.param


@pytest.fixture
def builds(name, monkeypatch):
    """The files of which an index is built."""
    module, function = MODULES[name].rsplit('.', 1)
    module = __import__(module, fromlist=[function])
    build, built = getattr(module, function), []
    monkeypatch.setattr(module, function, lambda file, options: built.append(file) or build(file, options))
    return built


def test_it_is_built_once_and_kept_beside_the_file(name, builds, tmp_path):
    kind = KINDS[name]
    files, numbers = write_files(kind, tmp_path, [3, 5])
    for _ in range(3):
        read = kind.reader(max_open_files=1)
        assert read.lengths(files) == [3, 5]
        for file, of_file in zip(files, numbers, strict=True):
            assert [read(Row(file, k)) for k in range(len(of_file))] == list(map(kind.expected, of_file))
    assert sorted(builds) == sorted(files)
    assert {path.name for path in tmp_path.iterdir()} == {
        name for file in files for name in (Path(file).name, f'{Path(file).name}.index')
    }


@pytest.mark.parametrize('change', ['a longer file', 'another time'])
def test_a_stale_index_is_an_error_that_says_how_to_build_it_again(name, change, tmp_path):
    kind = KINDS[name]
    (file,), _ = write_files(kind, tmp_path, [3])
    assert kind.reader().lengths([file]) == [3]
    if change == 'a longer file':
        kind.write(Path(file), range(40))
    else:
        os.utime(file, ns=(1, 1))
    with pytest.raises(ValueError, match=r'\.index is stale: .* bytes .*; delete the index, and it is built again'):
        kind.reader()(Row(file, 0))
    with pytest.raises(ValueError, match='is stale') as caught:
        kind.reader().lengths([file])
    assert file in str(caught.value)
    Path(f'{file}.index').unlink()
    assert kind.reader().lengths([file]) == [40 if change == 'a longer file' else 3]


@pytest.mark.parametrize('content', ['', 'x', '[]', '{}', '3', '{"of": 1, "rows": []}'])
def test_something_else_in_place_of_the_index_is_an_error(name, content, tmp_path):
    kind = KINDS[name]
    (file,), _ = write_files(kind, tmp_path, [3])
    Path(f'{file}.index').write_text(content)
    with pytest.raises(ValueError, match=r'is no index of .*; delete it, and it is built again'):
        kind.reader().lengths([file])


def test_the_index_of_another_version_is_an_error(name, tmp_path):
    kind = KINDS[name]
    (file,), _ = write_files(kind, tmp_path, [3])
    kind.reader().lengths([file])
    saved = json.loads(Path(f'{file}.index').read_text())
    Path(f'{file}.index').write_text(json.dumps(saved | {'format': 2}))
    with pytest.raises(ValueError, match='is of another version of pipekit; delete it'):
        kind.reader().lengths([file])


def test_where_it_cannot_be_written_it_is_kept_in_memory(name, builds, tmp_path, monkeypatch):
    kind = KINDS[name]
    files, _ = write_files(kind, tmp_path, [3, 5])
    monkeypatch.setattr(index, 'write_if_allowed', lambda *_: False)
    read = kind.reader(max_open_files=1)
    assert read.lengths(files) == [3, 5]
    for k in range(3):
        for file in files:
            read(Row(file, k))
    assert sorted(builds) == sorted(files)
    assert len(list(tmp_path.iterdir())) == 2
    kind.write(Path(files[0]), range(40))
    assert kind.reader().lengths(files) == [40, 5]


def test_several_readers_may_build_it_at_a_time(name, tmp_path):
    kind = KINDS[name]
    files, _ = write_files(kind, tmp_path, [30])
    with ThreadPoolExecutor(8) as threads:
        lengths = list(threads.map(lambda _: kind.reader().lengths(files), range(8)))
    assert lengths == [[30]] * 8
    assert kind.reader()(Row(files[0], 29)) == kind.expected(29)
    assert len(list(tmp_path.iterdir())) == 2

"""What the values of each format become, and which files are refused."""

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
from files.writing import kind_of, write_files
from hypothesis import given
from hypothesis import strategies as st

from pipekit import Row, read_hdf5, read_json_lines, read_npy, read_parquet, read_tar, read_zarr
from pipekit.describing.descriptions import same
from pipekit.files.reader import Blocks


def samples_of(read, name):
    return [read(Row(name, number)) for number in range(read.lengths([name])[0])]


@pytest.mark.parametrize(
    'array',
    [
        np.arange(5, dtype='>i2'),
        np.zeros((3, 0, 2)),
        np.arange(24.0, dtype=np.float16).reshape(2, 3, 4),
        np.array(['a', 'bcd']),
        np.array([b'a', b'bcd']),
        np.array([True, False]),
        np.array([(1, 2.5), (2, 3.5)], [('number', 'i4'), ('value', 'f8')]),
        np.array(['2026-01-01', '2026-01-02'], 'M8[D]'),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(3)),
    ],
    ids=str,
)
def test_npy_gives_the_rows_of_any_array(array, tmp_path):
    name = str(tmp_path / 'a.npy')
    np.save(name, array)
    rows = samples_of(read_npy(), name)
    assert len(rows) == len(array)
    assert all(same(row, expected) for row, expected in zip(rows, array.copy(), strict=True))
    assert all(row.flags.writeable for row in rows if isinstance(row, np.ndarray))


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.array(3), 'without axes, which has no rows'),
        (np.array(['a', None]), 'holds Python objects'),
        (np.asfortranarray(np.zeros((3, 2))), "is in Fortran's order"),
    ],
    ids=['no axes', 'objects', 'Fortran'],
)
def test_arrays_that_have_no_rows_to_read_are_refused(array, message, tmp_path):
    np.save(tmp_path / 'a.npy', array)
    with pytest.raises(ValueError, match=message) as caught:
        read_npy().lengths([tmp_path / 'a.npy'])
    assert 'a.npy' in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'no array', b'\x93NUMPY\x01\x00\xff\xff'])
def test_what_is_no_npy_file_is_an_error_that_names_it(content, tmp_path):
    (tmp_path / 'a.npy').write_bytes(content)
    with pytest.raises(ValueError, match=r"while opening '.*a\.npy'"):
        read_npy().lengths([tmp_path / 'a.npy'])


def test_an_npy_file_that_is_cut_off_is_an_error(tmp_path):
    np.save(tmp_path / 'a.npy', np.arange(10))
    content = (tmp_path / 'a.npy').read_bytes()
    (tmp_path / 'a.npy').write_bytes(content[:-4])
    read = read_npy()
    assert read(Row(tmp_path / 'a.npy', 8)) == 8
    with pytest.raises(ValueError, match=r"a\.npy' ends within row 9; write it again"):
        read(Row(tmp_path / 'a.npy', 9))


@pytest.mark.parametrize(
    ('content', 'values'),
    [
        ('{"a": 1}\n[2, 3]\n"text"\nnull\n1.5', [{'a': 1}, [2, 3], 'text', None, 1.5]),
        ('\n\n1\n  \n2\r\n\r\n3\n\n', [1, 2, 3]),
        ('', []),
        ('\n', []),
        ('"a\u2028b ä"\n2', ['a\u2028b ä', 2]),
    ],
)
def test_each_line_that_is_not_empty_is_a_row(content, values, tmp_path):
    (tmp_path / 'a.jsonl').write_bytes(content.encode())
    for _ in range(2):  # the second time with the index of the first
        assert samples_of(read_json_lines(), str(tmp_path / 'a.jsonl')) == values


@pytest.mark.parametrize(
    ('compress', 'name'), [(gzip.compress, 'gzip'), (bz2.compress, 'bzip2'), (lzma.compress, 'xz')]
)
@pytest.mark.parametrize('reader', [read_json_lines, read_tar])
def test_compressed_files_are_refused(reader, compress, name, tmp_path):
    (tmp_path / 'a').write_bytes(compress(b'1\n2\n'))
    with pytest.raises(ValueError, match=rf"a' is compressed by {name}, .* read it as a stream, with flatten"):
        reader().lengths([tmp_path / 'a'])


FOLDER, LINK = {'type': tarfile.DIRTYPE}, {'type': tarfile.SYMTYPE}


def write_tar(path, members):
    with tarfile.open(path, 'w') as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type = content['type']
                archive.addfile(info)


def test_members_are_one_sample_if_their_names_are_equal_up_to_the_first_dot(tmp_path):
    members = [
        ('folder', FOLDER),
        ('folder/1.jpg', b'one'),
        ('folder/1.seg.png', b''),
        ('folder/2.jpg', b'two'),
        ('v1.0/2.jpg', b'three'),
        ('readme', b'four'),
        ('x' * 150 + '.txt', b'a name beyond the header'),
    ]
    write_tar(tmp_path / 'a.tar', members)
    assert samples_of(read_tar(), tmp_path / 'a.tar') == [
        {'__key__': 'folder/1', 'jpg': b'one', 'seg.png': b''},
        {'__key__': 'folder/2', 'jpg': b'two'},
        {'__key__': 'v1.0/2', 'jpg': b'three'},
        {'__key__': 'readme', '': b'four'},
        {'__key__': 'x' * 150, 'txt': b'a name beyond the header'},
    ]


def test_a_name_is_not_taken_for_a_compression(tmp_path):
    write_tar(tmp_path / 'a.tar', [('BZh.txt', b'one')])
    assert samples_of(read_tar(), tmp_path / 'a.tar') == [{'__key__': 'BZh', 'txt': b'one'}]


@pytest.mark.parametrize(
    ('members', 'message'),
    [
        ([('1.jpg', b'one'), ('1.jpg', b'two')], "has two members '1.jpg' in a row"),
        ([('1.jpg', b'one'), ('2.jpg', LINK)], "the member '2.jpg', which is no plain file"),
    ],
)
def test_members_that_would_be_lost_are_an_error(members, message, tmp_path):
    write_tar(tmp_path / 'a.tar', members)
    with pytest.raises(ValueError, match=message):
        read_tar().lengths([tmp_path / 'a.tar'])


def test_parquet_keeps_types_and_nulls(tmp_path):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    columns = {
        'small': (pa.int8(), [1, -2]),
        'half': (pa.float32(), [1.5, None]),
        'flag': (pa.bool_(), [None, True]),
        'large': (pa.int64(), [2**60 + 1, None]),
        'text': (pa.string(), ['ä', None]),
        'raw': (pa.binary(), [b'a\0', b'']),
        'vector': (pa.list_(pa.float32()), [[1, 2], None]),
        'fixed': (pa.list_(pa.uint8(), 2), [[1, 2], [3, 4]]),
        'names': (pa.list_(pa.string()), [['a'], []]),
        'with_null': (pa.list_(pa.int32()), [[1, None], []]),
        'record': (pa.struct({'x': pa.int32()}), [{'x': 1}, None]),
        'category': (pa.dictionary(pa.int8(), pa.string()), ['a', 'b']),
    }
    table = pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})
    parquet.write_table(table, tmp_path / 'a.parquet')
    first, second = samples_of(read_parquet(), tmp_path / 'a.parquet')
    assert same(
        first,
        {
            'small': np.int8(1),
            'half': np.float32(1.5),
            'flag': None,
            'large': np.int64(2**60 + 1),
            'text': 'ä',
            'raw': b'a\0',
            'vector': np.array([1, 2], np.float32),
            'fixed': np.array([1, 2], np.uint8),
            'names': ['a'],
            'with_null': [1, None],
            'record': {'x': 1},
            'category': 'a',
        },
    )
    assert second['half'] is second['large'] is second['text'] is second['vector'] is second['record'] is None
    assert same(second['flag'], np.True_)
    assert same(second['fixed'], np.array([3, 4], np.uint8))
    assert second['fixed'].flags.writeable


def test_a_row_group_is_read_once_while_it_fits(tmp_path, monkeypatch):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    parquet.write_table(pa.table({'x': np.arange(80.0)}), tmp_path / 'a.parquet', row_group_size=10)
    read_group, groups = parquet.ParquetFile.read_row_group, []

    def counted(file, group, **options):
        groups.append(group)
        return read_group(file, group, **options)

    monkeypatch.setattr(parquet.ParquetFile, 'read_row_group', counted)
    shuffled = np.random.default_rng(0).permutation(80).tolist()
    read = read_parquet()
    assert [read(Row(tmp_path / 'a.parquet', number))['x'] for number in shuffled] == shuffled
    assert sorted(groups) == list(range(8))
    groups.clear()
    small = read_parquet(cache_bytes=160)  # two row groups
    assert [small(Row(tmp_path / 'a.parquet', number))['x'] for number in shuffled] == shuffled
    assert len(groups) > 40
    groups.clear()
    assert [small(Row(tmp_path / 'a.parquet', number))['x'] for number in range(80)] == list(range(80))
    assert groups == list(range(8))


def test_hdf5_gives_strings_scalars_and_inner_columns(tmp_path):
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file['text'] = ['ä', 'b', '']
        file['raw'] = np.array([b'a', b'bc', b''])
        file['train/x'] = np.arange(6, dtype=np.float32).reshape(3, 2)
        file.create_dataset('packed', data=np.arange(3), chunks=(2,), compression='gzip')
        file.create_dataset('words', data=['x', 'y', 'z'], chunks=(2,), dtype=h5py.string_dtype())
    assert same(
        samples_of(read_hdf5(), tmp_path / 'a.h5')[1],
        {'packed': np.int64(1), 'raw': np.bytes_(b'bc'), 'text': 'b', 'words': 'y'},
    )
    assert same(
        samples_of(read_hdf5(['train/x', 'packed']), tmp_path / 'a.h5')[2],
        {'train/x': np.array([4, 5], np.float32), 'packed': np.int64(2)},
    )


def test_columns_of_unequal_length_are_an_error(tmp_path):
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file['x'], file['y'], file['z'] = np.zeros(3), np.zeros(4), 7
    with pytest.raises(ValueError, match=r'must be equally long, got x 3, y 4, z no axes; choose some by columns='):
        read_hdf5().lengths([tmp_path / 'a.h5'])
    assert read_hdf5(['y']).lengths([tmp_path / 'a.h5']) == [4]
    with h5py.File(tmp_path / 'b.h5', 'w'):
        pass
    with pytest.raises(ValueError, match='got no columns'):
        read_hdf5().lengths([tmp_path / 'b.h5'])


def test_a_chunk_of_zarr_is_read_once_while_it_fits(tmp_path, monkeypatch):
    zarr = pytest.importorskip('zarr')
    group = zarr.open_group(str(tmp_path / 'a.zarr'), mode='w')
    group.create_array('x', data=np.arange(40), chunks=(10,))
    group.create_array('inner/y', data=np.arange(40.0), chunks=(1,))
    read_part, parts = zarr.Array.__getitem__, []
    monkeypatch.setattr(zarr.Array, '__getitem__', lambda array, part: parts.append(part) or read_part(array, part))
    read = read_zarr(['x', 'inner/y'])
    assert same(read(Row(tmp_path / 'a.zarr', 13)), {'x': np.int64(13), 'inner/y': np.float64(13)})
    for number in np.random.default_rng(0).permutation(40).tolist():
        assert read(Row(tmp_path / 'a.zarr', number))['x'] == number
    assert sum(isinstance(part, slice) for part in parts) == 4


@pytest.mark.parametrize('name', ['parquet', 'hdf5', 'zarr'])
def test_what_is_kept_of_a_file_is_not_used_for_another_in_its_place(name, tmp_path):
    kind = kind_of(name)
    files, _ = write_files(kind, tmp_path, [3, 3])
    read = kind.reader(max_open_files=1)
    assert same(read(Row(files[0], 1)), kind.expected(1))
    read(Row(files[1], 1))  # the other one is closed
    kind.write(Path(files[0]), [7, 8, 9])
    assert same(read(Row(files[0], 1)), kind.expected(8))


@given(st.lists(st.tuples(st.sampled_from('abcdef'), st.integers(0, 5)), max_size=40), st.integers(1, 12))
def test_blocks_that_are_kept_fit_into_the_bytes_or_are_one(wanted, most):
    blocks, sizes = Blocks(most), {}
    for key, size in wanted:
        assert blocks.get(key, lambda size=size: (size, size)) == sizes.setdefault(key, size)
        kept = [block for block, _ in blocks._kept.values()]
        assert blocks._bytes == sum(kept)
        assert sum(kept) <= most or len(kept) == 1
        sizes = {key: size for key, size in sizes.items() if key in blocks._kept}

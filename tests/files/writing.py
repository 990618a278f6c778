"""Files of each kind for the tests, with the samples that are in them."""

import io
import json
import tarfile
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipekit import read_hdf5, read_json_lines, read_npy, read_parquet, read_tar, read_zarr

LENGTHS = [5, 0, 12, 1, 7]


class Kind(NamedTuple):
    ending: str
    write: Any  # a function of a path and the numbers of the samples
    reader: Any
    expected: Any  # the sample of a number


def write_npy(path, numbers):
    np.save(path, np.repeat(np.array(numbers, np.int32), 2).reshape(-1, 2))


def write_json_lines(path, numbers):
    path.write_text(''.join(json.dumps({'number': number, 'text': 'ä' * number}) + '\n' for number in numbers), 'utf-8')


def write_tar(path, numbers):
    with tarfile.open(path, 'w') as archive:
        for number in numbers:
            for ending, content in ('txt', b'x' * number), ('json', json.dumps(number).encode()):
                info = tarfile.TarInfo(f'folder/{number:03}.{ending}')
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def write_parquet(path, numbers):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    table = pa.table({'number': pa.array(numbers, pa.int32()), 'text': pa.array(map(str, numbers), pa.string())})
    parquet.write_table(table, path, row_group_size=3)


def write_hdf5(path, numbers):
    h5py = pytest.importorskip('h5py')
    with h5py.File(path, 'w') as file:
        images = np.array(numbers, np.uint8)[:, None] * np.ones(4, np.uint8)
        file.create_dataset('images', data=images, maxshape=(None, 4), chunks=(3, 4))
        file['labels'] = np.array(numbers)


def write_zarr(path, numbers):
    zarr = pytest.importorskip('zarr')
    group = zarr.open_group(str(path), mode='w')
    images = np.array(numbers, np.uint8)[:, None] * np.ones(4, np.uint8)
    group.create_array('images', data=images, chunks=(3, 4))
    group.create_array('labels', data=np.array(numbers, np.int64))


def image(number):
    return {'images': np.full(4, number, np.uint8), 'labels': np.int64(number)}


KINDS = {
    'npy': Kind('.npy', write_npy, read_npy, lambda number: np.array([number, number], np.int32)),
    'json_lines': Kind(
        '.jsonl', write_json_lines, read_json_lines, lambda number: {'number': number, 'text': 'ä' * number}
    ),
    'tar': Kind(
        '.tar',
        write_tar,
        read_tar,
        lambda number: {'__key__': f'folder/{number:03}', 'txt': b'x' * number, 'json': json.dumps(number).encode()},
    ),
    'parquet': Kind(
        '.parquet', write_parquet, read_parquet, lambda number: {'number': np.int32(number), 'text': str(number)}
    ),
    'hdf5': Kind('.h5', write_hdf5, read_hdf5, image),
    'zarr': Kind('.zarr', write_zarr, read_zarr, image),
}
PACKAGES = {'parquet': 'pyarrow', 'hdf5': 'h5py', 'zarr': 'zarr'}


def kind_of(name):
    """A kind whose package is installed; else the test is skipped."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    return KINDS[name]


def write_files(kind, folder, lengths=LENGTHS):
    """Files of some lengths, and the numbers of the samples in each."""
    files, numbers, first = [], [], 0
    for index, length in enumerate(lengths):
        files.append(folder / f'part-{index}{kind.ending}')
        numbers.append(list(range(first, first + length)))
        kind.write(files[-1], numbers[-1])
        first += length
    return list(map(str, files)), numbers

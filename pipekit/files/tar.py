"""Rows of tar files: members with one name and several endings are a sample."""

from __future__ import annotations

import posixpath
import tarfile
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from ..describing.descriptions import described
from ..describing.display import code
from .index import index_of
from .opening import (
    BUFFER_BYTES,
    LONGEST_BEGINNING,
    ONE_REQUEST,
    StorageOptions,
    check_uncompressed,
    name_of,
    open_file,
)
from .reader import MAX_OPEN_FILES, Blocks, Reader

Member: TypeAlias = tuple[str, str, int, int]  # its key and its ending, where it begins, and how long it is


@described
def read_tar(
    *, max_open_files: int = MAX_OPEN_FILES, storage_options: StorageOptions = None
) -> Reader[dict[str, str | bytes]]:
    """A sample function that reads a sample of a tar file: a dict of the bytes of its members, by their endings.

    Consecutive members whose names are equal up to the first dot are one sample, as in WebDataset: ``7.jpg`` and
    ``7.cls`` give ``{'__key__': '7', 'jpg': ..., 'cls': ...}``.

    Where the members are is found once, by reading through the file, and kept beside it: ``a.tar.index``. If its folder
    cannot be written to, it is kept in memory. URLs need the extra ``files``; a sample is one request.

    Parameters
    ----------
    max_open_files, storage_options
        As for ``read_parquet``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. When called, if the file is compressed, has members that are not plain files or
        have equal names, has changed since its index was built, or has other rows than was said.

    Examples
    --------
    >>> import io, tarfile, tempfile
    >>> from pipekit import Row
    >>> name = tempfile.mkdtemp() + '/a.tar'
    >>> with tarfile.open(name, 'w') as file:
    ...     for member, content in [('7.jpg', b'pixels'), ('7.cls', b'3')]:
    ...         info = tarfile.TarInfo(member)
    ...         info.size = len(content)
    ...         file.addfile(info, io.BytesIO(content))
    >>> read = read_tar()
    >>> read.lengths([name])
    [1]
    >>> read(Row(name, 0))
    {'__key__': '7', 'jpg': b'pixels', 'cls': b'3'}
    """
    return Reader(partial(TarTable, storage_options), max_open_files)


class TarTable:
    """An open tar file."""

    def __init__(self, options: StorageOptions, file: Any, blocks: Blocks):
        self._samples = index_of(file, options, partial(samples_of, file, options))
        self.length = len(self._samples)
        self._file = file
        self._source = open_file(file, options, **ONE_REQUEST)

    def row(self, number: int) -> dict[str, str | bytes]:
        key, members = self._samples[number]
        first = members[0][1]
        end = max(start + size for _, start, size in members)
        self._source.seek(first)
        content = self._source.read(end - first)
        if len(content) < end - first:
            raise ValueError(f'{name_of(self._file)} ends within the sample {code(key)}; write it again')
        parts = {ending: content[start - first : start - first + size] for ending, start, size in members}
        return {'__key__': key, **parts}

    def close(self) -> None:
        self._source.close()


def samples_of(file: Any, options: StorageOptions) -> list[Any]:
    """The samples of a tar file: the key of each, and its members as lists of ending, start and size."""
    with open_file(file, options) as source:
        check_uncompressed(source.read(LONGEST_BEGINNING), file)
        source.seek(0)
        with tarfile.open(fileobj=source, mode='r:', bufsize=BUFFER_BYTES) as archive:
            members = [_member(info, file) for info in archive if not info.isdir()]
    samples: list[Any] = []
    for key, group in groupby(members, itemgetter(0)):
        parts = [[ending, start, size] for _, ending, start, size in group]
        names = [ending for ending, _, _ in parts]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f'{name_of(file)} has two members {code(f"{key}.{twice}")} in a row; give them other names'
            )
        samples.append([key, parts])
    return samples


def _member(info: tarfile.TarInfo, file: Any) -> Member:
    if not info.isreg() or info.issparse():
        raise ValueError(
            f'{name_of(file)} has the member {code(info.name)}, which is no plain file; write it without that'
        )
    folder, name = posixpath.split(info.name)
    stem, _, ending = name.partition('.')
    return posixpath.join(folder, stem), ending, info.offset_data, info.size

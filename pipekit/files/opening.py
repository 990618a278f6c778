"""Files of any file system: local ones are opened directly, URLs through fsspec."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from ..errors import needs

StorageOptions: TypeAlias = Mapping[str, Any] | None

BUFFER_BYTES = 1 << 20
FEW_BLOCKS = {'cache_type': 'blockcache', 'block_size': BUFFER_BYTES, 'cache_options': {'maxblocks': 8}}
ONE_REQUEST = {'cache_type': 'none'}  # for each read
COMPRESSED = {  # by how they begin; a tar file may begin with any name
    'gzip': rb'\x1f\x8b',
    'bzip2': rb'BZh[1-9]1AY&SY',
    'xz': rb'\xfd7zXZ\x00',
    'zstd': rb'\x28\xb5\x2f\xfd',
}
LONGEST_BEGINNING = 10  # bytes
VERSIONS = ('ETag', 'etag', 'mtime', 'LastModified', 'updated', 'created')  # what file systems say of a file's content


def is_url(file: Any) -> bool:
    """Whether a file is opened by fsspec.

    Examples
    --------
    >>> is_url('s3://bucket/a.npy'), is_url('data/a.npy'), is_url(Path('a.npy'))
    (True, False, False)
    """
    return isinstance(file, str) and ('://' in file or '::' in file)


def name_of(file: Any) -> str:
    """The name of a file as code, which ``code`` would cut.

    Examples
    --------
    >>> name_of('a.npy'), name_of(Path('b.npy'))
    ("'a.npy'", "'b.npy'")
    """
    return repr(str(file))


def file_system(url: str, options: StorageOptions) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    with needs('files', f'opening {url}'):
        from fsspec.core import url_to_fs
    system, path = url_to_fs(url, **(options or {}))
    return system, path


def open_file(file: Any, options: StorageOptions, **caching: Any) -> IO[bytes]:
    """Open a file to read bytes from any part of it; ``caching`` is about what fsspec reads ahead."""
    if not is_url(file):
        return Path(file).open('rb')
    system, path = file_system(file, options)
    opened: IO[bytes] = system.open(path, 'rb', **caching)
    return opened


def version_of(file: Any, options: StorageOptions) -> dict[str, Any]:
    """What changes when a file is written anew: its size, and the time or the tag of its content."""
    if not is_url(file):
        found = Path(file).stat()
        return {'size': found.st_size, 'modified': str(np.datetime64(found.st_mtime_ns, 'ns'))}
    system, path = file_system(file, options)
    info = system.info(path)
    return {'size': info['size'], 'modified': str(next((info[name] for name in VERSIONS if info.get(name)), ''))}


def check_uncompressed(beginning: bytes, file: Any) -> None:
    """Check by the first bytes of a file that any part of it can be read."""
    for kind, pattern in COMPRESSED.items():
        if re.match(pattern, beginning):
            raise ValueError(
                f'{name_of(file)} is compressed by {kind}, so that its rows cannot be read one by one; decompress it, '
                'or read it as a stream, with flatten()'
            )


def read_if_there(file: Any, options: StorageOptions) -> bytes | None:
    """The content of a file, or ``None`` if there is no such file."""
    try:
        with open_file(file, options) as opened:
            return opened.read()
    except FileNotFoundError:
        return None


def write_if_allowed(file: Any, content: bytes, options: StorageOptions) -> bool:
    """Write a file as a whole: nobody sees a part of it. Returns whether that is possible."""
    try:
        if is_url(file):
            system, path = file_system(file, options)
            system.pipe_file(path, content)
        else:
            _replace(Path(file), content)
    except (OSError, NotImplementedError):
        return False
    return True


def _replace(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(descriptor, 'wb') as opened:
            opened.write(content)
        Path(name).chmod(0o644)  # not for the owner alone, as temporary files are
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise

"""Indexes: where the rows of a file begin, found by reading it once, and kept beside the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .opening import StorageOptions, is_url, name_of, read_if_there, version_of, write_if_allowed

FORMAT = 1

_unwritten: dict[tuple[str, str], list[Any]] = {}  # indexes that could not be written, by file and version


def index_of(file: Any, options: StorageOptions, build: Callable[[], list[Any]]) -> list[Any]:
    """The index of a file: that beside it, or a new one, which is written beside it where that is allowed.

    Raises
    ------
    ValueError
        If the file has changed since its index was written.
    """
    name = index_name(file)
    version = version_of(file, options)
    content = read_if_there(name, options)
    if content is not None:
        return _checked(content, version, name, file)
    key = str(file), json.dumps(version)
    if key not in _unwritten:
        rows = build()
        text = json.dumps({'format': FORMAT, 'of': version, 'rows': rows}, separators=(',', ':'))
        if write_if_allowed(name, text.encode(), options):
            return rows
        _unwritten[key] = rows
    return _unwritten[key]


def index_name(file: Any) -> str:
    """The name of the index of a file.

    Examples
    --------
    >>> index_name('a.tar'), index_name('zip://a.tar::s3://bucket/b.zip')
    ('a.tar.index', 'zip://a.tar.index::s3://bucket/b.zip')
    """
    first, *others = str(file).split('::') if is_url(file) else [str(file)]
    return '::'.join([f'{first}.index', *others])


def _checked(content: bytes, version: dict[str, Any], name: str, file: Any) -> list[Any]:
    try:
        index = json.loads(content)
        of, rows, is_known = index['of'], index['rows'], index['format'] == FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{name} is no index of {name_of(file)}; delete it, and it is built again') from error
    if not is_known:
        raise ValueError(f'{name} is of another version of pipekit; delete it, and it is built again')
    if of != version:
        raise ValueError(
            f'the index {name} is stale: it was built when {name_of(file)} had {_told(of)}, and now that has '
            f'{_told(version)}; delete the index, and it is built again'
        )
    found: list[Any] = rows
    return found


def _told(version: dict[str, Any]) -> str:
    return f'{version.get("size")} bytes (of {version.get("modified")})'

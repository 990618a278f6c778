"""A batch as a figure: its images in a grid, their labels as titles, and the shapes of all fields."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import islice, product
from math import ceil, sqrt
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from more_itertools import chunked

from ..describing.arguments import positive_int
from ..describing.display import code, structure
from ..describing.structures import fields_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[Any]

GREY = '#7d7d7d'  # readable on white as well as on black
CHANNEL_COUNTS = (1, 3, 4)
MIN_SIDE_PIXELS = 8  # smaller arrays, such as boxes, count as images only if there are no larger ones
MAX_CLASSES = 32  # integers below it are the classes of a mask rather than brightness
CELL_INCHES, MIN_WIDTH_INCHES, LINE_INCHES = 1.5, 4.5, 0.17
CHARACTERS_PER_INCH = 14
MAX_LABEL_CHARACTERS, MAX_LABELS = 24, 3
NO_ARRAY = np.empty(())


class Field(NamedTuple):
    """A field of a batch: its path from the batch, its key, its value, and that as an array with an axis of samples."""

    path: str
    key: Hashable
    value: Any
    array: Array  # without axes if the value is not an array


def show(batch: Any, *, most: int = 16) -> Figure:
    """Draw the images in a batch, with the labels as titles and the shapes of all fields below.

    Images are the fields with a 2-D or 3-D array per sample: a grey image, an image with one, three or four channels
    first or last, or a volume, of which the middle slice is drawn. ``uint8`` values and floats between 0 and 1 are
    drawn as they are. Other values, and masks, are rescaled to the range of the field. Labels are the fields with a
    number or a string per sample.

    No window opens: a notebook displays the figure if it is the last value of a cell, and ``savefig`` writes it to a
    file. Needs the extra ``plot``.

    Parameters
    ----------
    batch
        A batch as ``combine_batches`` makes it: arrays in tuples, dicts or dataclasses, nested or not.
    most
        The largest number of samples to draw, from the first one on.

    Raises
    ------
    ValueError
        If there are no images in the batch; shows the structure of the batch.
    ModuleNotFoundError
        If the extra is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> figure = show((np.zeros((30, 1, 28, 28)), np.arange(30)), most=4)
    >>> [axes.get_title() for axes in figure.axes]
    ['0', '1', '2', '3']
    >>> print(figure.get_supxlabel())
    4 of 30 samples
    batch[0]: float64[30, 1, 28, 28], from 0 to 0
    batch[1]: int64[30]
    """
    most = positive_int('most', most)
    fields = list(_fields(batch, 'batch', ''))
    images = _images(fields)
    if not images:
        raise ValueError(
            f'found no images in the batch, {structure(batch)}; '
            'images are 2-D or 3-D arrays, one for each sample, along the first axis of a field'
        )
    n = len(images[0].array)
    shown = min(n, most)
    labels = [field for field in fields if field.array.shape == (n,)][:MAX_LABELS]
    pictures = [_pictures(field.array[:shown]) for field in images]
    count = f'{shown}{f" of {n}" if shown < n else ""} sample{"s" if n > 1 else ""}'
    paths = {field.path for field in images}
    figure, cells = _grid(pictures, len(labels), [count, *(_line(field, field.path in paths) for field in fields)])
    for number, cell in enumerate(cells):
        for axes, field, drawn in zip(cell, images, pictures, strict=True):
            _draw(axes, drawn[number], _name(field) if len(images) > 1 else '')
        title = '\n'.join(_label(field, number) for field in labels)
        cell[0].set_title(title, fontsize='small', color=GREY, parse_math=False)
    return figure


def _fields(value: Any, path: str, key: Hashable) -> Iterator[Field]:
    inner = None if _is_column(value) else fields_of(value)
    if inner is None:
        yield Field(path, key, value, _as_array(value))
        return
    are_columns = _are_columns(value)
    for name, part in inner:
        is_attribute = isinstance(name, str) and not hasattr(value, 'keys')
        part_path = f'{path}.{name}' if is_attribute else f'{path}[{code(name)}]'
        yield from _fields(list(part) if are_columns else part, part_path, name)


def _is_column(value: Any) -> bool:
    # What combine_to_tuples makes of a field of scalars. A tuple of arrays could also be a tuple of fields.
    scalars = str, bytes, int, float, np.generic
    return type(value) is tuple and len(value) > 0 and all(isinstance(part, scalars) for part in value)


def _are_columns(value: Any) -> bool:
    parts = [part for _, part in fields_of(value) or ()]
    same = all(type(part) is tuple for part in parts) and len(set(map(len, parts))) == 1
    return same and any(map(_is_column, parts))


def _as_array(value: Any) -> Array:
    if not isinstance(value, list | tuple) and not hasattr(value, '__array__'):
        return NO_ARRAY
    try:
        return np.asarray(value)
    except Exception:  # it may be ragged, or in the memory of another device
        return NO_ARRAY


def _images(fields: Sequence[Field]) -> list[Field]:
    sides = [_shorter_side(field.array) for field in fields]
    least = max(min(MIN_SIDE_PIXELS, max(sides, default=0)), 2)
    images = [field for field, side in zip(fields, sides, strict=True) if side >= least]
    return [field for field in images if len(field.array) == len(images[0].array)]


def _shorter_side(array: Array) -> int:
    """The shorter side of the images in an array, 0 if it has none."""
    if array.ndim not in (3, 4, 5) or array.dtype.kind not in 'buif' or not array.size:
        return 0
    return _shorter_side_without(array, _channel_axis(array))


def _shorter_side_without(array: Array, channels: int | None) -> int:
    sizes: list[int] = [size for axis, size in enumerate(array.shape) if axis not in (0, channels)]
    return min(sizes[-2:])


def _channel_axis(array: Array) -> int | None:
    if array.ndim == 3:
        return None
    axes = [axis for axis in (1, array.ndim - 1) if array.shape[axis] in CHANNEL_COUNTS]
    if not axes:
        return 1 if array.ndim == 5 else None
    return max(axes, key=lambda axis: _shorter_side_without(array, axis))


def _pictures(array: Array) -> Array:
    """The images to draw: samples, height, width, and RGB channels if there are any, with values from 0 to 1."""
    channels = _channel_axis(array)
    has_colors = channels is not None and array.shape[channels] in (3, 4)
    if channels is not None:
        array = np.moveaxis(array, channels, -1)
        array = array[..., :3] if has_colors else array[..., 0]
    if array.ndim == 4 + has_colors:
        array = array[:, array.shape[1] // 2]
    return _rescaled(array, has_colors)


def _rescaled(array: Array, has_colors: bool) -> Array:
    low, high = _finite_range(array) or (0.0, 1.0)
    is_mask = array.dtype.kind in 'ui' and high < MAX_CLASSES and not has_colors
    if array.dtype == np.uint8 and not is_mask:
        low, high = 0.0, 255.0
    elif 0 <= low <= high <= 1 and not is_mask:
        low, high = 0.0, 1.0
    values = (array.astype(np.float64) - low) / (high - low or 1.0)
    return np.clip(np.nan_to_num(values, nan=0.0), 0.0, 1.0)


def _finite_range(array: Array) -> tuple[float, float] | None:
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _name(field: Field) -> str:
    return field.key if isinstance(field.key, str) and field.key else field.path


def _label(field: Field, number: int) -> str:
    value = field.array[number]
    value = value.item() if isinstance(value, np.generic) else value
    text = f'{value:.4g}' if isinstance(value, float) else value if isinstance(value, str) else code(value)
    text = f'{field.key}: {text}' if isinstance(field.key, str) and field.key else text
    return text if len(text) <= MAX_LABEL_CHARACTERS else f'{text[: MAX_LABEL_CHARACTERS - 3]}...'


def _line(field: Field, is_image: bool) -> str:
    limits = _finite_range(field.array) if is_image else None
    return f'{field.path}: {structure(field.value)}' + (f', from {limits[0]:.4g} to {limits[1]:.4g}' if limits else '')


def _grid(pictures: Sequence[Array], n_labels: int, lines: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure with some lines of text below, and the axes of each sample: side by side, one per image."""
    from .figures import Picture  # needs the extra `plot`

    n_images, n_samples = len(pictures), len(pictures[0])
    height, width = pictures[0].shape[1:3]
    ratio = min(max(height / width, 0.4), 2.5)
    per_row = min(n_samples, max(1, ceil(sqrt(n_samples * ratio / n_images))))
    n_rows = ceil(n_samples / per_row)
    cell = 2 * CELL_INCHES if n_samples == 1 else CELL_INCHES
    figure_width = max(cell * per_row * n_images, MIN_WIDTH_INCHES)
    per_line = int(figure_width * CHARACTERS_PER_INCH)
    text = [part for line in lines for part in wrap(line, per_line, subsequent_indent='    ')]
    row_height = cell * ratio + LINE_INCHES * (n_labels + (n_images > 1)) + 0.1
    size = figure_width, n_rows * row_height + LINE_INCHES * (len(text) + 1)
    figure = Picture(figsize=size, facecolor='none', layout='constrained')
    figure.supxlabel('\n'.join(text), x=0.01, ha='left', fontsize='small', color=GREY, parse_math=False)
    spec = figure.add_gridspec(n_rows, per_row * n_images)
    places = islice(product(range(n_rows), range(per_row * n_images)), n_samples * n_images)
    axes = (figure.add_subplot(spec[place]) for place in places)
    return figure, list(chunked(axes, n_images))


def _draw(axes: Axes, picture: Array, name: str) -> None:
    axes.imshow(picture, cmap='gray', vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(name, fontsize='small', color=GREY, parse_math=False)
    for spine in axes.spines.values():
        spine.set(color=GREY, linewidth=0.5)


show.__module__ = 'pipekit'

"""A batch as a picture: its images in a grid, their labels, and the shapes of the rest."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from math import ceil, sqrt
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..describing.arguments import positive_int
from ..describing.display import code, structure
from ..describing.structures import fields_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[Any]

INK = '#7d7d7d'  # to be read on white as well as on black
CHANNELS = (1, 3, 4)
SMALLEST = 8  # pixels: what has fewer on a side, as boxes have, is an image only where there are no larger ones
MASK = 32  # classes: integers below it are no brightness
CELL, NARROWEST, LINE = 1.5, 4.5, 0.17  # inches
LETTERS = 14  # that fit into an inch
LONGEST_LABEL, MOST_LABELS = 24, 3


class Field(NamedTuple):
    """A field of a batch: where it is in the batch, its key, and its value as an array if it is one of samples."""

    path: str
    key: Hashable
    value: Any
    array: Array | None


def show(batch: Any, *, most: int = 16) -> Figure:
    """Draw the images in a batch, with the labels as their titles and the shapes of all fields below.

    Images are the fields with a 2-D or 3-D array for each sample: one of two axes, or one with one, three or four
    channels before or after them, or a volume, of which the middle slice is drawn. Bytes are drawn as they are, and so
    are numbers in 0..1; others, and masks, are stretched to their range, which is one for all images of a field. Labels
    are the fields with a number or a string for each sample.

    Nothing is put on a screen: a notebook shows a figure that a cell ends with, and ``savefig`` writes it to a file.
    Needs the extra ``plot``.

    Parameters
    ----------
    batch
        A batch as ``combine_batches`` makes it: arrays in tuples, dicts or dataclasses, nested or not.
    most
        The largest number of samples to draw, from the first one on.

    Raises
    ------
    ValueError
        If there are no images in the batch; says what is.
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
    n = len(next(iter(images.values())))
    shown = min(n, most)
    pictures = {field: _pictures(array, shown) for field, array in images.items()}
    labels = [fields[number] for number in _labels(fields, n)]
    of = f' of {n}' if shown < n else ''
    lines = [
        f'{shown}{of} sample{"s" if n > 1 else ""}',
        *(_line(field, k in images) for k, field in enumerate(fields)),
    ]
    figure, cells = _grid(list(pictures.values()), len(labels), lines)
    for number in range(shown):
        for axes, (k, drawn) in zip(cells[number], pictures.items(), strict=True):
            _draw(axes, drawn[number], _name(fields[k]) if len(pictures) > 1 else '')
        title = '\n'.join(_label(field, number) for field in labels)
        cells[number][0].set_title(title, fontsize='small', color=INK, parse_math=False)
    return figure


def _fields(value: Any, path: str, key: Hashable) -> Iterator[Field]:
    inner = None if _is_column(value) else fields_of(value)
    if inner is None:
        yield Field(path, key, value, _array(value))
        return
    are_columns = _are_columns(value)
    for name, part in inner:
        is_attribute = isinstance(name, str) and not hasattr(value, 'keys')
        part_path = f'{path}.{name}' if is_attribute else f'{path}[{code(name)}]'
        yield from _fields(list(part) if are_columns else part, part_path, name)


def _is_column(value: Any) -> bool:
    # What combine_to_tuples makes of a field: of arrays, it might as well be a tuple of fields.
    scalars = str, bytes, int, float, np.generic
    return type(value) is tuple and len(value) > 0 and all(isinstance(part, scalars) for part in value)


def _are_columns(value: Any) -> bool:
    parts = [part for _, part in fields_of(value) or ()]
    same = all(type(part) is tuple for part in parts) and len(set(map(len, parts))) == 1
    return same and any(map(_is_column, parts))


def _array(value: Any) -> Array | None:
    if not isinstance(value, list | tuple) and not hasattr(value, '__array__'):
        return None
    try:
        array = np.asarray(value)
    except Exception:  # it may be ragged, or in the memory of another device
        return None
    return array if array.ndim else None


def _images(fields: Sequence[Field]) -> dict[int, Array]:
    # By their number among the fields.
    sides = {k: _side(field.array) for k, field in enumerate(fields) if field.array is not None}
    least = min(SMALLEST, max(sides.values(), default=0))
    images = {
        k: array for k, field in enumerate(fields) if (array := field.array) is not None and sides[k] >= least > 1
    }
    n = len(next(iter(images.values()), ()))
    return {k: array for k, array in images.items() if len(array) == n}


def _side(array: Array) -> int:
    """The shorter side of the images, or 0 if there are none."""
    if array.ndim not in (3, 4, 5) or array.dtype.kind not in 'buif' or not array.size:
        return 0
    return _side_without(array, _channels(array))


def _side_without(array: Array, channels: int | None) -> int:
    sizes: list[int] = [size for axis, size in enumerate(array.shape) if axis not in (0, channels)]
    return min(sizes[-2:])


def _channels(array: Array) -> int | None:
    """The axis of the channels, if there is one."""
    if array.ndim == 3:
        return None
    axes = [axis for axis in (1, array.ndim - 1) if array.shape[axis] in CHANNELS]
    if not axes:
        return 1 if array.ndim == 5 else None
    return max(axes, key=lambda axis: _side_without(array, axis))


def _pictures(array: Array, shown: int) -> Array:
    """What is drawn of each sample: height, width, and red, green and blue if it has them, from 0 to 1."""
    array, channels = array[:shown], _channels(array)
    has_colors = channels is not None and array.shape[channels] in (3, 4)
    if channels is not None:
        array = np.moveaxis(array, channels, -1)
        array = array[..., :3] if has_colors else array[..., 0]
    if array.ndim == 4 + has_colors:
        array = array[:, array.shape[1] // 2]
    return _stretched(array, has_colors)


def _stretched(array: Array, has_colors: bool) -> Array:
    low, high = _range(array) or (0.0, 1.0)
    is_mask = array.dtype.kind in 'ui' and high < MASK and not has_colors
    if array.dtype == np.uint8 and not is_mask:
        low, high = 0.0, 255.0
    elif 0 <= low <= high <= 1 and not is_mask:
        low, high = 0.0, 1.0
    values = (array.astype(np.float64) - low) / (high - low or 1.0)
    return np.clip(np.nan_to_num(values, nan=0.0), 0.0, 1.0)


def _range(array: Array) -> tuple[float, float] | None:
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _labels(fields: Sequence[Field], n: int) -> list[int]:
    shapes = [() if field.array is None else field.array.shape for field in fields]
    return [k for k, shape in enumerate(shapes) if shape == (n,)][:MOST_LABELS]


def _name(field: Field) -> str:
    return field.key if isinstance(field.key, str) and field.key else field.path


def _label(field: Field, number: int) -> str:
    assert field.array is not None
    value = field.array[number]
    value = value.item() if isinstance(value, np.generic) else value
    text = f'{value:.4g}' if isinstance(value, float) else value if isinstance(value, str) else code(value)
    text = f'{field.key}: {text}' if isinstance(field.key, str) and field.key else text
    return text if len(text) <= LONGEST_LABEL else f'{text[: LONGEST_LABEL - 3]}...'


def _line(field: Field, is_image: bool) -> str:
    limits = _range(field.array) if is_image and field.array is not None else None
    return f'{field.path}: {structure(field.value)}' + (f', from {limits[0]:.4g} to {limits[1]:.4g}' if limits else '')


def _grid(pictures: Sequence[Array], labels: int, lines: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    from .figures import Picture  # needs the extra `plot`

    # A sample has as many cells, side by side, as it has images.
    shown, *_ = map(len, pictures)
    together = len(pictures)
    height, width = pictures[0].shape[1:3]
    ratio = min(max(height / width, 0.4), 2.5)
    per_row = min(shown, max(1, ceil(sqrt(shown * ratio / together))))
    rows = ceil(shown / per_row)
    cell = 2 * CELL if shown == 1 else CELL
    figure_width = max(cell * per_row * together, NARROWEST)
    text = [part for line in lines for part in wrap(line, int(figure_width * LETTERS), subsequent_indent='    ')]
    row_height = cell * ratio + LINE * (labels + (together > 1)) + 0.1
    figure = Picture(
        figsize=(figure_width, rows * row_height + LINE * (len(text) + 1)), facecolor='none', layout='constrained'
    )
    figure.supxlabel('\n'.join(text), x=0.01, ha='left', fontsize='small', color=INK, parse_math=False)
    spec = figure.add_gridspec(rows, per_row * together)
    places = [divmod(number, per_row) for number in range(shown)]
    return figure, [
        [figure.add_subplot(spec[row, column * together + k]) for k in range(together)] for row, column in places
    ]


def _draw(axes: Axes, picture: Array, name: str) -> None:
    axes.imshow(picture, cmap='gray', vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(name, fontsize='small', color=INK, parse_math=False)
    for spine in axes.spines.values():
        spine.set(color=INK, linewidth=0.5)

"""Figures of batches: the images that are drawn, their titles, and the list of fields below."""

import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from pipekit import combine_to_tuples, show

rng = np.random.default_rng(0)
GREY = rng.random((6, 12, 10))
COLORED = rng.random((6, 12, 10, 3))


def drawn(figure):
    """The images in a figure, with values from 0 to 1."""
    for axes in figure.axes:
        (image,) = axes.images
        assert (image.norm.vmin, image.norm.vmax) == (0, 1)
        yield np.asarray(image.get_array())


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def lines(figure):
    return figure.get_supxlabel().split('\n')


@pytest.mark.parametrize(
    ('images', 'expected'),
    [
        (GREY, GREY),
        (GREY[:, None], GREY),
        (GREY[..., None], GREY),
        (COLORED, COLORED),
        (np.moveaxis(COLORED, -1, 1), COLORED),
        (np.concatenate([COLORED, 0 * COLORED[..., :1]], -1), COLORED),
        ((COLORED * 255).astype(np.uint8), (COLORED * 255).astype(np.uint8) / 255),
        (GREY > 0.5, GREY > 0.5),
    ],
)
def test_images_are_drawn_wherever_their_channels_are(images, expected):
    np.testing.assert_allclose(list(drawn(show(images))), expected, atol=1e-12)


@pytest.mark.parametrize(
    'lead', [lambda x: x, lambda x: x[:, None], lambda x: x[..., None], lambda x: x[:, None] + [0]]
)
def test_the_middle_slice_of_a_volume_is_drawn(lead):
    volume = rng.random((2, 9, 12, 10))
    np.testing.assert_allclose(list(drawn(show(lead(volume)))), volume[:, 4])


def test_the_middle_slice_of_a_volume_in_colors_is_drawn_in_colors():
    volume = rng.random((2, 9, 12, 10, 3))
    np.testing.assert_allclose(list(drawn(show(volume))), volume[:, 4])
    np.testing.assert_allclose(list(drawn(show(np.moveaxis(volume, -1, 1)))), volume[:, 4])


def test_the_first_of_unknown_channels_is_drawn():
    volume = rng.random((2, 7, 9, 12, 10))
    np.testing.assert_allclose(list(drawn(show(volume))), volume[:, 0, 4])


@pytest.mark.parametrize(
    'images',
    [
        GREY * 2 - 1,
        GREY * 4000,
        (GREY * 4000).astype(np.int16),
        (GREY * 60000).astype(np.uint16),
        GREY.astype(np.float16) + 9,
    ],
)
def test_any_range_is_rescaled_to_that_of_the_field(images):
    pictures = np.array(list(drawn(show(images))))
    assert (pictures.min(), pictures.max()) == (0, 1)
    np.testing.assert_allclose(pictures, (GREY - GREY.min()) / (GREY.max() - GREY.min()), atol=0.01)


def test_a_mask_of_classes_is_visible():
    classes = np.arange(240).reshape(2, 12, 10) % 4
    np.testing.assert_allclose(list(drawn(show(classes.astype(np.uint8)))), classes / 3)


@pytest.mark.parametrize(
    'images', [GREY * np.nan, np.where(GREY > 0.5, np.inf, -5 * GREY), 0 * GREY + 7, COLORED * np.inf]
)
def test_infinities_and_constants_are_drawn_without_a_warning(images, tmp_path):
    show(images).savefig(tmp_path / 'batch.png')


@dataclass
class Sided:
    left: object
    right: object
    side: object


Scan = namedtuple('Scan', 'image label')


@pytest.mark.parametrize(
    ('batch', 'names'),
    [
        ((GREY, list('abcdef')), ['a', 'b', 'c', 'd', 'e', 'f']),
        ({'image': GREY, 'label': np.arange(6)}, [f'label: {number}' for number in range(6)]),
        (Scan(GREY, np.arange(6) / 3), [f'label: {number / 3:.4g}' for number in range(6)]),
        ((GREY, (np.arange(6) > 2, np.array(list('abcdef')))), [f'{k > 2}\n{name}' for k, name in enumerate('abcdef')]),
        ((GREY, {'of': {'age': np.arange(6)}}), [f'age: {number}' for number in range(6)]),
        ((GREY, np.array(['$x^2$ ' * 9] * 6)), ['$x^2$ $x^2$ $x^2$ $x^...'] * 6),
        ((GREY, np.arange(5)), [''] * 6),
        (combine_to_tuples([(GREY[k], k) for k in range(6)]), ['0', '1', '2', '3', '4', '5']),
    ],
)
def test_labels_are_the_titles(batch, names, tmp_path):
    figure = show(batch)
    assert titles(figure) == names
    figure.savefig(tmp_path / 'batch.png')


def test_the_images_of_a_sample_are_drawn_side_by_side():
    figure = show(Sided(GREY, 1 - GREY, np.arange(6)), most=2)
    np.testing.assert_allclose(list(drawn(figure)), [GREY[0], 1 - GREY[0], GREY[1], 1 - GREY[1]])
    assert [axes.get_xlabel() for axes in figure.axes] == ['left', 'right', 'left', 'right']
    assert titles(figure) == ['side: 0', '', 'side: 1', '']


def test_all_fields_are_listed_with_their_shapes():
    batch = {'image': GREY, 'boxes': np.zeros((6, 3, 4)), 'texts': ['a'] * 6, 'of': Scan(np.zeros((6, 9)), None)}
    figure = show(batch, most=4)
    assert len(figure.axes) == 4
    assert lines(figure) == [
        '4 of 6 samples',
        f"batch['image']: float64[6, 12, 10], from {GREY.min():.4g} to {GREY.max():.4g}",
        "batch['boxes']: float64[6, 3, 4]",
        "batch['texts']: [str] of 6",
        "batch['of'].image: float64[6, 9]",
        "batch['of'].label: NoneType",
    ]


def test_a_batch_of_one_and_small_images_are_drawn():
    figure = show(np.zeros((1, 1, 4, 4), np.uint8))
    assert lines(figure) == ['1 sample', 'batch: uint8[1, 1, 4, 4], from 0 to 0']
    assert next(drawn(figure)).shape == (4, 4)


@pytest.mark.parametrize(
    'batch',
    [
        None,
        3,
        'text',
        (),
        {},
        np.zeros(4),
        np.zeros((4, 9)),
        np.zeros((0, 9, 9)),
        np.zeros((4, 9, 9), complex),
        [[1], [2, 3]],
    ],
)
def test_a_batch_without_images_is_an_error(batch):
    with pytest.raises(
        ValueError, match=r'found no images in the batch, .*; images are 2-D or 3-D arrays, one for each'
    ):
        show(batch)


@pytest.mark.parametrize('wrong', [0, -1, 2.5])
def test_most_is_a_positive_int(wrong):
    with pytest.raises(ValueError, match=f'most must be a positive int, got {wrong}'):
        show(GREY, most=wrong)


def test_a_value_that_cannot_be_an_array_is_only_listed():
    class Elsewhere:
        shape, dtype = (6, 12, 10), 'float32'

        def __array__(self, dtype=None, copy=None):
            raise TypeError('not in the memory of this machine')

    assert lines(show((GREY, Elsewhere())))[-1] == 'batch[1]: Elsewhere(float32[6, 12, 10])'


def test_a_value_that_converts_to_an_array_is_drawn():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return GREY

    np.testing.assert_allclose(list(drawn(show([*GREY]))), GREY)
    np.testing.assert_allclose(list(drawn(show((Tensor(), 3)))), GREY)


def test_it_can_be_read_on_a_dark_and_on_a_light_background():
    figure = show((GREY, np.arange(6)))
    assert figure.get_facecolor()[3] == 0
    texts = [figure._supxlabel, *(axes.title for axes in figure.axes)]
    for text in texts:
        (brightness,) = {int(text.get_color()[k : k + 2], 16) / 255 for k in (1, 3, 5)}
        luminance = ((brightness + 0.055) / 1.055) ** 2.4
        assert min(1.05 / (luminance + 0.05), (luminance + 0.05) / (0.013 + 0.05)) > 3.9  # the contrast, on #1e1e1e


def test_a_notebook_shows_the_figure():
    assert show(GREY)._repr_png_().startswith(b'\x89PNG')


def test_it_touches_no_global_state_and_works_in_any_thread(tmp_path):
    code = (
        'import sys, threading, numpy, pipekit\n'
        'thread = threading.Thread(target=lambda: pipekit.show(numpy.zeros((2, 9, 9))).savefig(sys.argv[1]))\n'
        'thread.start()\n'
        'thread.join()\n'
        'assert "matplotlib.pyplot" not in sys.modules'
    )
    path = tmp_path / 'batch.png'
    subprocess.run([sys.executable, '-c', code, path], timeout=60, check=True)
    assert path.exists()


def test_without_matplotlib_the_error_names_the_extra():
    code = 'import sys, numpy, pipekit\nsys.modules["matplotlib.figure"] = None\npipekit.show(numpy.zeros((2, 9, 9)))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.endswith('needs matplotlib.figure: pip install "pipekit-batches[plot]"\n')

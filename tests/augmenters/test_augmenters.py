"""Augmentation libraries give what the seed and the sample determine: in any workers, resumed, beside training."""

import importlib
import os
import random
import warnings
from itertools import islice

import numpy as np
import pytest

from pipekit import apply, combine_batches, pipeline, prefetch, processes, reseeded, seeded, threads
from pipekit.testing import check_function

torch = pytest.importorskip('torch')
pytestmark = [pytest.mark.filterwarnings('default'), pytest.mark.timeout(300)]

IMAGES = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), np.uint8)


def importable(name):
    """A module; skips the test where it does not fit the version of torch."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        return pytest.skip(f'{name} cannot be imported: {error}')


def image_of(number):
    return IMAGES[number]


def torchvision_v1():
    transforms = importable('torchvision.transforms')
    augment = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.RandomCrop(12),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.4),
        ]
    )
    return lambda image: augment(image).numpy()


def torchvision_v2():
    transforms = importable('torchvision.transforms.v2')
    augment = transforms.Compose(
        [
            transforms.ToImage(),
            transforms.RandomResizedCrop(12),
            transforms.RandomVerticalFlip(),
        ]
    )
    return lambda image: augment(image).numpy()


def kornia_augmentation():
    augmentation = pytest.importorskip('kornia.augmentation')
    augment = augmentation.RandomAffine(30, p=1.0)
    return lambda image: augment(torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None]).numpy()


def torchio_transform():
    torchio = pytest.importorskip('torchio')
    augment = torchio.Compose([torchio.RandomNoise(), torchio.RandomFlip()])
    return lambda image: augment(image.transpose(2, 0, 1)[..., None].astype(np.float32))


def of_batchgenerators():
    pytest.importorskip('batchgenerators')
    from batchgenerators.transforms.noise_transforms import GaussianNoiseTransform

    augment = GaussianNoiseTransform()
    return lambda image: augment(data=image.transpose(2, 0, 1)[None].astype(np.float32))['data']


def resample():
    utils = pytest.importorskip('sklearn.utils')
    return lambda image: utils.resample(image.reshape(-1, 3))


def of_python():
    return lambda image: np.roll(image, random.randrange(16), axis=random.choice([0, 1]))


def albumentations_compose():
    os.environ['NO_ALBUMENTATIONS_UPDATE'] = '1'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        library = pytest.importorskip('albumentations')
    augment = library.Compose(
        [library.RandomCrop(12, 12), library.HorizontalFlip(), library.RandomBrightnessContrast(p=1)]
    )
    return reseeded(NamedImage(augment), set_seed=lambda each, seed: each.augment.set_random_seed(seed))


class NamedImage:
    """Calls a transform of albumentations, which takes its image by name."""

    def __init__(self, augment):
        self.augment = augment

    def __call__(self, image):
        return self.augment(image=image)['image']


def monai_compose():
    transforms = pytest.importorskip('monai.transforms')
    augment = transforms.Compose([transforms.RandRotate90(prob=0.7), transforms.RandGaussianNoise(prob=1.0)])
    return reseeded(AsArray(augment), set_seed=lambda each, seed: each.augment.set_random_state(seed))


class AsArray:
    """Calls a transform of MONAI on channels first, and makes an array of its tensor."""

    def __init__(self, augment):
        self.augment = augment

    def __call__(self, image):
        return np.asarray(self.augment(image.transpose(2, 0, 1).astype(np.float32)))


GLOBAL = [
    torchvision_v1,
    torchvision_v2,
    kornia_augmentation,
    torchio_transform,
    of_batchgenerators,
    resample,
    of_python,
]
OWN = [albumentations_compose, monai_compose]


def batches_of(function, workers, n=6, seed=3):
    return pipeline(
        range(24),
        apply(image_of),
        apply(function, seed=seed, workers=workers),
        combine_batches(4, list),
        prefetch(n),
    )


def equal(batches, others):
    pairs = [pair for both in zip(batches, others, strict=True) for pair in zip(*both, strict=True)]
    return all(np.array_equal(a, b) for a, b in pairs)


def draw():
    """Draws as training does meanwhile."""
    random.random()
    np.random.rand()
    torch.rand(3)


def trained_on(batches, n=None):
    got = []
    for batch in islice(batches, n):
        got.append(batch)
        draw()
    return got


@pytest.mark.parametrize('make', GLOBAL + OWN, ids=lambda make: make.__name__)
def test_the_same_in_processes_after_a_resume_and_beside_training(make):
    function = make() if make in OWN else seeded(make())
    expected = list(batches_of(function, None).pipeline)
    draw()
    assert equal(list(batches_of(function, None).pipeline), expected)
    assert not equal(expected[:1], expected[1:2])
    with batches_of(function, processes(2)) as batches:
        assert equal(trained_on(batches), expected)
    with batches_of(function, processes(1)) as batches:
        epoch = iter(batches)
        first = trained_on(epoch, 2)
        state = batches.state_dict()
    with batches_of(function, processes(2)) as batches:
        batches.load_state_dict(state)
        assert equal(first + trained_on(batches), expected)


@pytest.mark.parametrize('make', OWN, ids=lambda make: make.__name__)
def test_transforms_with_their_own_generators_are_the_same_in_threads(make):
    function = make()
    expected = list(batches_of(function, None).pipeline)
    for workers in None, threads(3):
        with batches_of(function, workers) as batches:
            assert equal(trained_on(batches), expected)


@pytest.mark.parametrize('make', GLOBAL, ids=lambda make: make.__name__)
def test_what_draws_from_a_global_generator_is_found(make):
    function = make()
    with pytest.raises(AssertionError, match='draws from the global generator of'):
        check_function(function, image_of(0))
    for workers in None, threads(2), processes(1):
        batches = batches_of(function, workers, 2, seed=None)
        with pytest.warns(RuntimeWarning, match='draws from the global generator of'):
            next(iter(batches))
        batches.close()


@pytest.mark.parametrize('make', GLOBAL + OWN, ids=lambda make: make.__name__)
def test_wrapped_functions_are_pure(make):
    check_function(make() if make in OWN else seeded(make()), image_of(0))

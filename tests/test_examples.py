import gzip
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import numpy as np
import pytest
from mnist import MNIST
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / 'examples'


def idx(array):
    shape = np.array(array.shape, '>u4').tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_digits(folder, n, part='train', compress=None):
    images = np.random.default_rng(0).integers(0, 256, (n, 28, 28), np.uint8)
    for name, array in {'images-idx3': images, 'labels-idx1': np.arange(n) % 10}.items():
        content = idx(array)
        path = folder / f'{part}-{name}-ubyte{".gz" if compress else ""}'
        path.write_bytes(compress(content) if compress else content)
    return images


def train(folder, *options):
    command = [sys.executable, str(EXAMPLES / 'train_mnist.py'), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('folder', [ROOT, EXAMPLES], ids=lambda folder: folder.name)
def test_the_tutorial_runs_from_the_repository_and_from_its_own_folder(folder):
    notebook = nbformat.read(EXAMPLES / 'tutorial.ipynb', as_version=4)
    NotebookClient(notebook, timeout=60, resources={'metadata': {'path': str(folder)}}).execute()
    assert notebook.cells[-2].outputs[0].data['text/plain'] == '(6, True)'


def test_the_tutorial_is_kept_without_outputs():
    notebook = nbformat.read(EXAMPLES / 'tutorial.ipynb', as_version=4)
    assert notebook.metadata.kernelspec.name == 'python3'
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == 'code')


def test_three_epochs_of_training_give_a_network_and_a_picture(tmp_path):
    last, _ = train(tmp_path, '--epochs', '3').splitlines()[-2:]
    assert last.startswith('accuracy on 1000 held-out digits: ')
    assert float(last.split()[-1].removesuffix('%')) > 85
    assert (tmp_path / 'mnist.png').read_bytes().startswith(b'\x89PNG')


def test_training_reads_the_folder_it_is_given(tmp_path):
    write_digits(tmp_path, 200)
    output = train(tmp_path, '--data', str(tmp_path), '--epochs', '2', '--batch-size', '32', '--output', 'drawn.png')
    assert 'accuracy on 40 held-out digits' in output
    assert (tmp_path / 'drawn.png').exists()


@pytest.mark.parametrize('compress', [None, gzip.compress], ids=['plain', 'gzipped'])
@pytest.mark.parametrize('part', ['train', 't10k'])
def test_images_and_labels_are_read_as_they_were_written(part, compress, tmp_path):
    images = write_digits(tmp_path, 12, part, compress)
    dataset = MNIST(tmp_path)
    image = dataset.load_image(11)
    assert (dataset.ids, dataset.load_label(11)) == (range(12), 1)
    assert (image.shape, image.dtype) == ((1, 28, 28), np.float32)
    assert np.array_equal(image[0], images[11] / np.float32(255))


def test_the_training_digits_are_preferred(tmp_path):
    write_digits(tmp_path, 5, 't10k')
    write_digits(tmp_path, 7, 'train')
    assert len(MNIST(tmp_path).ids) == 7


@pytest.mark.parametrize(
    ('present', 'missing'),
    [
        ([], 'expected train-images-idx3-ubyte or t10k-images-idx3-ubyte, gzipped or not, in '),
        (['train-images-idx3-ubyte'], 'expected train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz in the folder'),
    ],
    ids=['all', 'labels'],
)
def test_a_missing_file_is_named(present, missing, tmp_path):
    for name in present:
        (tmp_path / name).write_bytes(idx(np.zeros((1, 28, 28))))
    with pytest.raises(FileNotFoundError, match=missing):
        MNIST(tmp_path)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda content: content[:6], 'is truncated: it ends within its header, after 6 bytes'),
        (lambda content: content[:-1], r'should hold 2352 bytes for the shape \(3, 28, 28\), got 2351'),
        (lambda content: content + b'x', r'should hold 2352 bytes for the shape \(3, 28, 28\), got 2353'),
        (lambda content: gzip.compress(content)[:-9], 'is truncated or damaged: Compressed file ended'),
        (lambda content: gzip.compress(content)[:-8] + bytes(8), 'is truncated or damaged: CRC check failed'),
        (lambda content: idx(np.zeros(3)), 'should begin with 00000803, for 3 axes of bytes, got 00000801'),
        (lambda content: b'', 'should begin with 00000803, for 3 axes of bytes, got $'),
    ],
    ids=['header', 'data', 'too much', 'gzip', 'checksum', 'labels', 'nothing'],
)
def test_a_damaged_file_is_an_error_that_says_how(damage, message, tmp_path):
    write_digits(tmp_path, 3)
    path = tmp_path / 'train-images-idx3-ubyte'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f'train-images-idx3-ubyte {message}'):
        MNIST(tmp_path)


def test_images_where_labels_belong_are_an_error(tmp_path):
    write_digits(tmp_path, 3)
    (tmp_path / 'train-labels-idx1-ubyte').write_bytes(idx(np.zeros((3, 28, 28))))
    with pytest.raises(ValueError, match='train-labels-idx1-ubyte should begin with 00000801'):
        MNIST(tmp_path)


def test_an_image_without_a_label_is_an_error(tmp_path):
    write_digits(tmp_path, 3)
    (tmp_path / 'train-labels-idx1-ubyte').write_bytes(idx(np.zeros(2)))
    with pytest.raises(ValueError, match='expected a label for each image, got 3 images and 2 labels'):
        MNIST(tmp_path)


@pytest.mark.parametrize('cluster', ['dask', 'ray'])
def test_a_cluster_gives_the_same_batches(cluster, tmp_path):
    if find_spec(cluster) is None:
        pytest.skip('needs the environment ray')
    done = subprocess.run(
        [sys.executable, EXAMPLES / f'{cluster}_cluster.py'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count('equal: True') == 5

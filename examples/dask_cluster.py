"""Two worker processes of a dask cluster make the same batches as the calling process."""

from typing import Any

import numpy as np
import numpy.typing as npt
from dask.distributed import Client, LocalCluster

from pipekit import BatchIterator, apply, combine_batches, pipeline, prefetch, sample, unpack

Image = npt.NDArray[np.float32]


def load(number: int) -> tuple[Image, int]:
    return np.full((8, 8), number, np.float32), number


def add_noise(image: Image, label: int, rng: np.random.Generator) -> tuple[Image, int]:
    return image + rng.normal(size=image.shape).astype(np.float32), label


def make_batches(workers: Any = None) -> BatchIterator[Any]:
    return pipeline(
        sample(range(1000), seed=0),
        apply(load, workers=workers),
        unpack(add_noise, seed=0, workers=workers),
        combine_batches(16),
        prefetch(5),
    )


def main() -> None:
    with make_batches() as batches:
        expected = list(batches)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=':0') as cluster,
        Client(cluster) as client,
        make_batches(client.get_executor(pure=False)) as batches,
    ):
        for (images, labels), (same_images, same_labels) in zip(expected, batches, strict=True):
            equal = np.array_equal(images, same_images) and np.array_equal(labels, same_labels)
            print(f'{len(labels)} images, labels {labels[:4]}..., equal: {equal}')


if __name__ == '__main__':
    main()

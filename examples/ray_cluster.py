"""Two worker processes of a Ray cluster make the same batches as the calling process."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray
from dask_cluster import make_batches

from pipekit import executor


def call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class RayExecutor:
    """Runs functions as tasks of Ray; each function is put into its object store once."""

    def __init__(self) -> None:
        self.call: Any = ray.remote(call)
        self.stored: dict[int, tuple[Any, Any]] = {}

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        if id(function) not in self.stored:
            self.stored[id(function)] = function, ray.put(function)
        reference = self.call.remote(self.stored[id(function)][1], *args)
        future: Future[Any] = reference.future()
        return future


def main() -> None:
    with make_batches() as batches:
        expected = list(batches)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with make_batches(executor(RayExecutor(), ahead=4)) as batches:
            for (images, labels), (same_images, same_labels) in zip(expected, batches, strict=True):
                equal = np.array_equal(images, same_images) and np.array_equal(labels, same_labels)
                print(f'{len(labels)} images, labels {labels[:4]}..., equal: {equal}')
    finally:
        ray.shutdown()


if __name__ == '__main__':
    main()

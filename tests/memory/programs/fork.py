"""A process that forks between two batches: both sides go on, and say so with their exit code."""

import os

import numpy as np

from pipekit import apply, combine_batches, pipeline, repeat


def image(number):
    return np.full((512, 512), number, np.float32)


batches = iter(pipeline(range(16), repeat(), apply(image), combine_batches(4)))
kept = next(batches)
next(batches)
pid = os.fork()
after = [next(batches)[:, 0, 0].tolist() for _ in range(5)]
assert after == [[8, 9, 10, 11], [12, 13, 14, 15], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], after
assert kept[:, 5, 5].tolist() == [0, 1, 2, 3]
if pid:
    _, status = os.waitpid(pid, 0)
    assert status == 0
    print('both')  # noqa: T201

"""Write the batches, and which standard streams are closed, into a file; which ones should be, the arguments say."""

import os
import sys
from pathlib import Path

import numpy as np

from pipekit import apply, combine_batches, pipeline, prefetch, processes

_, result, *closed = sys.argv


def load(number):
    print(number, flush=True)  # noqa: T201
    for stream in (1, 2):
        os.write(stream, b'x' * 10_000)  # as a library in C does
    assert os.read(0, 1) == b''
    return np.full(100_000, number)


def is_closed(stream):
    try:
        os.fstat(stream)
    except OSError:
        return True
    return False


with pipeline(range(6), apply(load, workers=processes(2)), combine_batches(2), prefetch()) as batches:
    values = [batch[:, 0].tolist() for batch in batches]
    values += ['closed' for stream in closed if is_closed(int(stream))]
Path(result).write_text(' '.join(map(str, values)) + '\n', encoding='ascii')

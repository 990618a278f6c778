"""What a program defines travels to worker processes and back, although it has no guard against running there."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np

from pipekit import apply, combine_batches, pipeline, prefetch, processes


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Image:
    pixels: object
    made: ClassVar = []


class Broken(Exception):
    pass


OFFSET = 10


@lru_cache
def load(number):
    if number == 4:
        raise Broken(number)
    return Point(number + OFFSET, Image(np.full(50_000, number)))


workers = processes(2)
found = []
with pipeline(range(9), apply(load, workers=workers), prefetch()) as points:
    try:
        for point in points:
            assert type(point) is Point, type(point)
            assert type(point.y) is Image, type(point.y)
            assert (point.y.pixels == point.x - OFFSET).all()
            found.append(point.x)
    except Broken as error:
        print(found, error)  # noqa: T201
stages = apply(load, workers=workers), combine_batches(2, workers=workers)
with pipeline(range(4), *stages, prefetch()) as batches:
    print([(type(batch).__name__, batch.x.tolist()) for batch in batches])  # noqa: T201

"""Trains at its top level, as scripts do; but it may be imported. Prints what it has got."""

import enum
import logging
import os
import time
import warnings
from dataclasses import dataclass
from functools import lru_cache, partial

from pipekit import (
    apply,
    combine_batches,
    described,
    flatten,
    mix,
    per_worker,
    pipeline,
    prefetch,
    processes,
    replace,
    retry,
    sample,
    shuffle,
    threads,
    unpack,
)


@dataclass
class Image:
    number: int

    def same(self):
        return self


class Label(enum.Enum):
    A = 0
    B = 1


class Unreadable(Exception):
    pass


def load(number):
    return number


def make(number):
    return Image(load(number))


@lru_cache
def cached(number):
    return load(number) + 1


def jitter(number, rng):
    return number + int(rng.integers(3))


def slow(number):
    time.sleep(0.1)
    return number


def fail(number):
    raise Unreadable(number)


def read(number):
    return resource()[number]


@described
def scale(factor, workers=None):
    return apply(partial(int.__mul__, factor), workers=workers)


def end(**options):
    return prefetch(5, buffer_size=2, **options)


resource = per_worker(lambda: list(range(30)))
ids = range(20)
PARTS = {
    'a function': lambda on: (ids, apply(load, **on), end()),
    'a lambda': lambda on: (ids, apply(lambda number: load(number) + 2, **on), end()),
    'a method': lambda on: (map(Image, ids), apply(Image.same, **on), end()),
    'objects back': lambda on: (ids, apply(make, **on), combine_batches(2, list), end()),
    'objects there': lambda on: (map(Image, ids), apply(lambda image: image.number, **on), end()),
    'members of an enum': lambda on: (ids, apply(lambda number: Label(number % 2), **on), end()),
    'a cache': lambda on: (ids, apply(cached, **on), end()),
    'a described stage': lambda on: (ids, scale(2, **on), end()),
    'sampling': lambda on: (sample(ids, seed=0), shuffle(4, seed=1), apply(jitter, seed=2, **on), end()),
    'weights': lambda on: (sample(ids, weights=[1.5] * 20, seed=0), apply(load, **on), end()),
    'a mix': lambda on: (mix(sample(ids, seed=0), sample(ids, seed=1), seed=2), apply(load, **on), end()),
    'arrays': lambda on: (ids, apply(lambda n: (n, n), **on), unpack(int.__add__, **on), combine_batches(3), end()),
    'lists': lambda on: (ids, apply(lambda n: [n] * n, **on), flatten(), end()),
    'a resource': lambda on: (ids, apply(read, **on), end()),
    'reports': lambda on: (ids, apply(load, **on), end(report_every=1e-9)),
    'a profile': lambda on: (ids, apply(load, **on), end(profile=True)),
    'a stall': lambda on: (ids, apply(slow, **on), end(stall_after=0.05)),
    'an error': lambda on: (ids, apply(fail, **on), end()),
    'replaced': lambda on: (ids, apply(fail, on_error=replace(load, Unreadable, budget=None), **on), end()),
    'tried again': lambda on: (ids, apply(fail, on_error=retry(2, Unreadable), **on), end()),
}

say = partial(print, flush=True)
logging.basicConfig(level=logging.INFO)
warnings.simplefilter('ignore')  # of the stall
kinds = {'inline': {}, 'threads': {'workers': threads(2)}, 'processes': {'workers': processes(2)}}
for what in os.environ['PARTS'].split(','):
    with pipeline(*PARTS[what](kinds[os.environ['KIND']])) as batches:
        try:
            got = list(batches)
            assert what != 'a method' or all(isinstance(image, Image) for image in got)
        except Unreadable as error:
            got = [repr(error)]
        assert batches.report().n_batches == len(got) or what in ('an error', 'tried again')
        batches.state_dict()
    say(what, *got)
say('trained in', __name__)

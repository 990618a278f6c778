"""Kill worker processes at random, some hundred times, and compare every batch with those of an undisturbed run."""

import argparse
import os
import random
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipekit import apply, combine_batches, pipeline, prefetch, processes, sample, shuffle

FIELDS = slice(0, 2)  # of what follows the name in /proc/<pid>/stat: the state, and the parent


def load(number, rng):
    return rng.random((250, 100)) + number, number


def blur(sample):
    image, number = sample
    return (image + image.T[::-1].mean()) / 2, number


def shift(batch):
    images, numbers = batch
    return images + 1, numbers, [f'{number}' for number in numbers]


def stages(workers):
    return (
        sample(range(1000), seed=1),
        apply(load, seed=2, workers=workers),
        apply(blur, workers=workers),
        shuffle(8, seed=3),
        apply(lambda sample: (sample[0].astype('f4'), sample[1]), workers=workers),
        combine_batches(6),
        apply(shift, workers=workers),
    )


def children():
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, parent = path.read_text().rpartition(')')[2].split()[FIELDS]
        except OSError:
            continue  # it has ended meanwhile
        if int(parent) == os.getpid() and state != 'Z':
            found.append(int(path.parent.name))
    return found


class Killer:
    """A thread that kills children of this process, one or now and then all of them, at random times.

    Between two times there is a batch, lest nothing goes on where processes take long to start.
    """

    def __init__(self, kills, seed):
        self.left = kills
        self.goes_on = threading.Event()
        self._random = random.Random(seed)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while self.left > 0:
            self.goes_on.clear()
            self.goes_on.wait(60)
            time.sleep(self._random.expovariate(1 / 0.1))
            victims = children()
            if victims and self._random.random() > 0.15:
                victims = [self._random.choice(victims)]
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.left -= 1


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--workers', type=int, default=3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--switch-interval', type=float, default=sys.getswitchinterval())
    options = parser.parse_args()
    sys.setswitchinterval(options.switch_interval)
    warnings.simplefilter('ignore', RuntimeWarning)

    undisturbed = pipeline(*stages(None))
    kept, delivered = [], 0
    batches = pipeline(*stages(processes(options.workers)), prefetch(20))
    with batches:
        killer = Killer(options.kills, options.seed)
        expected = iter(undisturbed)
        while killer.left > 0 or delivered % 100:
            for batch in batches:
                killer.goes_on.set()
                right = next(expected)
                if not same(batch, right):
                    sys.exit(f'batch {delivered} is not what it is in an undisturbed run')
                if not delivered % 50:
                    kept.append((batch, right))
                delivered += 1
    if not all(same(*pair) for pair in kept):
        sys.exit('a batch that was kept has changed')
    del kept, batch
    threads = [thread.name for thread in threading.enumerate()[1:] if thread.name.startswith('pipekit')]
    if children() or threads:
        sys.exit(f'left: {children()}, {threads}')
    print(f'{options.kills} kills, {delivered} batches, all as in an undisturbed run')


if __name__ == '__main__':
    main()

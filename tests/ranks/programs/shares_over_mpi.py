"""Joins the shares of all ranks, step by step; rank 0 prints the batches and the state of each rank as JSON.

The arguments: how many batches to take, and, to continue from it, a state as JSON.
"""

import json
import sys
from itertools import chain

from mpi4py import MPI

from pipekit import apply, combine_batches, pipeline, prefetch, shuffle


def load(number, rng):
    return number, float(rng.random())


def make_batches(rank, world_size):
    share = combine_batches(8, list, rank=rank, world_size=world_size, uneven=True)
    return pipeline(range(43), shuffle(43, seed=0), apply(load, seed=1), share, prefetch())


def main(n_batches, *state):
    ranks = MPI.COMM_WORLD
    with make_batches(ranks.Get_rank(), ranks.Get_size()) as batches:
        if state:
            batches.load_state_dict(json.loads(state[0]))
        joined, states = [], []
        for share in batches:
            joined.append(list(chain.from_iterable(ranks.allgather(share))))
            states = ranks.allgather(batches.state_dict())
            if len(joined) == int(n_batches):
                break
    if ranks.Get_rank() == 0:
        print(json.dumps({'batches': joined, 'states': states}))


if __name__ == '__main__':
    main(*sys.argv[1:])

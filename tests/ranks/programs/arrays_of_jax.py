"""A global array made of the shares of all processes; each prints its values and their sum over all devices, as JSON.

The arguments: the address of the coordinator, the number of processes, and the number of this one.
"""

import json
import sys

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding, PartitionSpec

from pipekit import apply, combine_batches, pipeline, prefetch, sample


def load(number, rng):
    return np.float32(number), rng.random(3, np.float32)


def make_batches(rank, world_size):
    share = combine_batches(8, rank=rank, world_size=world_size)
    return pipeline(sample(range(1000), replace=False, seed=0), apply(load, seed=1), share, prefetch(5))


def main(address, n_processes, number):
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(address, int(n_processes), int(number))
    mesh = jax.make_mesh((jax.device_count(),), ('samples',))
    sharding = NamedSharding(mesh, PartitionSpec('samples'))
    total = jax.jit(lambda batch: sum(values.sum() for values in batch))
    steps = []
    with make_batches(jax.process_index(), jax.process_count()) as batches:
        for share in batches:
            batch = jax.make_array_from_process_local_data(sharding, share)
            values = [process_allgather(array, tiled=True).tolist() for array in batch]
            steps.append({'values': values, 'shapes': [array.shape for array in batch], 'sum': float(total(batch))})
    print(json.dumps(steps))


if __name__ == '__main__':
    main(*sys.argv[1:])

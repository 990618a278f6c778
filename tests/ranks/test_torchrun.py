"""The example of torch's DistributedDataParallel, started by torchrun: the number of ranks changes nothing."""

import json
import signal
import sys
from importlib.util import find_spec
from itertools import chain

import numpy as np
import pytest
from ranks.launching import PROGRAMS, ROOT

pytestmark = [
    pytest.mark.skipif(find_spec('torch') is None, reason='needs torch'),
    pytest.mark.timeout(300),
]

EXAMPLE = ROOT / 'examples' / 'train_ddp.py'
TORCHRUN = ['-m', 'torch.distributed.run', '--rdzv-backend', 'c10d', '--rdzv-endpoint', 'localhost:0']  # any free port
# 100 samples are six batches of 16 and one of 4 in each of the two epochs.
OPTIONS = ['--samples', 100, '--batch-size', 16, '--epochs', 2, '--save-every', 3]


@pytest.fixture
def torchrun(launch):
    def run(n_ranks, *words):
        return launch(sys.executable, *TORCHRUN, '--nproc-per-node', n_ranks, *words)

    return run


@pytest.fixture
def train(torchrun, tmp_path):
    """Run the example: the ids and the losses of its steps, which every rank has recorded alike."""

    def train(n_ranks, name, *options):
        code, _, err = torchrun(n_ranks, EXAMPLE, *OPTIONS, '--checkpoint', 'ddp.pt', '--record', name, *options)
        assert code == 0, err
        return recorded(tmp_path / name, n_ranks)

    return train


def recorded(path, n_ranks):
    of_ranks = [path.with_suffix(f'.{rank}').read_text().splitlines() for rank in range(n_ranks)]
    assert all(steps == of_ranks[0] for steps in of_ranks)
    steps = [*map(json.loads, of_ranks[0])]
    return [step['ids'] for step in steps], [step['loss'] for step in steps]


def test_training_goes_on_exactly_with_fewer_ranks_after_one_of_four_was_killed(torchrun, train, tmp_path):
    ids, losses = train(1, 'whole', '--checkpoint', 'of_one.pt')
    assert [len(batch) for batch in ids] == [16, 16, 16, 16, 16, 16, 4] * 2
    assert sorted(chain(*ids[:7])) == sorted(chain(*ids[7:]))
    assert ids[:7] != ids[7:]

    code, _, err = torchrun(4, PROGRAMS / 'killed_training.py', 2, 12, *OPTIONS, '--record', 'killed')
    assert code == 1
    assert f'exitcode  : {-signal.SIGKILL:d}' in err
    first_ids, first_losses = recorded(tmp_path / 'killed', 4)
    assert first_ids == ids[:11]
    np.testing.assert_allclose(first_losses, losses[:11], rtol=1e-4)

    saved = (tmp_path / 'ddp.pt').read_bytes()  # after step 9, the second one of the second epoch
    for n_ranks in 3, 2:
        (tmp_path / 'ddp.pt').write_bytes(saved)
        next_ids, next_losses = train(n_ranks, f'by_{n_ranks}')
        assert next_ids == ids[9:]
        np.testing.assert_allclose(next_losses, losses[9:], rtol=1e-4)


def test_all_ranks_leave_out_a_last_batch_of_fewer_samples_than_ranks(train):
    ids, losses = train(1, 'one', '--samples', 34, '--epochs', 1, '--checkpoint', 'of_one.pt')
    assert [len(batch) for batch in ids] == [16, 16, 2]
    ids_of_three, losses_of_three = train(3, 'three', '--samples', 34, '--epochs', 1)
    assert ids_of_three == ids[:2]
    np.testing.assert_allclose(losses_of_three, losses[:2], rtol=1e-4)


def test_the_state_of_another_global_batch_is_refused(train, torchrun):
    train(2, 'sixteen', '--epochs', 1)
    code, _, err = torchrun(2, EXAMPLE, *OPTIONS, '--batch-size', 8)
    assert code == 1
    assert 'combine_batches(16) when the state was saved, and is combine_batches(8) here' in err

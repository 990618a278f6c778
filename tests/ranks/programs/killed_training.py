"""The training of the example, in which a rank kills itself before a step, as a machine that fails.

The arguments: the rank, the number of the step, and those of the example.
"""

import os
import signal
import sys
from itertools import count

import train_ddp

of_example, steps = train_ddp.step, count(1)


def step(*args):
    if next(steps) == killed_before and os.environ['RANK'] == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    return of_example(*args)


rank, killed_before = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]
train_ddp.step = step
train_ddp.main()

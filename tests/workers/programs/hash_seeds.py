import os
import signal
import sys
import warnings

sys.path.insert(0, os.path.dirname(sys.argv[1]))  # for -I and -E

from pipekit import apply, pipeline, prefetch, processes

warnings.simplefilter('ignore')
LABELS = ['cat', 'dog', 'horse', 'bird', 'fish', 'cow', 'sheep', 'goat']


def classes():
    return '-'.join(set(LABELS))


def look(value):
    return os.getpid(), classes()


print(classes())  # noqa: T201
with pipeline(range(10**9), apply(look, workers=processes(1)), prefetch()) as batches:
    for number, (pid, numbers) in enumerate(batches):
        if number == 0:
            first = pid
            os.kill(pid, signal.SIGKILL)  # its replacement agrees with it
        if number == 0 or pid != first:
            print(pid, numbers)  # noqa: T201
        if pid != first:
            break

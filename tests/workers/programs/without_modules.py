import os
import sys
from importlib import import_module

from pipekit import apply, pipeline, prefetch, processes

import_module('pipekit.workers.process_pool')  # in this process
workers = processes(2)
sys.path[:] = [entry for entry in sys.path if os.path.basename(entry).startswith(('python3', 'lib-dynload'))]
try:
    with pipeline(range(3), apply(abs, workers=workers), prefetch()) as batches:
        list(batches)
except ImportError as error:
    print(f'{type(error).__name__}: {error}', *error.__notes__, sep='\n')  # noqa: T201

"""A Ctrl-C in the loop over the batches, while a function runs for longer than anybody waits."""

import os
import signal
import threading
import time

from pipekit import apply, pipeline, prefetch

started = threading.Event()


def load(number):
    started.set()
    time.sleep(60)


def interrupt():
    started.wait()
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=interrupt, daemon=True).start()
try:
    for _ in pipeline(range(9), apply(load), prefetch()):
        pass
except KeyboardInterrupt as error:
    print(getattr(error, '__notes__', []), flush=True)  # noqa: T201
os._exit(0)

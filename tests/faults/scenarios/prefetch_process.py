"""What a prefetch thread does to its process: at its exit, at a signal, at a fork."""

import os
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress

from acts import kept, numbers, play, say, stuck

from pipekit import Closed, apply, pipeline, prefetch, threads


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == 'pipekit-prefetch']


class WaitsAt:
    """A function that waits at one value until it is let through."""

    def __init__(self, at, seconds=10):
        self.at, self.seconds = at, seconds
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, value):
        if value == self.at:
            self.reached.set()
            self.go.wait(self.seconds)
        return value


def it_is_not_closed():
    batches = pipeline(numbers, prefetch(3))
    kept.append(batches)
    say(list(batches))


def it_exits_from_inside_the_loop():
    for _ in pipeline(numbers, prefetch(3)):
        sys.exit(7)


def it_raises_inside_the_loop():
    for batch in pipeline(numbers, prefetch(3)):
        raise KeyError(batch)


def a_function_exits():
    def leaves(value):
        sys.exit(5)

    list(pipeline(numbers, apply(leaves), prefetch(3)))


def an_error_is_not_waited_for():
    def fails(value):
        raise SystemExit('never seen')

    with pipeline(numbers, apply(fails), prefetch(3)):
        for thread in prefetch_threads():
            thread.join(10)


def it_exits_while_a_function_runs():
    running = threading.Event()

    def slow(value):
        running.set()
        time.sleep(0.2)
        say('returned')
        return value

    batches = pipeline(numbers, apply(slow), prefetch(3))
    kept.append(batches)
    iter(batches)
    running.wait(10)


def it_exits_while_functions_are_stuck():
    several = [pipeline(numbers, apply(stuck), prefetch(3)) for _ in range(3)]
    kept.extend(several)
    for batches in several:
        next(iter(batches))


def it_is_closed_while_a_function_is_stuck():
    batches = pipeline(numbers, apply(stuck), prefetch(3))
    kept.append(batches)
    next(iter(batches))
    batches.close()


def a_thread_consumes_at_the_exit():
    def consume():
        with suppress(Closed):
            for _ in batches:
                pass

    batches = pipeline(numbers, prefetch(10**9, buffer_size=1))
    kept.append(batches)
    threading.Thread(target=consume, daemon=True).start()


def batches_are_forgotten():
    def files():
        return len(os.listdir('/dev/fd'))

    before = files()
    for _ in range(200):
        assert next(iter(pipeline(numbers, prefetch(3)))) == 0
    for thread in prefetch_threads():
        thread.join(10)
    say(len(prefetch_threads()), files() - before)


def everybody_waits():
    def idle():
        begin = time.process_time()
        time.sleep(0.3)
        return time.process_time() - begin

    with pipeline(numbers, prefetch(3)):
        empty = pipeline(numbers, apply(stuck), prefetch(3))
        epoch = iter(empty)
        next(epoch), next(epoch)
        threading.Thread(target=next, args=(epoch, None), daemon=True).start()
        time.sleep(0.1)
        say(idle())
    os._exit(0)


def an_interrupt_is_caught():
    batches = pipeline(numbers, apply(stuck), prefetch(9))
    try:
        for _ in batches:
            pass
    except KeyboardInterrupt:
        say('interrupted')
        os._exit(3)


def an_interrupt_is_not_caught():
    with pipeline(numbers, apply(stuck), prefetch(9)) as batches:
        warnings.simplefilter('ignore')
        for _ in batches:
            pass


def it_goes_on_after_an_interrupt():
    let_through = threading.Event()

    def slow(value):
        if value == 2:
            say('waits')
            let_through.wait(10)
        return value

    with pipeline(numbers, apply(slow), prefetch(9)) as batches:
        got = []
        try:
            got.extend(batches)
        except KeyboardInterrupt:
            let_through.set()
            assert batches.state_dict()['in_epoch'] is None
        say(got, list(batches))


def it_goes_on_after_an_interrupt_in_a_stall():
    slow = WaitsAt(2)
    warnings.simplefilter('always')
    warnings.showwarning = lambda *_: say('stalls')
    with pipeline(range(5), apply(slow), prefetch(stall_after=0.1)) as batches:
        got = []
        try:
            got.extend(batches)
        except KeyboardInterrupt:
            slow.go.set()
        say(*got, *batches)


class Tick(Exception):
    pass


class Storm:
    """Signals, again and again, each of which raises where the main thread is, if that is allowed."""

    def __init__(self):
        self.ticks, self.armed = 0, False

    def tick(self, *_):
        if self.armed:
            self.ticks, self.armed = self.ticks + 1, False
            raise Tick


def slow(value):
    time.sleep(0.002)
    return value


STORMS = {
    'one ready': ([prefetch(50, buffer_size=1)], 0.00031),
    'three ready': ([prefetch(50, buffer_size=3)], 0.00031),
    'between two looks for a stall': ([apply(slow), prefetch(20, stall_after=0.001)], 0.0011),
}


def a_storm_of_interrupts(kind):
    stages, interval = STORMS[kind]
    warnings.simplefilter('ignore')  # of stalls
    storm = Storm()
    got = []
    batches = pipeline(numbers, *stages)
    iter(batches)  # not in the storm: an interrupt in Thread.start makes Python itself print
    signal.signal(signal.SIGALRM, storm.tick)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, interval)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            storm.armed = True
            for batch in batches:
                got.append(batch)  # noqa: PERF402  # a loop in Python is what is interrupted
            storm.armed = False
        except Tick:
            pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    got.extend(batches)
    batches.close()
    delivered = batches.state_dict()['delivered']
    say(storm.ticks, delivered - len(got), got == sorted(set(got)), delivered == got[-1] + 1)


def a_storm_of_signals_that_look_and_close():
    def handle(*_):
        batches.state_dict()
        batches.close()

    got = []
    batches = pipeline(numbers, prefetch(50, buffer_size=2))
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        with suppress(Closed), batches:
            for batch in batches:
                got.append(batch)  # noqa: PERF402  # a loop in Python is what is interrupted
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(len(got) > 100, got == list(range(len(got))), prefetch_threads())


def a_handler_takes_batches():
    def handle(*_):
        got.append(next(epoch))

    got = []
    batches = pipeline(numbers, prefetch(10**9, buffer_size=2))
    epoch = iter(batches)
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        got.append(next(epoch))
    signal.setitimer(signal.ITIMER_REAL, 0)
    batches.close()
    say(len(got) > 100, sorted(got) == list(range(len(got))))


def is_told_why(touch):
    try:
        touch()
    except Closed as error:
        return 'parent' in str(error)
    return False


def a_forked_child_opens_the_batches_again():
    warnings.simplefilter('ignore')  # Python warns of forks with threads
    batches = pipeline(numbers, prefetch(3))
    epoch = iter(batches)
    kept.extend([batches, epoch])
    first = next(epoch)
    child = os.fork()
    if not child:
        assert all(map(is_told_why, (lambda: next(epoch), lambda: iter(batches), batches.__enter__)))
        batches.close()
        with batches:
            assert list(batches) == [1, 2, 3]
        assert not prefetch_threads()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    say(status, first, list(epoch), list(batches))
    batches.close()


def it_forks_while_another_thread_waits():
    warnings.simplefilter('ignore')
    slow = WaitsAt(2)
    batches = pipeline(numbers, apply(slow), prefetch(9))
    epoch = iter(batches)
    kept.extend([batches, epoch])
    next(epoch), next(epoch)
    waiting = threading.Thread(target=next, args=(epoch,))
    waiting.start()
    slow.reached.wait(10)
    time.sleep(0.05)
    child = os.fork()
    if not child:
        try:
            next(epoch)
        except Closed:
            batches.state_dict()
            slow.go.set()
            batches.close()
            with batches:
                assert next(iter(batches)) == 2
            sys.exit(0)
        sys.exit(1)
    _, status = os.waitpid(child, 0)
    slow.go.set()
    waiting.join(10)
    say(status, next(epoch))


def a_handler_forks_in_the_middle_of_a_wait():
    warnings.simplefilter('ignore')
    let_through = threading.Event()
    child = None

    def slow(value):
        if value == 2:
            say('waits')
            let_through.wait(10)
        return value

    def handle(*_):
        nonlocal child
        child = os.fork()
        let_through.set()

    signal.signal(signal.SIGUSR1, handle)
    batches = pipeline(numbers, apply(slow), prefetch(5, stall_after=None))
    epoch = iter(batches)
    kept.extend([batches, epoch])
    try:
        got = list(epoch)
    except Closed:
        os._exit(3)
    say(got, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def a_forked_child_does_nothing():
    warnings.simplefilter('ignore')
    batches = pipeline(numbers, prefetch(3))
    kept.append(batches)
    next(iter(batches))
    child = os.fork()
    if child:
        say(os.waitpid(child, 0)[1], next(iter(batches)))


def a_function_is_stuck():
    for _ in pipeline(numbers, apply(stuck), prefetch(3)):
        pass


def it_exits_with_worker_threads():
    for batch in pipeline(numbers, apply(float, workers=threads(3)), prefetch(3)):
        say(batch)
        sys.exit(5)


def it_exits_while_worker_threads_are_stuck(times):
    warnings.simplefilter('ignore')  # of closing
    slow = WaitsAt(2, seconds=None)
    batches = pipeline(numbers, apply(slow, workers=threads(2)), prefetch(3))
    kept.append(batches)
    for _ in range(int(times)):
        batches.close()
        batches.__enter__()
        assert slow.reached.wait(10)
        slow.reached.clear()
        say('stuck')


def a_thread_trains_after_the_main_thread_has_ended(opens):
    def train():
        threading.main_thread().join()
        for _ in range(3):
            with batches:
                say(list(batches))

    batches = pipeline(numbers, apply(float, workers=threads(2)), prefetch(2))
    if opens == 'goes on with batches that are open':
        say(list(batches))
    threading.Thread(target=train).start()


play(globals())

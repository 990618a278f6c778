"""Log records of worker processes reach the handlers of their parent."""

import logging
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipekit import apply, pipeline, prefetch, processes
from pipekit.streams.context import Context, Run
from pipekit.streams.cursors import START
from pipekit.workers.pools import WorkerPools

TIMEOUT_SECONDS = 60


class Unpicklable:
    def __init__(self):
        self.lock = threading.Lock()

    def __str__(self):
        return 'an object'


def refuse():
    raise ImportError('not here')


class NotHere:
    def __reduce__(self):
        return refuse, ()

    def __str__(self):
        return 'elsewhere'


def with_an_error(log):
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        log.exception('it failed')


def in_a_thread(log):
    thread = threading.Thread(target=log.warning, args=('from %s', 'a thread'), name='a-thread')
    thread.start()
    thread.join()


def in_a_finalizer(log):
    class Closing:
        def __del__(self):
            log.warning('closed')

    Closing()


LOGGING = {
    'a text': (lambda log: log.warning('text'), 'text'),
    'arguments': (lambda log: log.warning('%s of %d, %r', 'a', 3, [1]), 'a of 3, [1]'),
    'a mapping': (lambda log: log.warning('%(a)s', {'a': 5}), '5'),
    'an argument that cannot be pickled': (lambda log: log.warning('%s', Unpicklable()), 'an object'),
    'a message that cannot be pickled': (lambda log: log.warning(Unpicklable()), 'an object'),
    'an argument that cannot be unpickled': (lambda log: log.warning('%s', NotHere()), 'elsewhere'),
    'a generator': (lambda log: log.warning('%.10s', (x for x in 'a')), '<generator'),
    'an array': (lambda log: log.warning('%s', np.arange(3)), '[0 1 2]'),
    'a long text': (lambda log: log.warning('x' * 3_000_000), 'x' * 3_000_000),
    'letters': (lambda log: log.warning('\N{SNOWMAN} %s', 'äö'), '\N{SNOWMAN} äö'),
    'nothing': (lambda log: log.warning(''), ''),
    'an error': (with_an_error, 'it failed\nTraceback (most recent call last):\n'),
    'a stack': (lambda log: log.warning('here', stack_info=True), 'here\nStack (most recent call last):\n'),
    'a level of its own': (lambda log: log.log(35, 'at 35'), 'at 35'),
    'a thread': (in_a_thread, 'from a thread'),
    'a finalizer': (in_a_finalizer, 'closed'),
    'an adapter': (lambda log: logging.LoggerAdapter(log, {'a': 1}).warning('adapted'), 'adapted'),
    'plain extras': (lambda log: log.warning('extra', extra={'step': 3, 'name_of': 'a'}), 'extra'),
    'extras that cannot be pickled': (lambda log: log.warning('extra', extra={'lock': threading.Lock()}), 'extra'),
    'extras that cannot be unpickled': (lambda log: log.warning('extra', extra={'odd': NotHere()}), 'extra'),
    'another logger': (lambda log: logging.getLogger('of.a.library').error('other'), 'other'),
    'the root logger': (lambda log: logging.error('root'), 'root'),
}


class Records(logging.Handler):
    """Keeps records, as a handler of the training script."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def messages(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def records():
    handler, root = Records(), logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    yield handler
    root.handlers = before


def run(*functions, n=1, values=(0,), **options):
    workers, pools = processes(n, **options), WorkerPools()
    stages = [apply(function, workers=workers) for function in functions]
    try:
        return [value for value, _ in pipeline(values, *stages).open(START, Context(run=Run(pools)))]
    finally:
        pools.cancel()
        pools.close()


@pytest.mark.parametrize('kind', LOGGING)
def test_a_record_reaches_the_handlers_of_the_parent(kind, records):
    log_it, expected = LOGGING[kind]
    assert run(lambda value: log_it(logging.getLogger('mine')) or value) == [0]
    (record,) = records.records
    assert record.getMessage().startswith(expected)


def test_a_record_keeps_its_attributes(records):
    def load(value):
        logging.getLogger('mine').error('%s', value, extra={'step': 3, 'where': Path('a'), 'lock': threading.Lock()})
        return threading.get_native_id()

    (pid,) = run(load)
    (record,) = records.records
    assert (record.name, record.levelname, record.funcName, record.process) == ('mine', 'ERROR', 'load', pid)
    assert (record.pathname, record.threadName) == (__file__, 'MainThread')
    assert (record.step, record.where, record.lock) == (3, Path('a'), '<lock>')
    assert abs(record.created - time.time()) < TIMEOUT_SECONDS


def test_an_error_in_the_format_of_a_record_is_printed_as_logging_does(records, capfd):
    assert run(lambda value: logging.getLogger('mine').warning('%d', 'a') or value) == [0]
    assert 'Logging error' in capfd.readouterr().err
    assert not records.records


LEVELS = {
    'the root': ({'root': logging.INFO}, ['info', 'warning', 'error']),
    'the root, higher': ({'root': logging.ERROR}, ['error']),
    'all': ({'root': logging.NOTSET}, ['debug', 'info', 'warning', 'error']),
    'a logger': ({'root': logging.ERROR, 'mine': logging.DEBUG}, ['debug', 'info', 'warning', 'error']),
    'a logger, higher': ({'root': logging.DEBUG, 'mine': logging.ERROR}, ['error']),
    'a logger above': ({'root': logging.ERROR, 'mine.own': 0, 'mine': logging.INFO}, ['info', 'warning', 'error']),
}


def log_all(value):
    for level in ('debug', 'info', 'warning', 'error'):
        getattr(logging.getLogger('mine'), level)(level)
    return value


@pytest.mark.parametrize('kind', LEVELS)
def test_the_levels_of_the_parent_are_taken_over(kind, records):
    levels, expected = LEVELS[kind]
    before = {name: logging.getLogger(name).level for name in levels}
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        run(log_all)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
    assert records.messages() == expected


def test_what_is_disabled_in_the_parent_is_so_in_its_processes(records):
    logging.disable(logging.WARNING)
    try:
        run(log_all)
    finally:
        logging.disable(logging.NOTSET)
    assert records.messages() == ['error']


def test_loggers_of_the_parent_keep_their_own_handlers_and_filters(records):
    mine, own = logging.getLogger('mine'), Records()
    mine.addHandler(own)
    mine.addFilter(refuse_errors)
    mine.propagate = False
    try:
        run(log_all)
    finally:
        mine.removeHandler(own)
        mine.removeFilter(refuse_errors)
        mine.propagate = True
    assert own.messages() == ['warning']
    assert not records.records


def refuse_errors(record):
    return record.levelno < logging.ERROR


def own_handler(path):
    logging.basicConfig(filename=path, level=logging.INFO, format='own %(message)s')


def own_level(path):
    logging.getLogger('mine').setLevel(logging.DEBUG)


def logging_itself(path):
    logging.getLogger('mine').warning('in setup')


@pytest.mark.parametrize(
    ('setup', 'here', 'in_the_file'),
    [
        (own_handler, [], ['own info', 'own warning', 'own error']),
        (own_level, ['debug', 'info', 'warning', 'error'], []),
        (logging_itself, ['in setup', 'warning', 'error'], []),
    ],
)
def test_what_an_initializer_sets_up_is_respected(setup, here, in_the_file, records, tmp_path):
    path = tmp_path / 'log'
    run(log_all, initializer=setup, initargs=(str(path),))
    assert records.messages() == here
    assert (path.read_text(encoding='utf-8').splitlines() if path.exists() else []) == in_the_file


def test_a_library_with_a_handler_that_does_nothing_is_heard(records):
    def load(value):
        log = logging.getLogger('of.a.library')
        log.addHandler(logging.NullHandler())
        log.warning('heard')
        return value

    run(load)
    assert records.messages() == ['heard']


def test_records_of_many_threads_and_results_do_not_mix(records):
    def load(value):
        def log_some():
            for number in range(50):
                logging.getLogger('mine').warning('%s', f'{value} {number} ' + 'x' * (1000 * (number % 5) ** 3))

        sys.log_threads = [*getattr(sys, 'log_threads', []), *(threading.Thread(target=log_some) for _ in range(4))]
        for thread in sys.log_threads[-4:]:
            thread.start()
        for thread in sys.log_threads if value == 11 else ():
            thread.join()
        return np.full(50_000, value)  # while they go on

    assert [int(array.sum()) // 50_000 for array in run(load, values=range(12))] == list(range(12))
    got = sorted(tuple(map(int, message.split()[:2])) for message in records.messages())
    assert got == sorted((value, number) for value in range(12) for number in range(50) for _ in range(4))


def test_a_finalizer_may_log_while_a_result_is_sent(records):
    class Logging:
        def __init__(self, number):
            self.number = number

        def __reduce__(self):
            logging.getLogger('mine').warning('pickled %d', self.number)
            return int, (self.number,)

    assert run(Logging, n=2, values=range(100)) == list(range(100))
    assert set(records.messages()) == {f'pickled {number}' for number in range(100)}


def test_what_was_logged_before_a_process_died_is_heard(records, tmp_path):
    def load(value):
        logging.getLogger('mine').warning('begin %d', value)
        if value == 3 and not (tmp_path / 'once').exists():
            (tmp_path / 'once').touch()
            import os

            os._exit(1)
        return value

    with pytest.warns(RuntimeWarning, match='exited with code 1'):
        assert run(load, values=range(6)) == list(range(6))
    assert records.messages().count('begin 3') == 2


def test_no_record_that_was_sent_is_lost_when_the_batches_are_closed(records, tmp_path):
    def load(value):
        for number in range(100):
            logging.getLogger('mine').warning('%d %d', value, number)
        (tmp_path / f'{value}').touch()
        if value:
            threading.Event().wait()
        return value

    batches = pipeline(range(10**9), apply(load, workers=processes(1, ahead=3)), prefetch())
    assert next(iter(batches)) == 0
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (tmp_path / '1').exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    batches.close()
    assert records.messages() == [f'{value} {number}' for value in range(2) for number in range(100)]


def test_a_process_that_logs_without_end_holds_nothing_up(records):
    logging.getLogger('mine').addFilter(lambda record: False)

    def load(value):
        def log_on():
            while True:
                logging.getLogger('mine').warning('again')

        if value == 0:
            threading.Thread(target=log_on, daemon=True).start()
        return value

    try:
        assert run(load, n=2, values=range(200)) == list(range(200))
    finally:
        logging.getLogger('mine').filters.clear()


def test_a_fork_of_a_process_prints_what_it_logs(records, capfd):
    def load(value):
        import os

        pid = os.fork()
        if not pid:
            logging.getLogger('mine').warning('in a fork')
            os._exit(0)
        os.waitpid(pid, 0)
        return value

    assert run(load) == [0]
    assert capfd.readouterr().err == 'in a fork\n'

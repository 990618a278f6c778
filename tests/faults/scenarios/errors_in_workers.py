"""Functions that raise in worker processes, and values that cannot travel."""

import threading
import traceback

from acts import note_warnings, numbers, play, say
from leftovers import left

from pipekit import RemoteError, apply, pipeline, prefetch, processes


class Unusual(Exception):
    def __init__(self, a, *, b):
        super().__init__(f'{a} and {b}')
        self.a, self.b = a, b


class Unpicklable(Exception):
    def __init__(self):
        super().__init__(1)
        self.lock = threading.Lock()


def caused():
    try:
        raise KeyError(7)
    except KeyError as error:
        try:
            raise ValueError(8) from error
        except ValueError as other:
            return other


ERRORS = {
    'of the system': lambda: OSError(2, 'No such file', 'a.png'),
    'of decoding': lambda: UnicodeDecodeError('utf-8', b'ab', 0, 1, 'why'),
    'with unusual arguments': lambda: Unusual(1, b=2),
    'a group': lambda: ExceptionGroup('two', [KeyError(1), OSError(3, 'x')]),
    'an interrupt': KeyboardInterrupt,
    'an exit': lambda: SystemExit(4),
    'the end of an iterator': lambda: StopIteration(4),
    'one that cannot be pickled': Unpicklable,
    'with a cause': caused,
}


def what_it_carries(error):
    match error:
        case RuntimeError():
            return repr(error.__cause__)
        case OSError():
            return error.filename, error.errno
        case UnicodeError():
            return error.object, error.reason
        case Unusual():
            return error.a, error.b
        case ExceptionGroup():
            return error.exceptions[0], error.exceptions[1].errno
        case RemoteError():
            return error.type_name, error.arguments
        case ValueError():
            return (error.__cause__,)
    return error.args


def a_function_raises(kind):
    make = ERRORS[kind]

    def load(value):
        if value == 40:
            raise make()
        return value

    got = []
    batches = pipeline(numbers, apply(load, workers=processes(2)), prefetch())
    try:
        got.extend(batches)
    except BaseException as error:
        text = ''.join(traceback.format_exception(error))
        say(type(error).__name__, what_it_carries(error), got == list(range(40)), 'in load' in text)
    batches.close()
    say(left())


def something_cannot_be_sent():
    def first(value):
        return {'image': value, 'lines': (line for line in 'ab') if value == 30 else 1}

    def values():
        yield from range(30)
        yield threading.Lock()

    lock = threading.Lock()
    for source, function in [(numbers, first), (values, float), (numbers, lambda value: lock)]:
        got = []
        batches = pipeline(source, apply(function, workers=processes(2)), prefetch())
        try:
            got.extend(batches)
        except TypeError as error:
            say(len(got), str(error).partition(': cannot')[0])
        batches.close()
    say(left())


def refuse():
    raise ImportError('not here')


class Refused:
    def __reduce__(self):
        return refuse, ()


def something_cannot_be_made_at_the_other_end(way):
    def values():
        for value in range(100):
            yield Refused() if value == 60 and way == 'there' else value

    def load(value):
        return Refused() if value == 60 else value

    got = []
    batches = pipeline(values, apply(load, workers=processes(2)), prefetch())
    try:
        got.extend(batches)
    except ImportError as error:
        say(error, got == list(range(60)))
    batches.close()
    say(left())


note_warnings()
play(globals())

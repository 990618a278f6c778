import json
import pickle
import subprocess
import sys
import traceback
from functools import reduce
from pathlib import Path

import pytest

from pipekit import RemoteError
from pipekit.workers.pickling import dumps
from pipekit.workers.remote_errors import sendable_error


class TwoArguments(Exception):
    def __init__(self, first, second):
        super().__init__(f'{first} and {second}')


class Forgetful(Exception):
    def __reduce__(self):
        return Forgetful, self.args


def with_attribute(error):
    error.attribute = 1
    return error


@pytest.mark.parametrize(
    'error', [OSError(2, 'gone'), ValueError('a', 1), KeyboardInterrupt(), KeyError([1])], ids=repr
)
def test_an_error_that_can_be_pickled_is_sent_as_it_is(error):
    assert sendable_error(error) is error


@pytest.mark.parametrize(
    ('error', 'name', 'arguments'),
    [
        (OSError(line for line in 'ab'), 'OSError', ['<generator>']),
        (TwoArguments(1, 2), 'TwoArguments', ["'1 and 2'"]),
        (with_attribute(Forgetful(1)), 'Forgetful', ['1']),
    ],
)
def test_other_errors_are_replaced_by_a_remote_error(error, name, arguments):
    sent = pickle.loads(pickle.dumps(sendable_error(error)))
    assert isinstance(sent, RemoteError)
    assert (sent.type_name, sent.arguments) == (name, arguments)
    assert name in sent.traceback


class Broken:
    def __getattr__(self, name):
        return getattr(self, name + '_')

    def __enter__(self):
        raise KeyError('enter')

    def __exit__(self, *_):
        pass

    def __repr__(self):
        return f'Broken({self!r})'

    def __lt__(self, other):
        return self < other

    def __iter__(self):
        yield from self


def called_with_lines():
    return max(
        len('a'),
        int('b'),
    )


def entered():
    with Broken():
        pass


def caught():
    try:
        int('c')
    except ValueError as error:
        raise TypeError('not a number') from error


def noted():
    error = OSError(2, 'gone')
    error.add_note('two')
    error.add_note('lines')
    raise error


def recursive(n):
    return n + recursive(n + 1)


def mutual(n):
    return mutual_too([n])


def mutual_too(n):
    return [mutual(each) for each in n]


def nested_causes(n):
    try:
        if n == 0:
            raise ValueError('the first')
        nested_causes(n - 1)
    except ValueError as error:
        raise ValueError(n) from error


def deep_value():
    return reduce(lambda value, _: [value], range(10**5), [])


RAISERS = {
    'a call': lambda: int('a'),
    'an operator': lambda: 1 + 2 * (3 / 0),
    'letters of several bytes': lambda: ('äöü€', 1 / 0),
    'a subscript': lambda: {'a': [1]}['a'][5],
    'an attribute': lambda: 'a'.upper().unreal,
    'a chain of calls': lambda: 'a'.upper().lower().join([1]),
    'a comprehension': lambda: [1 / value for value in (2, 1, 0)],
    'a generator': lambda: sum(1 / value for value in (2, 1, 0)),
    'several lines': called_with_lines,
    'a statement': entered,
    'a cause': caught,
    'a note': noted,
    'another module': lambda: json.loads('{'),
    'a conditional': lambda: 1 if 1 // 0 else 2,
    'an unpacking': lambda: divmod(*[1]),
    'a format': lambda: f'{1:q}',
    'compiled code': lambda: eval('1 / 0'),
    'code that cannot be compiled': lambda: eval('1 +'),
    'code without columns': lambda: exec(compile('x = 1\n\ny = x / 0', 'nowhere.py', 'exec')),
    'a name': lambda: no_such_name,  # noqa: F821
    'a group': lambda: (_ for _ in ()).throw(ExceptionGroup('two', [ValueError(1), OSError(2)])),
}
DEEP = {
    'a function': lambda: recursive(0),
    'two functions': lambda: mutual(0),
    'an attribute': lambda: Broken().attribute,
    'a repr': lambda: repr(Broken()),
    'a comparison': lambda: Broken() < 1,
    'a generator': lambda: list(Broken()),
    'C code': lambda: json.dumps(deep_value()),
}


def raised(function):
    try:
        function()
    except Exception as error:
        return error.with_traceback(error.__traceback__.tb_next)


def text_of(error):
    return ''.join(traceback.format_exception(error))


def copied(error):
    return pickle.loads(dumps(sendable_error(error, dumps)))


@pytest.mark.parametrize('kind', RAISERS)
def test_a_traceback_is_the_same_in_another_process_to_the_column(kind):
    error = raised(RAISERS[kind])
    expected = text_of(error)
    assert text_of(copied(error)) == text_of(copied(copied(error))) == expected


@pytest.mark.parametrize('kind', DEEP)
def test_the_traceback_of_a_deep_recursion_is_shortened_and_the_type_kept(kind):
    error = raised(DEEP[kind])
    got = copied(error)
    assert type(got) is RecursionError
    assert got.args == error.args
    frames, expected = traceback.extract_tb(got.__traceback__), traceback.extract_tb(error.__traceback__)
    assert len(frames) <= 100
    assert [frames[0], frames[-1]] == [expected[0], expected[-1]]
    if len(expected) > 100:
        assert [frames[:10], frames[-10:]] == [expected[:10], expected[-10:]]
        assert frames[10].name == f'{len(expected) - 20} frames are left out'


@pytest.mark.parametrize('n', [1, 19, 20, 90, 190])
def test_many_causes_are_shortened(n):
    error = copied(raised(lambda: nested_causes(n)))
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert [str(cause) for cause in causes] == [*map(str, range(n, -1, -1)), 'the first'][:21]


@pytest.mark.parametrize('name', ['a script', 'standard input', 'a notebook'])
@pytest.mark.parametrize('kind', ['load', 'unpicklable'])
def test_a_traceback_from_a_process_shows_the_file_and_the_line(name, kind, tmp_path):
    code = (Path(__file__).parent / 'programs' / 'tracebacks.py').read_text(encoding='utf-8')
    script = tmp_path / 'train.py'
    script.write_text(code, encoding='utf-8')
    start = {'a script': [script, kind], 'a notebook': [script, kind, 'in a cell'], 'standard input': ['-', kind]}[name]
    done = subprocess.run(
        [sys.executable, *start], input=code, capture_output=True, text=True, timeout=100, check=True, cwd=tmp_path
    )
    file = {'a script': str(script), 'a notebook': 'cell.py', 'standard input': '<stdin>'}[name]
    shown = [f'  File "{file}", line 9, in load']
    if name != 'standard input':
        shown += ["    return inner('äö', 1 / value)"]
        shown += [' ' * 23 + '~~^~~~~~~']
    assert '\n'.join(shown) in done.stdout
    assert '<dynamic-code>' not in done.stdout

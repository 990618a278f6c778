import functools
import operator
import re
import time
import tracemalloc
from collections import Counter, OrderedDict, UserList, defaultdict, deque, namedtuple
from dataclasses import dataclass
from unittest.mock import Mock

import numpy as np
import pytest
import toolz
from hypothesis import given
from hypothesis import strategies as st
from toolz import curried

from pipekit import apply, combine_batches, mix, multiply, pipeline
from pipekit.describing.display import call_code, code, is_partial, structure
from pipekit.describing.tables import Table

Pair = namedtuple('Pair', 'image label')


@dataclass
class Dataset:
    ids: list
    folder: str = 'data'

    def load(self, id):
        return id


class Default:
    def method(self):
        pass


class Hostile:
    def __getattr__(self, name):
        raise AttributeError if name == '__name__' else RuntimeError  # pytest asks for the name

    def _raise(self, *args):
        raise RuntimeError

    __repr__ = __len__ = __eq__ = __iter__ = __getitem__ = __bool__ = _raise
    __hash__ = None


class NoText:
    def __repr__(self):
        return 3


class HostileList(list):
    __iter__ = __getitem__ = Hostile._raise


class HostileDict(dict):
    items = __iter__ = Hostile._raise


class HostileType(type):
    __repr__ = Hostile._raise


class OfHostileType(metaclass=HostileType):
    pass


class Numbers(list):
    pass


class Ids(list):
    def __repr__(self):
        return f'Ids({len(self)})'


def recursive(make, put):
    value = make()
    put(value, value)
    return value


def nested(levels, make):
    value = ()
    for _ in range(levels):
        value = make(value)
    return value


STRANGE = [
    Default(),
    Default().method,
    Hostile(),
    [Hostile(), 1],
    {1: Hostile()},
    NoText(),
    HostileList([1]),
    HostileDict(a=1),
    OfHostileType,
    OfHostileType(),
    Mock(),
    UserList([1]),
    recursive(list, list.append),
    recursive(dict, lambda outer, inner: outer.update(a=inner)),
    recursive(lambda: np.empty(2, object), lambda outer, inner: outer.fill(inner)),
    recursive(lambda: Dataset([]), lambda outer, inner: outer.ids.append(inner)),
    nested(5000, lambda part: [part]),
    nested(50, lambda part: (part,) * 8),
    nested(50, lambda part: [part] * 3),
    nested(50, lambda part: dict.fromkeys(range(9), part)),
    np.array([NoText(), 1], object),
    lambda x: x,
    [lambda x: x],
    functools.partial(Default().method, lambda: 0),
    toolz.juxt(abs, Default().method),
    (x for x in 'a'),
    iter([1]),
    np.random.default_rng(0),
    np.random.default_rng(0).normal,
    object(),
    10**6000,
    'text at 0x7f937979a5c0',
]


@pytest.mark.parametrize('show', [code, structure])
@pytest.mark.parametrize('value', STRANGE, ids=lambda value: type(value).__name__)
def test_anything_can_be_shown_at_once_and_without_an_address(show, value):
    start = time.perf_counter()
    text = show(value)
    assert time.perf_counter() - start < 1
    assert type(text) is str
    assert len(text) < 2000
    assert isinstance(value, str) or not re.search(r'0x[0-9a-fA-F]{6}|\d{9}', text)


@pytest.fixture(scope='module')
def millions():
    return list(range(10**7))


@pytest.mark.parametrize('show', [code, structure])
@pytest.mark.parametrize(
    'make',
    [
        list,
        tuple,
        Numbers,
        Dataset,
        deque,
        lambda numbers: [numbers],
        lambda numbers: {'ids': numbers},
        lambda numbers: functools.partial(max, numbers),
        lambda numbers: curried.map(max, numbers),
        lambda numbers: Dataset(numbers).load,
        lambda numbers: set(numbers[: 10**6]),
        lambda numbers: Counter(numbers[: 10**6]),
        lambda numbers: OrderedDict.fromkeys(numbers[: 10**6]),
        lambda numbers: 'x' * len(numbers),
        lambda numbers: bytearray(len(numbers)),
        lambda numbers: np.zeros(len(numbers)),
    ],
)
def test_what_is_large_is_shown_without_a_look_at_all_of_it(show, make, millions):
    value = make(millions)
    tracemalloc.start()
    text = show(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(text) < 200
    assert peak < 100_000


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (float('nan'), "float('nan')"),
        ([-float('inf')], "[float('-inf')]"),
        (np.float32(1.5), 'np.float32(1.5)'),
        (np.array([1, 2]), 'array([1, 2])'),
        (np.array([1.5], np.float32), 'array([1.5], dtype=float32)'),
        (np.array([], np.int64), 'array([], dtype=int64)'),
        (np.zeros((2, 3)), '<float64[2, 3]>'),
        (np.array([None]), '<object[1]>'),
        ((1,), '(1,)'),
        ((), '()'),
        (set(), 'set()'),
        ({'b', 'a', 'c'}, "{'a', 'b', 'c'}"),
        (frozenset({1}), 'frozenset({1})'),
        (deque([1, 2]), 'deque([1, 2])'),
        (Numbers([1, 2]), 'Numbers([1, 2])'),
        (Ids(range(1000)), 'Ids(1000)'),
        (Counter('aab'), '<Counter of 2>'),
        (defaultdict(list), '<defaultdict of 0>'),
        (Pair(1, [2]), 'Pair(image=1, label=[2])'),
        (Dataset([1]), "Dataset(ids=[1], folder='data')"),
        (Dataset, 'Dataset'),
        (Dataset([1]).load, "Dataset(ids=[1], folder='data').load"),
        (Default(), '<Default>'),
        (Default().method, '<Default>.method'),
        (Default.method, 'Default.method'),
        (str.upper, 'str.upper'),
        (dict.fromkeys, 'dict.fromkeys'),
        (Hostile(), '<Hostile>'),
        (lambda x: x, '<lambda>'),
        (abs, 'abs'),
        (np.mean, 'np.mean'),
        (np.add, 'np.add'),
        (sum, 'sum'),
        (functools.partial(np.mean, axis=0), 'partial(np.mean, axis=0)'),
        (functools.partial(max, 1, key=abs), 'partial(max, 1, key=abs)'),
        (toolz.curry(max), 'max'),
        (curried.map(abs), 'map(abs)'),
        (operator.attrgetter('a'), "operator.attrgetter('a')"),
        ([1, {'a': (2, [3])}], "[1, {'a': (2, [3])}]"),
        (list(range(1000)), '<list of 1000: 0, 1, 2, ..., 999>'),
        (['x' * 60, 'y' * 60], '<list of 2>'),
        (['x' * 50, 1, 'y' * 50], '<list of 3>'),
        ([list(range(100))], '[<list of 100: 0, 1, 2, ..., 99>]'),
        ('x' * 100, f"<str of 100: '{'x' * 51}...>"),
        (dict.fromkeys(range(100)), '<dict of 100>'),
    ],
)
def test_values_are_shown_as_the_code_that_makes_them_or_in_angle_brackets(value, expected):
    assert code(value) == expected


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
ATOMS = NUMBERS | st.text(max_size=80) | st.binary(max_size=80)
BUILTINS = st.recursive(
    ATOMS,
    lambda parts: (
        st.lists(parts)
        | st.lists(parts).map(tuple)
        | st.lists(parts, max_size=3).map(deque)
        | st.dictionaries(ATOMS, parts)
        | st.sets(ATOMS)
        | st.frozensets(ATOMS)
    ),
)


@given(BUILTINS)
def test_code_without_angle_brackets_evaluates_to_the_value(value):
    text = code(value)
    if '<' not in text:
        assert eval(text) == value
    assert '\n' not in text


@given(BUILTINS)
def test_code_is_short(value):
    assert len(code(value)) < 120
    assert type(structure(value)) is str


def test_nested_pipelines_are_shown_whole():
    part = pipeline([1] * 100, apply(functools.partial(max, 1)), apply(abs), combine_batches(3), combine_batches(4))
    shown = repr(mix(part, [part]))
    assert shown.count('apply(partial(max, 1))') == 1
    assert eval(repr(multiply(multiply(multiply(abs))))) == multiply(multiply(multiply(abs)))


def test_a_long_call_is_written_over_several_lines():
    inner = functools.partial(max, 'x' * 40, key='y' * 40)
    assert call_code('apply', [inner], {'seed': 0}) == '\n'.join(
        [
            'apply(',
            '    partial(',
            '        max,',
            f"        '{'x' * 40}',",
            f"        key='{'y' * 40}',",
            '    ),',
            '    seed=0,',
            ')',
        ]
    )


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (np.zeros((1, 28, 28), np.float32), 'float32[1, 28, 28]'),
        (np.int64(3), 'int64'),
        (np.array(3), 'int64'),
        ((np.zeros(2), 'a'), '(float64[2], str)'),
        ((1,), '(int,)'),
        ({'a': {'b': 1}, 3: None}, "{'a': {'b': int}, 3: NoneType}"),
        (Pair(1, 'a'), 'Pair(image=int, label=str)'),
        (Dataset([]), 'Dataset(ids=[], folder=str)'),
        ([1, 2.5, 3], '[int | float] of 3'),
        ([[1]], '[[int] of 1] of 1'),
        ((0,) * 9, '(int, int, int, int, int, int, int, int, ...)'),
        (Hostile(), 'Hostile'),
        (HostileDict(a=1), 'HostileDict'),
    ],
)
def test_the_structure_of_a_value_is_the_types_and_shapes_of_its_fields(value, expected):
    assert structure(value) == expected


def test_the_structure_of_a_foreign_array_has_its_type():
    tensor = Mock(shape=(2, 3), dtype='torch.float32')
    assert structure(tensor) == 'Mock(torch.float32[2, 3])'


def test_a_table_aligns_cells_of_several_lines():
    table = Table(['stage', 'gives'], [['a(\n    b,\n)', 'int'], ['c', 'x\ny']], notes=['a note'])
    assert repr(table).split('\n') == [
        'stage   gives',
        'a(      int',
        '    b,',
        ')',
        'c       x',
        '        y',
        'a note',
    ]


def test_a_table_escapes_what_a_notebook_shows():
    html = Table(['<h>'], [['<lambda> & "x"']], notes=['<script>'])._repr_html_()
    assert '&lt;lambda&gt; &amp;' in html
    assert not re.search('<(h|lambda|script)>', html)


def test_a_table_may_be_empty():
    assert repr(Table(['stage'], [])) == 'stage'
    assert '<th' in Table(['stage'], [])._repr_html_()


def test_partials_of_functools_and_of_toolz_are_distinguished_from_other_functions():
    assert is_partial(functools.partial(max, 1))
    assert is_partial(toolz.curry(max)(1))
    assert not any(map(is_partial, [max, Default().method, toolz.juxt(abs), Mock()]))

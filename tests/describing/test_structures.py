from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import pytest

from pipekit.describing.structures import fields_of, has_fields, is_named_tuple, with_fields

Pair = namedtuple('Pair', 'image label')


@dataclass(frozen=True)
class Sample:
    image: object
    label: object = field(init=False, default=2)

    @cached_property
    def both(self):
        return self.image, self.label


@dataclass
class Incomplete:
    image: object
    label: object = field(init=False)


@pytest.mark.parametrize(
    ('value', 'fields'),
    [
        ((1, 2), [(0, 1), (1, 2)]),
        ((), []),
        (Pair(1, 2), [('image', 1), ('label', 2)]),
        ({'image': 1, 3: 2}, [('image', 1), (3, 2)]),
        (MappingProxyType({'image': 1}), [('image', 1)]),
        (Sample(1), [('image', 1), ('label', 2)]),
        (Incomplete(1), [('image', 1)]),
    ],
)
def test_tuples_mappings_and_dataclasses_have_fields(value, fields):
    assert has_fields(type(value))
    assert fields_of(value) == fields


@pytest.mark.parametrize('value', [[1, 2], 'text', b'text', {1}, None, 3, Sample, Pair, object()])
def test_nothing_else_has_fields(value):
    assert not has_fields(type(value))
    assert fields_of(value) is None


@pytest.mark.parametrize(
    ('like', 'expected'),
    [
        ((1, 2), (3, 4)),
        ([1, 2], [3, 4]),
        (Pair(1, 2), Pair(3, 4)),
        ({'a': 1, 'b': 2}, {'a': 3, 'b': 4}),
        (OrderedDict(a=1, b=2), {'a': 3, 'b': 4}),
    ],
)
def test_new_fields_make_a_value_of_the_same_kind(like, expected):
    made = with_fields(like, [3, 4])
    assert (made, type(made)) == (expected, type(expected))


def test_a_dataclass_with_new_fields_keeps_nothing_that_was_computed_from_the_old_ones():
    sample = Sample(1)
    assert sample.both == (1, 2)
    assert with_fields(sample, [3, 4]).both == (3, 4)
    assert sample.both == (1, 2)


def test_a_named_tuple_is_distinguished_from_a_tuple():
    assert is_named_tuple(Pair(1, 2))
    assert not is_named_tuple((1, 2))
    assert not is_named_tuple(Pair)

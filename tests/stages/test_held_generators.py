"""A random generator that a function with workers holds on to is warned of when the batches are opened."""

import inspect
import random
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from operator import attrgetter
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pipekit import (
    apply,
    apply_at,
    combine_batches,
    combine_to_arrays,
    mix,
    multiply,
    per_worker,
    pipeline,
    prefetch,
    processes,
    random_apply,
    sample_args,
    skip,
    threads,
    unpack,
    unpack_args,
    zip_apply,
)
from pipekit.batches.generator_checks import warn_of_held_generators
from pipekit.stages.held_generators import held_generators

GEN, OTHER = np.random.default_rng(0), np.random.RandomState(0)
COMPOSED = SimpleNamespace(transforms=[SimpleNamespace(p=0.5, random_generator=np.random.default_rng(0))])
KINDS = {
    threads(2): 'which the threads share and draw from in no fixed order',
    processes(2): 'of which each process has a copy, so that random numbers repeat',
}


def new():
    return np.random.default_rng(0)


def closing_over(held):
    def augment(x):
        return x, held

    return augment


def with_default(x, held=np.random.default_rng(0)):  # noqa: B008
    return x


def with_keyword_default(x, *, held=np.random.default_rng(0)):  # noqa: B008
    return x


def naming_a_global(x):
    return x + GEN.normal()


def naming_it_in_a_comprehension(x):
    return [GEN.normal() for _ in range(x)]


def naming_it_in_a_lambda(x):
    return sorted([x], key=lambda y: y + GEN.normal())


def calling_a_helper(x):
    return naming_a_global(x)


def calling_a_global_object(x):
    return COMPOSED.transforms[0].random_generator.normal() + x


def passed_to_a_helper(x, rng):
    return helper_with_default(x) + rng.normal()


def helper_with_default(x, rng=np.random.default_rng(0)):  # noqa: B008
    return x


def with_two(x, gen):
    return x


class Augment:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __call__(self, x):
        return x

    def method(self, x):
        return x


class CallNamesGlobal:
    def __call__(self, x):
        return x + GEN.normal()


class MentionsItself:
    def __init__(self, gen):
        self.GEN = gen

    def __call__(self, x):
        return x + self.GEN.normal()


class AsInMonai:
    R = np.random.RandomState()

    def __call__(self, x):
        return x


@dataclass(slots=True)
class Slotted:
    rng: object

    def __call__(self, x):
        return x


class Subclass(random.Random):
    pass


def decorated(func):
    @wraps(func)
    def call(x):
        return func(x)

    return call


def recursive(gen):
    def augment(x):
        return augment(x - 1) if x else gen

    return augment


HOLDERS = {
    'a closure': (closing_over(new()), 'augment', 'held'),
    'a RandomState': (closing_over(np.random.RandomState(0)), 'augment', 'held'),
    'a random.Random': (closing_over(random.Random(0)), 'augment', 'held'),
    'a subclass': (closing_over(Subclass(0)), 'augment', 'held'),
    'a bit generator': (closing_over(np.random.PCG64(0)), 'augment', 'held'),
    'a lambda with a default': (lambda x, g=GEN: x, '<lambda>', 'g'),
    'a default': (with_default, 'with_default', 'held'),
    'a default of a keyword': (with_keyword_default, 'with_keyword_default', 'held'),
    'a global variable': (naming_a_global, 'naming_a_global', 'GEN'),
    'a global variable in a comprehension': (naming_it_in_a_comprehension, 'naming_it_in_a_comprehension', 'GEN'),
    'a global variable in a lambda': (naming_it_in_a_lambda, 'naming_it_in_a_lambda', 'GEN'),
    'a helper': (calling_a_helper, 'naming_a_global', 'GEN'),
    'an object in a global variable': (
        calling_a_global_object,
        'calling_a_global_object',
        'COMPOSED.transforms[0].random_generator',
    ),
    'an attribute of a default': (passed_to_a_helper, 'helper_with_default', 'rng'),
    'a partial': (partial(with_two, gen=new()), 'with_two', 'gen'),
    'a partial by position': (partial(lambda gen, x: x, new()), '<lambda>', 'args[0]'),
    'a partial of a partial': (partial(partial(with_two, gen=new())), 'with_two', 'gen'),
    'a callable object': (Augment(rng=new()), '<Augment>', 'self.rng'),
    'a list in an object': (Augment(parts=[1, new()]), '<Augment>', 'self.parts[1]'),
    'a dict in an object': (Augment(parts={'a': new()}), '<Augment>', "self.parts['a']"),
    'an object in an object': (Augment(first=Augment(rng=new())), '<Augment>', 'self.first.rng'),
    'a method in an object': (Augment(draw=new().normal), '<Augment>', 'self.draw.__self__'),
    'a bound method': (Augment(rng=new()).method, '<Augment>.method', 'self.rng'),
    'an object in a closure': (closing_over(Augment(rng=new())), 'augment', 'held.rng'),
    'a method of a generator': (new().permutation, '<Generator>.permutation', 'self'),
    'a builtin method of a generator': (random.Random(0).choice, '<Random>.choice', 'self'),
    'a call that names a global variable': (CallNamesGlobal(), 'CallNamesGlobal.__call__', 'GEN'),
    'an attribute of the class': (AsInMonai(), '<AsInMonai>', 'self.R'),
    'a slot': (Slotted(new()), 'Slotted', 'self.rng'),
    'a decorated function': (decorated(closing_over(new())), 'augment', 'held'),
    'a cached function': (lru_cache(closing_over(new())), 'augment', 'held'),
    'a nested function': (closing_over(closing_over(closing_over(new()))), 'augment', 'held'),
    'a vectorized function': (np.vectorize(closing_over(new())), 'augment', 'held'),
    'a recursive function': (recursive(new()), 'augment', 'gen'),
    'apply_at': (apply_at(0, closing_over(new())), 'augment', 'held'),
    'apply_at with a path': (apply_at((0, 'a'), closing_over(new())), 'augment', 'held'),
    'multiply': (multiply(Augment(rng=new())), '<Augment>', 'self.rng'),
    'zip_apply': (zip_apply(abs, closing_over(new())), 'augment', 'held'),
    'random_apply': (random_apply(0.5, closing_over(new())), 'augment', 'held'),
    'unpack_args': (unpack_args(partial(with_two, gen=new())), 'with_two', 'gen'),
    'sample_args': (sample_args(closing_over(new())), 'augment', 'held'),
    'several of them': (apply_at(0, multiply(unpack_args(closing_over(new())))), 'augment', 'held'),
    'a per_worker': (closing_over(per_worker(closing_over(new()))), 'augment', 'held'),
}


def taking_rng(x, rng):
    return x + rng.normal()


def taking_rng_with_a_default(x, rng=np.random.default_rng(0)):  # noqa: B008
    return x


def making_its_own(x):
    return np.random.default_rng(x).normal()


def with_an_attribute_of_that_name(x):
    return x.GEN


def drawing_from_the_global_ones(x):
    return np.random.rand() + random.random() + x


HARMLESS = {
    'a builtin': abs,
    'a type': float,
    'a function of numpy': np.mean,
    'a combiner': combine_to_arrays,
    'a random function': taking_rng,
    'a default that is not used': taking_rng_with_a_default,
    'a keyword that is not used': partial(taking_rng, rng=new()),
    'those in a combination': apply_at(0, taking_rng_with_a_default),
    'one made for each sample': making_its_own,
    'an attribute with the name of a global variable': with_an_attribute_of_that_name,
    'the global ones': drawing_from_the_global_ones,
    'a function of the global one': random.choice,
    'that of numpy': np.random.permutation,
    'one without a state': closing_over(random.SystemRandom()),
    'a class': closing_over(np.random.Generator),
    'a function that makes one': closing_over(np.random.default_rng),
    'a seed': closing_over(np.random.SeedSequence(0)),
    'a module': closing_over(np.random),
    'an array': closing_over(np.zeros(3)),
    'an object': Augment(a=[1, 'a', {}], b=Slotted(None)),
    'samplers': sample_args(np.add, attrgetter('normal')),
    'one far inside of a list': closing_over([*range(1000), new()]),
    'a stage': closing_over(apply(naming_a_global)),
}


def opened(*stages):
    """The messages of the warnings when batches are opened."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        warn_of_held_generators(pipeline(range(4), *stages))
    assert all(each.category is RuntimeWarning for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize('workers', KINDS, ids=repr)
@pytest.mark.parametrize('holder', HOLDERS)
def test_the_warning_names_the_stage_and_the_variable_and_the_remedy(holder, workers):
    function, owner, variable = HOLDERS[holder]
    stage = apply(function, workers=workers)
    [message] = opened(stage)
    assert message.startswith(f'{" ".join(repr(stage).split())}: {owner}'), message
    assert f'holds the random generator `{variable}`, {KINDS[workers]}; ' in message
    assert 'rng=' in message


@pytest.mark.parametrize('workers', KINDS, ids=repr)
@pytest.mark.parametrize('function', HARMLESS)
def test_other_functions_are_not_warned_of(function, workers):
    assert opened(apply(HARMLESS[function], workers=workers)) == []


@pytest.mark.parametrize('holder', HOLDERS)
def test_functions_without_workers_are_left_alone(holder):
    function, _, _ = HOLDERS[holder]
    assert opened(apply(function), apply(abs, workers=threads(2))) == []


def test_an_executor_copies_or_shares():
    with ThreadPoolExecutor(1) as executor:
        [message] = opened(unpack(closing_over(new()), workers=executor))
    assert 'which the workers of the executor copy or share' in message


def test_generators_of_torch(monkeypatch):
    torch = ModuleType('torch')
    torch.Generator = type('Generator', (), {})
    torch.default_generator = torch.Generator()
    monkeypatch.setitem(sys.modules, 'torch', torch)
    [message] = opened(apply(closing_over(torch.Generator()), workers=threads(1)))
    assert '`held`' in message
    assert opened(apply(closing_over(torch.default_generator), workers=threads(1))) == []


def test_a_combiner_runs_where_its_samples_are():
    combine = combine_batches(2, closing_over(new()))
    assert opened(apply(abs, workers=threads(2)), combine) == []
    assert len(opened(apply(abs, workers=processes(2)), combine)) == 1
    assert opened(apply(abs, workers=processes(2), on_error=skip(ValueError)), combine) == []
    assert len(opened(combine_batches(2, closing_over(new()), workers=threads(2)))) == 1


def test_a_global_variable_that_is_an_attribute_as_well():
    [found] = held_generators(Augment(first=MentionsItself(GEN)))
    assert found.path == 'self.first.GEN'


def test_the_sources_of_a_mix():
    part = pipeline('ab', apply(closing_over(new()), workers=threads(2)))
    with pytest.warns(RuntimeWarning, match='`held`'):
        warn_of_held_generators(pipeline(mix(part, mix(part, 'c'))))


def test_once_for_each_generator_and_each_variable():
    gen = new()
    stages = [apply(closing_over(gen), workers=threads(n)) for n in (1, 2)]
    assert len(opened(*stages)) == 1
    several = Augment(parts=[Augment(rng=new()) for _ in range(9)])
    assert len(opened(apply(several, workers=threads(1)))) == 1
    two = opened(apply(lambda x, a=GEN, b=OTHER: x, workers=threads(1)))
    assert len(two) == 2


def test_it_points_to_the_line_that_opens_the_batches():
    batches = pipeline(range(4), apply(closing_over(new()), workers=threads(2)), prefetch(2))
    batches.load_state_dict(batches.state_dict())  # opens nothing
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        line = inspect.currentframe().f_lineno + 1
        list(batches)
        list(batches)
        batches.close()
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, line)]


def test_as_an_error_it_starts_nothing():
    batches = pipeline(range(4), apply(closing_over(new()), workers=threads(2)), prefetch(2))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(RuntimeWarning, match='rng='):
            list(batches)
    with pytest.warns(RuntimeWarning, match='rng='):
        assert len(list(batches)) == 2
    batches.close()


class Touchy:
    """Fails if any code of it runs."""

    def __init__(self, rng):
        object.__setattr__(self, 'rng', rng)

    def __getattribute__(self, name):
        raise AssertionError(name)

    def __call__(self, x):
        return x

    __eq__ = __hash__ = __iter__ = __len__ = __bool__ = property(lambda self: self.touched)
    __class__ = property(lambda self: self.touched)


class TouchyMeta(type):
    def __getattribute__(cls, name):
        raise AssertionError(name)


class TouchyList(list):
    __iter__ = __len__ = __getitem__ = __bool__ = None


class OwnDict:
    __dict__ = property(lambda self: 1 / 0)


# Made in the tests, because pytest looks into parameters.
TOUCHY = {
    'attributes': lambda: Touchy(new()),
    'attributes of a class': lambda: object.__new__(TouchyMeta('Touched', (), {'rng': new()})),
    'items': lambda: TouchyList([new()]),
}
CLOSED = {'its own __dict__': OwnDict, 'nothing': lambda: Touchy(None), 'a generator': lambda: (x for x in 'a')}


@pytest.mark.parametrize('held', TOUCHY)
def test_no_code_of_the_users_runs(held):
    [found] = held_generators(closing_over(TOUCHY[held]()))
    assert found.path.startswith('held')


@pytest.mark.parametrize('held', CLOSED)
def test_what_cannot_be_looked_into_is_passed_over(held):
    assert [found.path for found in held_generators(closing_over((CLOSED[held](), new())))] == ['held[1]']


def test_an_empty_cell_is_passed_over():
    def augment(x):
        return later, gen

    gen = new()
    assert [found.path for found in held_generators(augment)] == ['gen']
    later = 1


def test_an_object_that_holds_itself():
    augment = Augment(parts=[])
    augment.parts += [augment, augment.parts, augment.method]
    assert list(held_generators(augment)) == []


def test_large_objects_take_few_calls():
    wide = Augment(**{f'part{n}': [Augment(a=n, b=[n]) for n in range(100)] for n in range(100)})
    deep = Augment()
    for _ in range(100):
        deep = Augment(first=deep, others=[deep] * 1000, data=np.zeros(100), names=['a'] * 10**4)
    for function in (wide, deep):
        calls = []
        sys.setprofile(lambda *event, calls=calls: calls.append(event[1]))
        try:
            found = list(held_generators(function))
        finally:
            sys.setprofile(None)
        assert found == []
        assert len(calls) < 50_000  # of the ten thousand, and the million, parts

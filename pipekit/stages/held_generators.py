"""Finds the values that a function can reach, above all the random generators, without running code of the user's."""

from __future__ import annotations

import dis
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from types import (
    BuiltinMethodType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, NamedTuple

import numpy as np

from ..describing.tracebacks import OWN_FILES
from ..workers.resources import PerWorker
from .functions import SampleFunction, Unpacking

MOST_VALUES, MOST_ITEMS, DEEPEST = 300, 50, 3  # values in a function, items in each, objects within objects
PLAIN = (str, bytes, int, float, complex, type(None), np.ndarray, np.generic, type, ModuleType)
CONTAINERS = (list, tuple, deque, dict)
WRAPPERS = (SampleFunction, Unpacking, PerWorker)  # pipekit's own, around users' functions
GENERATORS = {
    'numpy.random': ('Generator', 'RandomState', 'BitGenerator'),
    'random': ('Random',),
    'torch': ('Generator',),
}
GLOBAL = {'numpy.random.mtrand': '_rand', 'random': '_inst', 'torch': 'default_generator'}
# By these, reading the members of a class and its bases runs no code of the user's.
bases_of, members_of = type.__dict__['__mro__'].__get__, type.__dict__['__dict__'].__get__


class Reached(NamedTuple):
    """A value that a function can reach.

    Attributes
    ----------
    owner, path
        The function, and what leads from it to the value, such as ``self.rng``; empty for what a stage calls.
    depth
        How many objects the value is in.
    takes_rng
        Whether the value is called with ``rng``: then its own default for that is not used.
    names
        The global variables on the way, each with the code that names it, or an attribute that has the same name.
    """

    value: Any
    owner: Any = None
    path: str = ''
    depth: int = 0
    takes_rng: bool = False
    names: tuple[tuple[CodeType, str], ...] = ()

    def within(self, name: str, value: Any, depth: int = 0) -> Reached:
        path = self.path + name if self.path else name.removeprefix('.')
        return Reached(value, self.owner, path, self.depth + depth, False, self.names)


def held_generators(function: Callable[..., Any], *, takes_rng: bool = False) -> Iterator[Reached]:
    """The random generators that a function can reach, the nearest first; not those that a whole program shares."""
    shared = [id(_loaded(*item)) for item in GLOBAL.items()]
    for reached in values_within(function, _kinds_of_generators(), takes_rng=takes_rng):
        if id(reached.value) not in shared and type(reached.value) is not _loaded('random', 'SystemRandom'):
            yield reached


def values_within(
    function: Callable[..., Any], kinds: tuple[type, ...], *, takes_rng: bool = False
) -> Iterator[Reached]:
    """The values of some kinds that a function can reach, the nearest first."""
    seen: dict[int, Any] = {}
    waiting = deque([Reached(function, takes_rng=takes_rng)])
    members: dict[int, dict[str, Any]] = {}
    while waiting and len(seen) < MOST_VALUES:
        reached = waiting.popleft()
        is_found = issubclass(type(reached.value), kinds)
        if is_found and not all(name in _globals_of(where) for where, name in reached.names):
            continue
        if seen.setdefault(id(reached.value), reached) is not reached:
            continue
        if is_found:
            yield reached
        else:
            with suppress(Exception):  # another thread may be changing it
                values = (each for each in _values_in(reached, members) if not issubclass(type(each.value), PLAIN))
                waiting.extend(islice(values, MOST_VALUES - len(waiting)))


def _values_in(reached: Reached, members: dict[int, dict[str, Any]]) -> Iterator[Reached]:
    value, kind = reached.value, type(reached.value)
    if kind is FunctionType:
        yield from _variables_of(value, reached)
    elif kind in (MethodType, BuiltinMethodType):
        own = reached if reached.path else reached._replace(owner=value)
        if kind is MethodType:
            yield reached._replace(value=value.__func__)
        yield own.within('.__self__' if reached.path else 'self', value.__self__)
    elif issubclass(kind, partial):
        func, args, keywords = (partial.__dict__[name].__get__(value) for name in ('func', 'args', 'keywords'))
        yield reached._replace(value=func)
        own = reached if reached.path else reached._replace(owner=func)
        yield from (own.within(f'.args[{number}]', each) for number, each in enumerate(args))
        yield from (own.within(f'.{name}', each) for name, each in keywords.items() if _is_used(name, reached))
    elif issubclass(kind, CONTAINERS):
        base: Any = next(base for base in CONTAINERS if issubclass(kind, base))
        for key, each in islice(dict.items(value) if base is dict else enumerate(base.__iter__(value)), MOST_ITEMS):
            name = f'[{key!r}]' if type(key) in (int, str) else '[...]'
            yield reached.within(name, each) if reached.path else reached._replace(value=each)  # in a wrapper
    elif issubclass(kind, WRAPPERS):
        if getattr(kind, 'owns_generators', False):
            return
        yield from (reached._replace(value=each) for name, each in vars(value).items() if name != '_call')
    elif reached.depth < DEEPEST and members_of(kind).get('__module__', '').partition('.')[0] != 'pipekit':
        own = reached if reached.path else reached._replace(owner=value, path='self')
        if id(kind) not in members:
            members[id(kind)] = _members_of(kind)
        attributes = _attributes_of(value, members[id(kind)])
        if type(call := attributes.pop('__call__', None)) is FunctionType:
            yield reached._replace(value=call)
        yield from (own.within(f'.{name}', each, 1) for name, each in attributes.items())


def _variables_of(function: FunctionType, reached: Reached) -> Iterator[Reached]:
    where = function.__code__
    is_own = where.co_filename.startswith(OWN_FILES)
    in_it = reached._replace(owner=function, path='', takes_rng=False)
    for name, cell in zip(where.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty
            yield reached._replace(value=cell.cell_contents) if is_own else in_it.within(name, cell.cell_contents)
    last_first = where.co_varnames[where.co_argcount - 1 :: -1]
    by_position = zip(last_first, reversed(function.__defaults__ or ()), strict=False)
    defaults = chain(by_position, (function.__kwdefaults__ or {}).items())
    yield from (in_it.within(name, each) for name, each in defaults if _is_used(name, reached))
    for inner, name in () if is_own else _names_in(where):
        each = dict.get(function.__globals__, name)
        if type(each) is not FunctionType or each.__globals__ is function.__globals__:
            yield in_it.within(name, each)._replace(names=(*reached.names, (inner, name)))
    yield from (in_it.within(f'.{name}', each) for name, each in function.__dict__.items())  # such as __wrapped__


def _members_of(kind: type) -> dict[str, Any]:
    """What holds the attributes of the instances, the generators in the class and its bases, and ``__call__``."""
    found: dict[str, Any] = {}
    kinds = (MemberDescriptorType, *_kinds_of_generators())
    for base in bases_of(kind)[:-1]:
        for name, member in members_of(base).items():
            if name == '__call__' or issubclass(type(member), kinds):
                found.setdefault(name, member)
            elif name == '__dict__' and type(member) is GetSetDescriptorType:
                found[name] = member
    return found


def _attributes_of(value: Any, members: dict[str, Any]) -> dict[str, Any]:
    found = dict(members)
    for name, member in members.items():
        if type(member) in (MemberDescriptorType, GetSetDescriptorType):
            with suppress(AttributeError):  # a slot may not be set
                found[name] = member.__get__(value)
    found.update(islice(dict.items(found.pop('__dict__', {})), MOST_ITEMS))
    return found


def _is_used(name: str, reached: Reached) -> bool:
    return not (reached.takes_rng and name == 'rng')


def _names_in(where: CodeType) -> Iterator[tuple[CodeType, str]]:
    yield from ((where, name) for name in where.co_names)
    for inner in where.co_consts:
        if type(inner) is CodeType:  # of a lambda, a comprehension, a nested function
            yield from _names_in(inner)


def _globals_of(where: CodeType) -> set[str]:
    return {each.argval for each in dis.get_instructions(where) if each.opname in ('LOAD_GLOBAL', 'LOAD_NAME')}


def _loaded(module: str, name: str) -> Any:
    # Where a module is not imported, no function holds one of its generators.
    return vars(sys.modules.get(module) or object).get(name)


def _kinds_of_generators() -> tuple[type, ...]:
    kinds = (_loaded(module, name) for module, names in GENERATORS.items() for name in names)
    return tuple(kind for kind in kinds if isinstance(kind, type))

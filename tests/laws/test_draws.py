"""No two stages, passes or branches draw the same numbers, however they are nested and whatever their seeds."""

from collections import Counter
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from pipekit import apply, mix, pipeline, repeat, shuffle, take
from pipekit.streams.context import Context
from pipekit.streams.cursors import START


def draw(drawn, rng):
    return (*drawn, rng.random())


def first_two():
    return iter([(), ()])


stages = st.one_of(
    st.just(apply(draw, seed=0)),
    st.just(shuffle(2, seed=0)),
    st.builds(repeat, st.integers(2, 3)),
    st.builds(take, st.integers(2, 6)),
)
streams = st.recursive(
    st.just(pipeline(first_two, apply(draw, seed=0))),
    lambda inner: st.one_of(
        st.builds(lambda stream, steps: pipeline(stream, *steps), inner, st.lists(stages, min_size=1, max_size=3)),
        st.builds(lambda sources: mix(*sources, seed=0), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


@given(streams, st.integers(0, 2))
@settings(max_examples=300, deadline=None)
def test_every_draw_is_another(stream, number_of_pass):
    whole = pipeline(stream, apply(draw, seed=0))
    draws = Counter(
        drawn
        for number in (number_of_pass, number_of_pass + 1)
        for value, _ in islice(whole.open(START, Context().in_pass(number)), 40)
        for drawn in value
    )
    assert max(draws.values(), default=1) == 1

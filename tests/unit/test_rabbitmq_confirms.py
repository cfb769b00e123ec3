"""The sending channel's books, against a plain list of what is open."""

from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.rabbitmq.confirms import Confirms

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 12), st.integers(0, 3)),
        st.tuples(st.just("one"), st.integers(0, 60), st.just(0)),
        st.tuples(st.just("up to"), st.integers(0, 60), st.just(0)),
    ),
    max_size=40,
)


def spread(ranges):
    return [position for first, stop in ranges for position in range(first, stop)]


@given(STEPS)
def test_every_position_is_answered_once_and_only_when_the_broker_said_so(steps):
    confirms = Confirms()
    open_tags = {}  # tag → position
    next_tag, next_position = 1, 0
    for kind, number, gap in steps:
        if kind == "publish":
            next_position += gap  # what was refused before it was published leaves a hole
            confirms.published(next_position, list(range(number)))
            open_tags.update({next_tag + i: next_position + i for i in range(number)})
            next_tag += number
            next_position += number
            continue
        multiple = kind == "up to"
        told = [t for t in open_tags if t == number or (multiple and (t <= number or number == 0))]
        if number >= next_tag:
            told = []  # of a tag that was never used nothing is believed
        found = confirms.resolve(number, multiple=multiple)

        assert spread(found) == [open_tags.pop(t) for t in sorted(told)]
        assert confirms.in_flight == len(open_tags)

    assert spread(confirms.rest()) == list(open_tags.values())
    assert confirms.in_flight == 0
    assert confirms.rest() == []


def test_one_answer_for_many_is_one_range():
    confirms = Confirms()
    for first in range(0, 10_000, 200):
        confirms.published(first, [None] * 200)

    assert confirms.resolve(9_000, multiple=True) == [(0, 9_000)]
    assert confirms.rest() == [(9_000, 10_000)]


def test_what_came_back_is_found_among_what_is_open():
    confirms = Confirms()
    confirms.published(50, ["a", "b", "a", "c"])

    assert confirms.find(lambda row: row == "a") == 1
    assert confirms.resolve(1, multiple=False) == [(50, 51)]
    assert confirms.find(lambda row: row == "a") == 3
    assert confirms.find(lambda row: row == "z") is None
    assert confirms.resolve(3, multiple=False) == [(52, 53)]
    assert confirms.resolve(4, multiple=True) == [(51, 52), (53, 54)]

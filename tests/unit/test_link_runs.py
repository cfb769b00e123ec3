"""Runs of positions against a set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.link.runs import Runs

run = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda r: (r[0], r[0] + r[1]))
steps = st.lists(st.one_of(st.tuples(st.just("add"), run), st.tuples(st.just("forget"), run)), max_size=25)


def positions(runs):
    return [p for a, b in runs for p in range(a, b)]


@given(st.integers(0, 20), steps)
def test_it_agrees_with_a_set(mark, operations):
    runs = Runs(mark)
    model = set(range(mark))
    for name, (first, stop) in operations:
        if name == "add":
            expected = [p for p in range(first, stop) if p not in model]
            assert positions(runs.missing(first, stop)) == expected
            assert positions(runs.add(first, stop)) == expected
            model |= set(range(first, stop))
        else:
            runs.forget_below(first)
            model |= set(range(first))
        mark = next(p for p in range(200) if p not in model)
        assert runs.mark == mark
        assert positions(runs.runs()) == sorted(p for p in model if p > mark)
        assert [p for p in range(100) if p in runs] == sorted(p for p in model if p < 100)
        edges = [e for r in runs.runs() for e in r]
        assert edges == sorted(set(edges))  # no two runs touch


def test_in_order_nothing_is_kept_above_the_mark():
    runs = Runs()
    for first in range(0, 1000, 10):
        assert runs.add(first, first + 10) == [(first, first + 10)]
    assert (runs.mark, len(runs)) == (1000, 0)

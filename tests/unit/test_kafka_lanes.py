"""Lanes and ranges: what reports say of positions, against a model that knows every record's fate."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.kafka.lanes import Fate, Lane, Ruling
from simlink.channels.kafka.sender import merge_ranges


def judge(fate):
    return Ruling(fate, RuntimeError(fate.value))


good = st.just(None)
refused = good | st.just(Fate.REFUSED)
anything = good | st.sampled_from(list(Fate))


def feed(lane, sizes):
    """Positions 0, 2, 4 … in pushes of these sizes: a lane's positions are never dense."""
    at = 0
    for size in sizes:
        lane.push(np.arange(at, at + 2 * size, 2, dtype=np.int64))
        at += 2 * size
    return at // 2


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_without_ambiguity_every_position_is_told_once_and_right(sizes, data):
    lane = Lane()
    total = feed(lane, sizes)
    fates = data.draw(st.lists(refused, min_size=total, max_size=total))
    confirmed, failed = [], []

    for fate in fates:
        lane.report(fate)
        if data.draw(st.booleans()):
            good_ones, bad_ones = lane.collect(judge)
            confirmed += good_ones.tolist()
            failed += [at for at, _ in bad_ones]
    good_ones, bad_ones = lane.collect(judge)
    confirmed += good_ones.tolist()
    failed += [at for at, _ in bad_ones]

    assert [2 * i for i, fate in enumerate(fates) if fate is None] == confirmed
    assert [2 * i for i, fate in enumerate(fates) if fate is not None] == failed
    assert (lane.head, lane.outstanding, lane.broken) == (None, 0, False)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_from_the_first_ambiguous_report_on_everything_comes_back(sizes, data):
    lane = Lane()
    total = feed(lane, sizes)
    fates = data.draw(st.lists(anything, min_size=total, max_size=total))
    breaks = next((i for i, fate in enumerate(fates) if fate is Fate.AMBIGUOUS), total)

    for fate in fates:
        lane.report(fate)
    confirmed, failed = lane.collect(judge)
    rest = lane.rest()

    assert [2 * i for i in range(breaks) if fates[i] is None] == confirmed.tolist()
    assert [2 * i for i in range(breaks) if fates[i] is not None] == [at for at, _ in failed]
    assert [2 * i for i in range(breaks, total)] == rest.tolist()
    assert (lane.head, lane.outstanding, lane.broken) == (None, 0, False)


def test_what_has_no_report_comes_back_too():
    lane = Lane()
    feed(lane, [3])
    lane.report(Fate.AMBIGUOUS)
    lane.collect(judge)

    assert lane.rest().tolist() == [0, 2, 4]
    lane.push(np.array([9]))
    assert lane.rest().tolist() == [9]


@given(st.sets(st.integers(0, 200)))
def test_ranges_cover_exactly_the_positions(positions):
    ranges = merge_ranges(np.array(sorted(positions), np.int64))

    assert sorted(positions) == [at for first, stop in ranges for at in range(first, stop)]
    assert all(a[1] < b[0] for a, b in pairwise(ranges))

"""The de-duplication against a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.dedup import Deduplicator

A, B, C = (bytes([n]) * 16 for n in range(3))
WINDOW = 9000

# Close to the edges of the blocks of 4,096, where mistakes live.
near = st.one_of(st.integers(0, 40), st.integers(4080, 4110), st.integers(8180, 8200), st.integers(20_000, 20_010))
ranges = st.tuples(near, st.integers(0, 5000)).map(lambda r: range(r[0], r[0] + r[1]))
shapes = st.one_of(
    ranges, st.lists(near, max_size=12), st.lists(near, max_size=12).map(lambda s: np.array(s, np.int64))
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), st.sampled_from([A, B]), shapes),
        st.tuples(st.just("unmark"), st.sampled_from([A, B]), shapes),
        st.tuples(st.just("check"), st.sampled_from([A, B]), shapes),
        st.tuples(st.just("forget"), st.sampled_from([A, B]), near),
    ),
    max_size=12,
)


class Model:
    def __init__(self):
        self.seen = set()
        self.low = 0
        self.high = 0

    def floor(self):
        return max(self.low, self.high - WINDOW)

    def mark(self, sequences):
        for s in sequences:
            if s >= self.floor():
                self.seen.add(s)
        if len(sequences):
            self.high = max(self.high, *sequences) + 1 if max(sequences) + 1 > self.high else self.high

    def check(self, sequences):
        earlier, out = set(), []
        for s in sequences:
            out.append((s in self.seen and s >= self.floor()) or s in earlier)
            earlier.add(s)
        return out


@given(operations)
def test_it_agrees_with_a_set(steps):
    dedup = Deduplicator(window=WINDOW)
    models = {A: Model(), B: Model()}
    for name, producer, value in steps:
        model = models[producer]
        if name == "check":
            found = dedup.check(producer, value)
            expected = model.check([int(s) for s in value])
            assert (found is None) == (not any(expected))
            if found is not None:
                assert found.tolist() == expected
        elif name == "mark":
            dedup.mark(producer, value)
            model.mark([int(s) for s in value])
        elif name == "unmark":
            dedup.unmark(producer, value)
            model.seen -= {int(s) for s in value}
        elif producer in dedup._producers:
            dedup.forget_below(producer, value)
            model.low = max(model.low, value)


def test_what_is_marked_is_a_duplicate_and_nothing_else():
    dedup = Deduplicator()
    dedup.mark(A, range(10, 20))
    assert dedup.check(A, range(15, 25)).tolist() == [True] * 5 + [False] * 5
    assert dedup.check(A, [9, 10, 19, 20]).tolist() == [False, True, True, False]
    assert dedup.check(B, range(10, 20)) is None


def test_what_was_handed_back_may_come_again():
    dedup = Deduplicator()
    dedup.mark(A, range(8192))
    dedup.unmark(A, [4096, 5000])
    assert dedup.check(A, [4095, 4096, 5000, 5001]).tolist() == [True, False, False, True]
    dedup.mark(A, [4096])
    assert dedup.check(A, [4096]).tolist() == [True]


def test_one_producers_hand_back_does_not_touch_another():
    dedup = Deduplicator()
    dedup.mark(A, range(4096))
    dedup.mark(B, range(4096))
    dedup.unmark(A, [7])
    assert dedup.check(B, [7]).tolist() == [True]


def test_a_repeat_within_one_batch_is_a_duplicate():
    assert Deduplicator().check(A, [3, 4, 3]).tolist() == [False, False, True]


def test_what_lies_below_low_is_fresh_and_counted():
    dedup = Deduplicator()
    dedup.mark(A, range(100))
    dedup.forget_below(A, 50)
    assert dedup.check(A, range(40, 60)).tolist() == [False] * 10 + [True] * 10
    assert dedup.forgotten == 10
    assert dedup.check(A, [49, 50]).tolist() == [False, True]
    assert dedup.forgotten == 11


def test_what_is_older_than_the_window_is_forgotten():
    dedup = Deduplicator(window=1000)
    dedup.mark(A, range(10))
    dedup.mark(A, [2000])
    assert dedup.check(A, range(10)) is None
    assert dedup.forgotten == 10


def test_the_least_recently_used_producer_goes_first():
    dedup = Deduplicator(max_producers=2)
    dedup.mark(A, range(5))
    dedup.mark(B, range(5))
    dedup.check(A, range(1))
    dedup.mark(C, range(5))
    assert len(dedup) == 2
    assert dedup.check(B, range(5)) is None
    assert dedup.check(A, range(5)).tolist() == [True] * 5


def test_memory_is_bounded_by_the_window_and_full_blocks_cost_none():
    dedup = Deduplicator(window=1 << 20)
    for start in range(0, 1 << 24, 1 << 16):
        dedup.mark(A, range(start, start + (1 << 16)))
    blocks = dedup._producers[A].blocks
    assert len(blocks) <= (1 << 20) // 4096 + 1
    assert len({id(b) for b in blocks.values()}) == 1


@pytest.mark.parametrize("step", [1000, 999])
def test_a_block_filled_in_order_by_pieces_is_dropped_to_nothing(step):
    dedup = Deduplicator()
    for start in range(0, 50_000, step):
        dedup.mark(A, range(start, start + step))
    assert len({id(b) for b in dedup._producers[A].blocks.values()}) == 2  # the full one, and the last

"""The de-duplication against a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.dedup import Deduplicator

A, B = (bytes([n]) * 16 for n in range(2))
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
        elif model.high:
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


def held(dedup):
    """The bytes of all flags that are really there."""
    arrays = {id(b): b.nbytes for known in dedup._marked.values() for b in known.blocks.values()}
    return sum(arrays.values())


TIGHT = 24_000
"""Room for one window of `SMALL`, and little else."""
SMALL = 4096
many = st.sampled_from([bytes([n]) * 16 for n in range(6)])


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("mark"), many, shapes),
            st.tuples(st.just("unmark"), many, shapes),
            st.tuples(st.just("check"), many, shapes),
            st.tuples(st.just("forget"), many, near),
        ),
        max_size=30,
    )
)
def test_whatever_comes_it_keeps_to_its_bound_drops_nothing_fresh_and_counts_what_it_forgot(steps):
    dedup = Deduplicator(TIGHT, SMALL)
    marked = {}
    for name, producer, value in steps:
        known = marked.setdefault(producer, set())
        numbers = [int(s) for s in value] if name != "forget" else []
        if name == "mark":
            dedup.mark(producer, value)
            known.update(numbers)
        elif name == "unmark":
            dedup.unmark(producer, value)
            known.difference_update(numbers)
        elif name == "forget":
            dedup.forget_below(producer, value)
        else:
            before = dedup.forgotten
            found = dedup.check(producer, value)
            seen = [False] * len(numbers) if found is None else found.tolist()
            first = [n not in numbers[:at] for at, n in enumerate(numbers)]
            # A duplicate was marked, or stands earlier in the batch.
            assert [n for n, s, f in zip(numbers, seen, first, strict=True) if s and f and n not in known] == []
            missed = [n for n, s in zip(numbers, seen, strict=True) if n in known and not s]
            assert dedup.evicted or len(missed) <= dedup.forgotten - before
        assert dedup.nbytes <= TIGHT
        assert held(dedup) <= dedup.nbytes
        assert dedup.nbytes == sum(k.nbytes for of in (dedup._marked, dedup._bare) for k in of.values())


def test_a_bound_below_one_window_is_refused():
    with pytest.raises(ValueError, match="max_bytes=4096, and a window of 4096 sequences takes up to "):
        Deduplicator(4096, SMALL)


def test_the_least_recently_used_producer_goes_first_and_what_comes_of_it_is_counted():
    dedup = Deduplicator(TIGHT, SMALL)
    names = [bytes([n]) * 16 for n in range(5)]
    for name in names[:4]:
        dedup.mark(name, range(5))
    dedup.check(names[0], range(1))
    dedup.mark(names[4], range(5))
    assert dedup.check(names[1], range(5)) is None
    assert (dedup.forgotten, dedup.evicted, len(dedup)) == (5, 0, 5)
    assert dedup.check(names[0], range(5)).tolist() == [True] * 5
    # Known again from now on.
    dedup.mark(names[1], range(3))
    assert dedup.check(names[1], range(5)).tolist() == [True] * 3 + [False] * 2
    assert dedup.forgotten == 7


def test_producers_without_number_are_forgotten_altogether():
    dedup = Deduplicator(TIGHT, SMALL)
    for number in range(1000):
        dedup.mark(number.to_bytes(16, "big"), [number])
    assert dedup.nbytes <= TIGHT
    assert dedup.evicted == 1000 - len(dedup)
    assert dedup.check((0).to_bytes(16, "big"), [0]) is None
    assert dedup.check((999).to_bytes(16, "big"), [999]).tolist() == [True]


def test_the_memory_of_one_producer_is_bounded_by_the_window_and_full_blocks_cost_none():
    dedup = Deduplicator(window=1 << 20)
    for start in range(0, 1 << 24, 1 << 16):
        dedup.mark(A, range(start, start + (1 << 16)))
    blocks = dedup._marked[A].blocks
    assert len(blocks) <= (1 << 20) // 4096 + 1
    assert len({id(b) for b in blocks.values()}) == 1


@pytest.mark.parametrize("step", [1000, 999])
def test_a_block_filled_in_order_by_pieces_is_dropped_to_nothing(step):
    dedup = Deduplicator()
    for start in range(0, 50_000, step):
        dedup.mark(A, range(start, start + step))
    assert len({id(b) for b in dedup._marked[A].blocks.values()}) == 2  # the full one, and the last

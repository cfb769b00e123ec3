"""Verdicts on their way to the driver: each is told once, in as few settlements as there are runs."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.driver import Incoming, Lease
from simlink.channels.hands import Hands
from simlink.message import Batch, Same, Verdict

N = 12


def hands_and_told():
    told = []
    hands = Hands(told.extend, lambda _producer, _sequence: None)
    batch = Batch([b"x"] * N)
    held = hands.add(Incoming(batch, range(100, 100 + N), Same(1, N), Lease("q")))
    return hands, held, told


def test_what_was_marked_since_the_last_flush_is_told_and_nothing_twice():
    hands, held, told = hands_and_told()
    for first, stop in ((5, 6), (2, 4), (0, N)):
        hands.mark_run(held, first, stop, Verdict.ACK)
        hands.flush()
    hands.flush()

    assert [(s.first, s.last) for s in told] == [(105, 105), (102, 103), (100, 101), (104, 104), (106, 111)]
    assert hands.in_hand == 0


def test_one_batch_acknowledged_row_by_row_is_one_settlement_a_flush():
    hands, held, told = hands_and_told()
    for row in range(N):
        hands.mark_run(held, row, row + 1, Verdict.ACK)
        if row % 4 == 3:
            hands.flush()

    assert [(s.first, s.last) for s in told] == [(100, 103), (104, 107), (108, 111)]


STEP = st.tuples(st.sampled_from(["ack", "reject", "nack", "flush"]), st.integers(0, N - 1), st.integers(1, N))


@given(st.lists(STEP, max_size=25))
def test_every_row_is_told_its_first_verdict_once(steps):
    hands, held, told = hands_and_told()
    expected = {}
    for what, first, length in [*steps, ("ack", 0, N), ("flush", 0, 1)]:
        stop = min(first + length, N)
        if what == "flush":
            hands.flush()
            continue
        verdict = Verdict[what.upper()]
        for row in range(first, stop):
            expected.setdefault(row, verdict)
        if verdict is Verdict.NACK:
            hands.nack_run(held, first, stop, 0.0)
        else:
            hands.mark_run(held, first, stop, verdict)

    rows = list(itertools.chain.from_iterable(((t - 100, s.verdict) for t in range(s.first, s.last + 1)) for s in told))
    assert len(rows) == N
    assert dict(rows) == expected

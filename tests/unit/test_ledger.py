"""The accounts against models that are too slow to use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.ledger import Latencies, Ledger, RowSet
from simlink.message import Batch, Message, Same

A, B = b"a" * 16, b"b" * 16


# --- RowSet

_near = st.integers(0, 50)
_far = st.integers(65_500, 65_600) | st.integers(131_050, 131_080)
_some = st.lists(_near | _far, max_size=40)
_ranges = st.tuples(_near | _far, st.integers(0, 200)).map(lambda t: range(t[0], t[0] + t[1]))


@settings(max_examples=150, deadline=None)
@given(st.lists(_some | _ranges | _some.map(sorted), max_size=12))
def test_rowset_is_a_set(batches):
    rows, model = RowSet(), set()
    for batch in batches:
        expected = []
        for row in batch:
            expected.append(row not in model)
            model.add(row)
        firsts = rows.add(batch)
        assert expected == ([True] * len(expected) if firsts is None else firsts.tolist())
        assert len(model) == len(rows)
    for stop in (0, 1, 40, 65_536, 65_550, 131_072, 200_000):
        assert sum(row < stop for row in model) == rows.below(stop)
    assert [row for row in range(65_600) if row not in model] == list(rows.missing(65_600))
    assert all((row in model) == (row in rows) for row in (0, 3, 65_535, 65_536, 131_071))


def test_rowset_keeps_a_whole_page_as_a_number():
    rows = RowSet()
    order = np.random.default_rng(1).permutation(65_536)
    for part in np.array_split(order, 30):
        assert rows.add(part) is None
    assert rows._pages[0] == 65_536
    assert rows.add([5, 65_536]).tolist() == [False, True]


def test_rowset_packs_pages_that_are_not_in_use():
    rows = RowSet()
    for page in range(40):
        rows.add([page * 65_536 + 7, page * 65_536 + 99])
    assert len(rows._open) == 16
    assert sum(page._bits is None for page in rows._pages.values()) == 24
    for page in range(40):
        assert rows.add([page * 65_536 + 7, page * 65_536 + 8]).tolist() == [False, True]


def test_rowset_is_bounded():
    rows = RowSet(max_pages=2)
    for page in range(3):
        rows.add([page * 65_536 + 1])
    assert (rows.forgotten, len(rows._pages)) == (1, 2)
    assert rows.add([1]) is None


def test_rowset_refuses_a_negative_row():
    with pytest.raises(ValueError, match="from 0"):
        RowSet().add([3, -1])
    with pytest.raises(ValueError, match="from 0"):
        RowSet().add(range(-2, 1))


# --- Latencies


def test_percentiles_are_exact_while_all_values_fit():
    values = np.random.default_rng(2).exponential(size=50_000)
    times = Latencies()
    for part in np.array_split(values, 100):
        times.add(part)
    assert np.percentile(values, [1, 50, 99.9]).tolist() == times.percentiles(1, 50, 99.9)
    assert (50_000, float(values.max())) == (times.count, times.maximum)


def test_percentiles_of_more_are_close_and_memory_is_bounded():
    values = np.random.default_rng(3).random(400_000)
    times = Latencies()
    for part in np.array_split(values, 400):
        times.add(part)
    times.add_same(0.5, 100_000)
    times._fold()
    assert len(times._values) <= 65_537
    assert times.count == 500_000
    # Uniform, and a fifth of all values is 0.5 exactly.
    assert times.percentiles(20, 50, 80) == pytest.approx([0.25, 0.5, 0.75], abs=0.01)
    assert float(values.max()) == times.maximum


def test_merged_latencies_are_a_sample_of_all():
    parts = []
    for i, n in enumerate((1_000, 200_000)):
        part = Latencies(seed=i)
        part.add(np.full(n, float(i)))
        parts.append(part)
    whole = Latencies.merged(parts)
    assert whole.count == 201_000
    # One in 201 is 0: the 0.4th percentile is 0, the 0.6th is 1.
    assert whole.percentiles(0.3, 0.7) == [0.0, 1.0]


def test_nothing_booked_is_none():
    assert None is Latencies().as_ms()
    assert np.isnan(Latencies().percentiles(50)[0])


# --- Ledger

_message = st.builds(
    lambda producer, sequence, key: Message(body=b"", key=key, producer=producer, sequence=sequence, timestamp=0),
    st.sampled_from([A, B, None]),
    st.integers(0, 30) | st.none(),
    st.sampled_from([None, b"x", b"y"]),
)


class Slow:
    """What the ledger should say, message by message."""

    def __init__(self):
        self.seen, self.last = set(), {}
        self.received = self.duplicated = self.anonymous = self.reordered = self.keyed = 0

    def book(self, message):
        self.received += 1
        if message.producer is None or message.sequence is None:
            self.anonymous += 1
            return
        identity = message.producer, message.sequence
        if identity in self.seen:
            self.duplicated += 1
            return
        self.seen.add(identity)
        place = message.producer, message.key
        if self.last.get(place, -1) > message.sequence:
            self.reordered += 1
            self.keyed += message.key is not None
        else:
            self.last[place] = message.sequence

    def says(self):
        return self.received, len(self.seen), self.duplicated, self.anonymous, self.reordered, self.keyed


def says(ledger):
    return (
        ledger.received,
        ledger.unique,
        ledger.duplicated,
        ledger.anonymous,
        ledger.reordered,
        ledger.reordered_keyed,
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(_message, min_size=1, max_size=12), max_size=8))
def test_ledger_books_what_a_message_by_message_account_books(batches):
    ledger, slow = Ledger(), Slow()
    for batch in batches:
        ledger.book(Batch.of(batch), now=1.0)
        for message in batch:
            slow.book(message)
    assert slow.says() == says(ledger)
    for producer, account in ledger.accounts.items():
        assert {s for p, s in slow.seen if p == producer} == set(range(31)) - set(account.rows.missing(31))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20), st.booleans()), max_size=15))
def test_ledger_reads_columns_as_it_reads_lists(parts):
    ledger, slow = Ledger(), Slow()
    for first, length, keyed in parts:
        if not length:
            continue
        keys = [b"%d" % (i % 3) for i in range(length)] if keyed else Same(None, length)
        batch = Batch(
            [b""] * length,
            keys=keys,
            producers=Same(A, length),
            sequences=range(first, first + length),
            timestamps=Same(0, length),
        )
        ledger.book(batch, now=1.0)
        for message in batch:
            slow.book(message)
    assert slow.says() == says(ledger)


def test_latency_is_of_first_hand_outs_and_from_the_intended_time():
    ledger = Ledger()
    batch = Batch([b""] * 3, producers=Same(A, 3), sequences=range(3), timestamps=[1_000_000, 2_000_000, None])
    ledger.book(batch, now=3.0)
    ledger.book(batch, now=500.0)
    assert ledger.latency.count == 2
    assert ledger.latency.percentiles(0, 100) == [1.0, 2.0]


def test_without_order_nothing_is_reordered():
    ledger = Ledger(order=False)
    ledger.book(Batch([b""] * 2, producers=Same(A, 2), sequences=[5, 3]))
    assert (ledger.unique, ledger.reordered) == (2, 0)


def test_lost_is_told_per_producer():
    ledger = Ledger()
    ledger.book(Batch([b""] * 4, producers=[A, A, B, B], sequences=[0, 2, 0, 1]))
    assert ledger.lost(2) == 1
    assert ledger.lost(3) == 2


def test_keys_are_bounded(monkeypatch):
    monkeypatch.setattr("simlink.ledger.accounts._MAX_KEYS", 100)
    ledger = Ledger()
    for i in range(0, 400, 10):
        keys = [b"%d" % j for j in range(i, i + 10)]
        ledger.book(Batch([b""] * 10, keys=keys, producers=Same(A, 10), sequences=range(i, i + 10)))
    assert ledger.accounts[A].keys() <= 110
    assert ledger.forgotten >= 290
    assert ledger.reordered == 0


def test_producers_are_bounded(monkeypatch):
    monkeypatch.setattr("simlink.ledger.accounts._MAX_PRODUCERS", 3)
    ledger = Ledger()
    for i in range(5):
        ledger.book(Batch([b""] * 2, producers=Same(bytes([i]) * 16, 2), sequences=range(2)))
    assert (len(ledger.accounts), ledger.unique, ledger.forgotten) == (3, 10, 2)

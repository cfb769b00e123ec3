"""The ledger: accounts by identity, a batch at a time."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from simlink.ledger.latency import Latencies
from simlink.ledger.rows import RowSet
from simlink.message import Same

if TYPE_CHECKING:
    from simlink.message import Batch

__all__ = ["Account", "Ledger"]

Firsts: TypeAlias = "npt.NDArray[np.bool_]"
Sequences: TypeAlias = "range | npt.NDArray[np.int64]"
_MAX_KEYS = 1_000_000
_MAX_PRODUCERS = 65_536


class Account:
    """What came from one producer.

    Attributes:
        rows: the sequences that came.
        reordered: first hand-outs that came after a later one of the same key (without a key: of this producer).
        reordered_keyed: those of them that have a key.
    """

    __slots__ = ("_high", "_last", "reordered", "reordered_keyed", "rows")

    def __init__(self) -> None:
        self.rows = RowSet()
        self.reordered = self.reordered_keyed = 0
        self._high = -1
        # The latest sequence of each key: what an earlier one that comes now is held against.
        self._last: dict[Hashable, int] = {}

    def book(self, sequences: Sequences, keys: Sequence[bytes | None] | None) -> Firsts | None:
        """Book rows of a batch; which were new, None when all were. Without ``keys`` their order is not looked at."""
        firsts = self.rows.add(sequences)
        if keys is None:
            return firsts
        if firsts is not None:
            chosen = np.flatnonzero(firsts)
            if not len(chosen):
                return firsts
            sequences = np.asarray(sequences, np.int64)[chosen]
            keys = Same(keys.value, len(chosen)) if isinstance(keys, Same) else [keys[i] for i in chosen.tolist()]
        self._follow(sequences, keys)
        return firsts

    def _follow(self, sequences: Sequences, keys: Sequence[bytes | None]) -> None:
        ascending = isinstance(sequences, range) or bool((np.diff(sequences) > 0).all())
        plain: Any = sequences if isinstance(sequences, range) else sequences.tolist()
        first, high = plain[0], plain[-1] if ascending else max(plain)
        last = self._last
        if ascending and first > self._high:
            # In order as a whole, so in order by key.
            if isinstance(keys, Same):
                last[keys.value] = high
            else:
                last.update(zip(keys, plain, strict=True))
        elif ascending and not (np.fromiter(map(last.get, keys, repeat(-1)), np.int64, len(keys)) > plain).any():
            last.update(zip(keys, plain, strict=True))
        else:
            for key, row in zip(keys, plain, strict=True):
                if last.get(key, -1) > row:
                    self.reordered += 1
                    self.reordered_keyed += key is not None
                else:
                    last[key] = row
        self._high = max(self._high, high)

    def keys(self) -> int:
        """How many keys are remembered."""
        return len(self._last)

    def forget_keys(self) -> int:
        """Forget the half of the keys that is known longest; how many."""
        gone = list(self._last)[: (len(self._last) + 1) // 2]
        for key in gone:
            del self._last[key]
        return len(gone)


class Ledger:
    """The accounts of a receiving end, by identity (producer, sequence). For one thread.

    Args:
        order: whether to look at the order of keys too; it costs about as much as everything else.

    Its memory is bounded: by the pages of `RowSet`, a million keys and 65,536 producers; what is forgotten beyond that
    is counted in ``forgotten``, and would count as new if it came again.

    Attributes:
        received: messages booked.
        unique: different identities among them.
        duplicated: messages whose identity had come before.
        anonymous: messages without an identity: nothing but their number is known.
        accounts: producer → its `Account`.
        latency: from the intended send time to the booking, of first hand-outs; as good as the two hosts' clocks.
        forgotten: keys and producers forgotten.
    """

    def __init__(self, *, order: bool = True) -> None:
        self.order = order
        self.received = 0
        self.duplicated = 0
        self.anonymous = 0
        self.accounts: dict[bytes, Account] = {}
        self.latency = Latencies()
        self.forgotten = 0
        self._unique_of_forgotten = 0
        self._since_check = 0

    def book(self, batch: Batch, *, now: float | None = None) -> None:
        """Book a batch that came ``now`` (seconds since 1970 UTC; by default the present)."""
        n = len(batch)
        if not n:
            return
        now = time.time() if now is None else now
        self.received += n
        for producer, rows in by_producer(batch):
            if producer is None:
                self.anonymous += n if rows is None else len(rows)
                continue
            sequences, keys = identified(batch, rows)
            firsts = self._account(producer).book(sequences, keys if self.order else None)
            if firsts is not None:
                self.duplicated += len(firsts) - int(firsts.sum())
            self._late(batch, rows, firsts, now)
        self._since_check += n
        if self._since_check > _MAX_KEYS // 10:
            self._since_check = 0
            self._bound_keys()

    def _account(self, producer: bytes) -> Account:
        account = self.accounts.get(producer)
        if account is None:
            if len(self.accounts) >= _MAX_PRODUCERS:
                oldest = self.accounts.pop(next(iter(self.accounts)))
                self._unique_of_forgotten += oldest.rows.count
                self.forgotten += 1
            account = self.accounts[producer] = Account()
        return account

    def _bound_keys(self) -> None:
        while sum(a.keys() for a in self.accounts.values()) > _MAX_KEYS:
            self.forgotten += max(self.accounts.values(), key=Account.keys).forget_keys()

    def _late(self, batch: Batch, rows: Sequence[int] | None, firsts: Firsts | None, now: float) -> None:
        stamps = batch.timestamps
        if isinstance(stamps, Same):
            if stamps.value is not None:
                count = (len(batch) if rows is None else len(rows)) if firsts is None else int(firsts.sum())
                self.latency.add_same(now - stamps.value / 1e6, count)
            return
        chosen: Any = stamps if rows is None else [stamps[r] for r in rows]
        try:
            times = np.asarray(chosen, np.float64)  # None becomes NaN
        except (TypeError, ValueError):
            return
        if firsts is not None:
            times = times[firsts]
        times = now - times / 1e6
        self.latency.add(times[~np.isnan(times)])

    @property
    def unique(self) -> int:
        return self._unique_of_forgotten + sum(a.rows.count for a in self.accounts.values())

    @property
    def reordered(self) -> int:
        """First hand-outs that came after a later one of the same producer and key."""
        return sum(a.reordered for a in self.accounts.values())

    @property
    def reordered_keyed(self) -> int:
        """Those of them that have a key: what a transport with order per key never does."""
        return sum(a.reordered_keyed for a in self.accounts.values())

    def lost(self, expected: int) -> int:
        """How many of the sequences ``0 … expected - 1`` have not come, summed over the producers there are."""
        return sum(expected - a.rows.below(expected) for a in self.accounts.values())

    def __repr__(self) -> str:
        return (
            f"<Ledger {self.received:,} received, {self.unique:,} unique, {self.duplicated:,} duplicated, "
            f"{self.reordered:,} reordered, {len(self.accounts)} producers>"
        )


def by_producer(batch: Batch) -> Iterator[tuple[bytes | None, list[int] | None]]:
    """The rows of each producer; None in place of the rows stands for all of them. Rows that lack a producer or a
    sequence are under the producer None."""
    producers, sequences = batch.producers, batch.sequences
    complete = isinstance(sequences, range | np.ndarray) or (
        sequences.value is not None if isinstance(sequences, Same) else None not in sequences
    )
    first = producers[0]
    alike = isinstance(producers, Same) or producers.count(first) == len(producers)
    if alike and (first is None or complete):
        yield first, None
        return
    found: dict[bytes | None, list[int]] = {}
    for row, producer in enumerate(producers):
        whose = None if producer is None or (not complete and sequences[row] is None) else producer
        found.setdefault(whose, []).append(row)
    yield from found.items()


def identified(batch: Batch, rows: Sequence[int] | None) -> tuple[Sequences, Sequence[bytes | None]]:
    """The sequences and keys of some rows, all of which have an identity."""
    sequences: Any = batch.sequences
    if rows is None:
        if not (isinstance(sequences, range) and sequences.step == 1):
            sequences = np.asarray(sequences, np.int64)
        return sequences, batch.keys
    keys = batch.keys
    return (
        np.fromiter((sequences[r] for r in rows), np.int64, len(rows)),
        Same(keys.value, len(rows)) if isinstance(keys, Same) else [keys[r] for r in rows],
    )

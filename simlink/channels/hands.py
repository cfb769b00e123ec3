"""What the application holds of one receiver, and its verdicts on their way to the driver.

Verdicts are marks in the `Held` of a batch. They reach the driver in runs: a batch acknowledged as a whole is
one settlement. An acknowledgement may wait a little for others; a nack is sent at once, because its back-off is its
own and it says that the hold is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from simlink.channels.driver import Incoming, Lease, Settlement
from simlink.errors import DecodeError
from simlink.message import Batch, Hand, Verdict

if TYPE_CHECKING:
    from simlink.channels.deadletters import DeadLetters

__all__ = ["FLUSH_AFTER", "Hands", "Held"]

FLUSH_AFTER = 0.02
"""Seconds that an acknowledgement may wait for others while the application keeps asking."""

_NACK_FIRST, _NACK_MAX = 0.1, 30.0
_ADVERB = {Verdict.ACK: "acked", Verdict.NACK: "nacked", Verdict.REJECT: "rejected"}


class Held(Hand):
    """A hand with the driver's tokens for its rows.

    Attributes:
        sent: the rows whose verdict the driver has; None while it has none.
        adopted: rows whose hold was renewed under another lease.
        late: rows whose verdict came after their hold was lost. The application has done with them, so a message that
            comes again is not theirs to adopt: nobody would ever settle it.
        spent: rows that were handed out too often, and are dead letters.
        unsent: the first row and the one behind the last that may have a verdict which the driver has not.
    """

    __slots__ = ("adopted", "handed_at", "late", "lease", "sent", "spent", "tokens", "unsent")

    def __init__(self, incoming: Incoming, on_settle: Callable[[Hand, int, Verdict], bool]) -> None:
        super().__init__(incoming.batch, incoming.attempts, on_settle)
        self.tokens = incoming.tokens
        self.lease = incoming.lease
        self.sent: bytearray | None = None
        self.adopted: dict[int, tuple[Lease, int]] | None = None
        self.late: set[int] = set()
        self.spent: bytearray | None = None
        self.unsent = (len(incoming.batch), 0)
        self.handed_at = time.monotonic()

    def valid(self, row: int) -> bool:
        """Whether a verdict over this row can still reach the driver."""
        if self.taken_back or row in self.late:
            return False
        if self.lease.valid:
            return True
        return self.adopted is not None and row in self.adopted and self.adopted[row][0].valid


class Hands:
    """The hands of one receiver. Thread-safe; take ``lock`` for several steps at once.

    Args:
        settle: the driver's.
        forget: called with (producer, sequence) of what is handed back, so that it is no duplicate when it comes again.
        dead: where rejected messages go, and those that failed too often; None drops the former, and knows no latter.
    """

    def __init__(
        self,
        settle: Callable[[Sequence[Settlement]], None],
        forget: Callable[[bytes, int], None],
        dead: DeadLetters | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.counts = dict.fromkeys((*_ADVERB.values(), "stale", "revoked"), 0)
        self.closed = False
        self.last_flush = 0.0
        self.busy = threading.Event()
        """Something is held, or was a moment ago: whoever flushes now and then need not while it is not set."""
        self._settle = settle
        self._forget = forget
        self.dead = dead
        self._open: dict[int, Held] = {}
        self._dirty: dict[int, Held] = {}

    def add(self, incoming: Incoming) -> Held:
        """Take charge of what came from the driver."""
        held = Held(incoming, self._on_settle)
        with self.lock:
            self._open[id(held)] = held
            if not self.busy.is_set():
                self.busy.set()
        return held

    def rest(self) -> None:
        """Note that there is nothing to do, if there is nothing."""
        with self.lock:
            if not self._open and not self._dirty:
                self.busy.clear()

    @property
    def in_hand(self) -> int:
        """How many messages have no verdict yet."""
        with self.lock:
            return sum(held.open - len(held.late) for held in self._open.values())

    # --- verdicts -----------------------------------------------------------------------------------------------

    def _on_settle(self, hand: Hand, row: int, verdict: Verdict) -> bool:
        """A delivery's own ack, nack or reject, from any thread."""
        assert isinstance(hand, Held)
        with self.lock:
            if hand.marks[row] and not hand.taken_back:
                return hand.marks[row] == verdict
            if self.closed or not hand.valid(row):
                self.counts["stale"] += 1
                if verdict is Verdict.NACK:
                    # It comes again because its hold was lost, and is no second copy then.
                    self._forget_rows(hand, row, row + 1)
                if not hand.marks[row] and not self.closed:
                    hand.late.add(row)
                    if len(hand.late) == hand.open and id(hand) not in self._dirty:
                        self._open.pop(id(hand), None)
                return False
            if verdict is Verdict.NACK:
                self.nack_run(hand, row, row + 1, backoff(hand.attempts[row]), failed=True)
            else:
                self.mark_run(hand, row, row + 1, verdict)
            if not hand.open or time.monotonic() - self.last_flush > FLUSH_AFTER:
                self.flush()
            return True

    def mark_run(self, held: Held, first: int, stop: int, verdict: Verdict) -> None:
        """Acknowledge or reject those of the rows ``first … stop - 1`` that have no verdict yet."""
        with self.lock:
            if held.taken_back:
                return
            untouched = held.marks.count(0, first, stop)
            if not untouched:
                return
            if untouched == stop - first:
                held.marks[first:stop] = bytes([verdict]) * (stop - first)
            else:
                for row in range(first, stop):
                    if not held.marks[row]:
                        held.marks[row] = verdict
            held.open -= untouched
            self.counts[_ADVERB[verdict]] += untouched
            held.unsent = (min(held.unsent[0], first), max(held.unsent[1], stop))
            self._dirty[id(held)] = held

    def nack_run(self, held: Held, first: int, stop: int, delay: float, *, failed: bool = False) -> None:
        """Hand back those of the rows that have no verdict yet, to come again after ``delay`` seconds; ``failed`` ones
        to the dead letters where that was once too often."""
        with self.lock:
            for free, run in groupby(range(first, stop), key=lambda row: not held.marks[row]):
                rows = list(run)
                if not free:
                    continue
                a, b = rows[0], rows[-1] + 1
                held.marks[a:b] = bytes([Verdict.NACK]) * (b - a)
                held.open -= b - a
                self.counts["nacked"] += b - a
                self._forget_rows(held, a, b)
                for row, spent in enumerate(self._spent(held, a, b) if failed else (), a):
                    if spent:
                        held.spent = held.spent or bytearray(len(held.batch))
                        held.spent[row] = 1
                        self._send(held, row, row + 1, Verdict.REJECT, 0.0)
                    else:
                        self._send(held, row, row + 1, Verdict.NACK, delay)
                if not failed:
                    self._send(held, a, b, Verdict.NACK, delay)
            if not held.open and id(held) not in self._dirty:
                self._open.pop(id(held), None)

    def _spent(self, held: Held, first: int, stop: int) -> list[bool]:
        return [self.dead is not None and self.dead.spent(held.attempts[row]) for row in range(first, stop)]

    def bury(self, incoming: Incoming) -> None:
        """These came once too often, and go to the dead letters unseen."""
        held = self.add(incoming)
        held.spent = bytearray(b"\x01") * len(held.batch)
        self.mark_run(held, 0, len(held.batch), Verdict.REJECT)

    def reject_unreadable(self, held: Held, first: int, stop: int) -> None:
        """Of rows that were decoded: those that could not be."""
        for row, value in enumerate((held.batch._values or ())[first:stop], first):
            if type(value) is DecodeError:
                self.mark_run(held, row, row + 1, Verdict.REJECT)

    def published(self, held: Held, row: int) -> None:
        """This row's dead letter is confirmed: acknowledge it."""
        with self.lock:
            lease, token = (held.adopted or {}).get(row, (held.lease, held.tokens[row]))
        self._settle([Settlement(lease, Verdict.ACK, token, token)])

    def _forget_rows(self, held: Held, first: int, stop: int) -> None:
        for row in range(first, stop):
            producer, sequence = held.batch.producers[row], held.batch.sequences[row]
            if producer is not None and sequence is not None:
                self._forget(producer, int(sequence))

    def flush(self) -> None:
        """Give the driver every verdict that it has not got yet."""
        with self.lock:
            self.last_flush = time.monotonic()
            for held in self._dirty.values():
                n = len(held.batch)
                if held.sent is None and held.adopted is None and held.marks.count(Verdict.ACK) == n:
                    self._send(held, 0, n, Verdict.ACK, 0.0)
                else:
                    self._send_fresh(held, *held.unsent)
                held.unsent = (n, 0)
                if held.open == len(held.late):
                    self._open.pop(id(held), None)
            self._dirty.clear()

    def _send_fresh(self, held: Held, first: int, stop: int) -> None:
        """Those of these rows that have a verdict which the driver has not."""
        held.sent = held.sent or bytearray(len(held.batch))
        if held.marks.count(Verdict.ACK, first, stop) == stop - first and not held.sent.count(1, first, stop):
            self._send(held, first, stop, Verdict.ACK, 0.0)
            return
        row = first
        for (mark, was), run in groupby(zip(held.marks[first:stop], held.sent[first:stop], strict=True)):
            length = sum(1 for _ in run)
            if mark and not was:
                self._send(held, row, row + length, Verdict(mark), 0.0)
            row += length

    def _send(self, held: Held, first: int, stop: int, verdict: Verdict, delay: float) -> None:
        if held.sent is None and (first, stop) != (0, len(held.batch)):
            held.sent = bytearray(len(held.batch))
        if held.sent is not None:
            held.sent[first:stop] = b"\x01" * (stop - first)
        if verdict is Verdict.REJECT and self.dead is not None:
            self.dead.add(self, held, first, stop)
            return
        if held.adopted:
            own = [held.adopted.get(row, (held.lease, held.tokens[row])) for row in range(first, stop)]
            self._settle([Settlement(lease, verdict, token, token, delay) for lease, token in own])
        else:
            self._settle([Settlement(held.lease, verdict, held.tokens[first], held.tokens[stop - 1], delay)])

    # --- holds that are lost ------------------------------------------------------------------------------------

    def adopt(self, incoming: Incoming) -> list[int]:
        """The rows that the application still holds under a lost lease: their new tokens are taken over, so that they
        need not be delivered twice."""
        with self.lock:
            lost = [held for held in self._open.values() if not held.lease.valid and held.open]
            if not lost:
                return []
            mine = {
                identity: (held, row)
                for held in lost
                for row, identity in _identities(held.batch)
                if not held.marks[row] and row not in held.late and not held.valid(row)
            }
            rows: list[int] = []
            for row, identity in _identities(incoming.batch):
                found = mine.get(identity)
                if found is not None:
                    held, held_row = found
                    held.adopted = held.adopted or {}
                    held.adopted[held_row] = (incoming.lease, incoming.tokens[row])
                    rows.append(row)
            return rows

    def revoke(self, held: Held, first: int) -> None:
        """Drop the rows from ``first`` on: their hold was lost before the application saw them. They are somebody
        else's now, or come again; nothing is said of them to the driver."""
        with self.lock:
            rows = [row for row in range(first, len(held.batch)) if not held.marks[row]]
            held.sent = held.sent or bytearray(len(held.batch))
            for row in rows:
                held.marks[row] = Verdict.NACK
                held.sent[row] = 1
                self._forget_rows(held, row, row + 1)
            held.open -= len(rows)
            self.counts["revoked"] += len(rows)
            if not held.open and id(held) not in self._dirty:
                self._open.pop(id(held), None)

    def take_back(self, before: float, spared: set[int]) -> None:
        """Take back what was handed out before ``before`` and has no verdict; ``spared`` are the ids of hands that
        the application has not seen yet."""
        with self.lock:
            for held in list(self._open.values()):
                if held.handed_at < before and held.open and id(held) not in spared:
                    self.nack_run(held, 0, len(held.batch), 0.0, failed=self.dead is not None)
                    held.taken_back = True
                    self._open.pop(id(held), None)


def backoff(attempt: int) -> float:
    """Seconds until a nacked message comes again: 0.1 doubling to 30."""
    return float(min(_NACK_FIRST * 2 ** min(attempt - 1, 20), _NACK_MAX))


def _identities(batch: Batch) -> list[tuple[int, tuple[bytes, int]]]:
    return [
        (row, (producer, int(sequence)))
        for row, (producer, sequence) in enumerate(zip(batch.producers, batch.sequences, strict=True))
        if producer is not None and sequence is not None
    ]

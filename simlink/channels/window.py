"""What was sent and is not yet resolved: the window of a sender, pure bookkeeping without I/O.

Every submission to a driver has a position, dense per driver. The window maps positions back to the rows of the batch
that was sent, applies outcomes to them, and keeps what must be submitted again in its original order. One bound, in
messages and in bytes, covers all that is unresolved: unconfirmed, and on brokerless transports accepted-unsettled too.
"""

from __future__ import annotations

import enum
import heapq
import math
from bisect import bisect_right
from collections.abc import Iterable
from itertools import count

from simlink.channels.driver import Outcome, OutcomeKind
from simlink.message import Batch

__all__ = ["Entry", "State", "Totals", "Window"]


class State(enum.IntEnum):
    """Where a sent message stands."""

    PENDING = 0
    CONFIRMED = 1
    FAILED = 2
    UNKNOWN = 3
    SETTLED = 4
    REJECTED = 5


_KINDS = {
    OutcomeKind.CONFIRMED: State.CONFIRMED,
    OutcomeKind.FAILED: State.FAILED,
    OutcomeKind.UNKNOWN: State.UNKNOWN,
    OutcomeKind.SETTLED: State.SETTLED,
    OutcomeKind.REJECTED: State.REJECTED,
}


class Totals:
    """Running counts of messages; ``resent`` counts submissions after an ambiguous outcome."""

    __slots__ = ("bytes", "confirmed", "failed", "rejected", "resent", "returned", "sent", "settled", "unknown")

    def __init__(self) -> None:
        self.sent = self.bytes = 0
        self.confirmed = self.failed = self.unknown = 0
        self.settled = self.rejected = 0
        self.resent = self.returned = 0

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


class Entry:
    """One sent batch and what became of its rows.

    ``pending`` counts the rows whose receipt is open, ``unresolved`` those that the window still holds. While all rows
    are in one state that is ``whole``; from then on each has its own in ``marks``. ``at`` is when the last receipt was
    closed, on the sender's clock.
    """

    __slots__ = (
        "at",
        "batch",
        "counts",
        "error",
        "marks",
        "missed",
        "order",
        "pending",
        "totals",
        "unresolved",
        "whole",
    )

    def __init__(self, batch: Batch, order: int, totals: Totals) -> None:
        rows = len(batch.bodies)
        self.batch = batch
        self.order = order
        self.totals = totals
        self.counts = [rows, 0, 0, 0, 0, 0]
        self.marks: bytearray | None = None
        self.whole = State.PENDING
        self.pending = rows
        self.unresolved = rows
        self.error: Exception | None = None
        self.missed: tuple[str, ...] = ()
        self.at = math.inf

    def rows_in(self, state: State) -> list[int]:
        """The rows that are in one state."""
        if self.marks is None:
            return list(range(len(self.batch))) if self.counts[state] else []
        return [row for row, mark in enumerate(self.marks) if mark == state]


_NOBODY = Entry(Batch([]), 0, Totals())
"""Whose flights they are that nothing can change any more: their batch, and its bodies, are let go of at once."""


class _Flight:
    """The rows ``row … row + count - 1`` of an entry, submitted at ``position``.

    ``live`` counts the rows that a report can still change, ``unknown`` those of them whose fate is unknown. ``gone``
    marks the rows that the driver gave back: what is said of their old positions means nothing any more.
    """

    __slots__ = ("ambiguous", "count", "entry", "gone", "live", "position", "row", "unknown")

    def __init__(self, position: int, entry: Entry, row: int, size: int, *, ambiguous: bool = False) -> None:
        self.position = position
        self.entry = entry
        self.row = row
        self.count = size
        self.live = size
        self.unknown = 0
        self.gone: bytearray | None = None
        self.ambiguous = ambiguous

    def runs(self, begin: int, stop: int) -> list[tuple[int, int]]:
        """The rows ``begin … stop - 1``, counted from the flight's first, without those that were given back."""
        if self.gone is None:
            return [(begin, stop)]
        out: list[tuple[int, int]] = []
        while begin < stop and (first := self.gone.find(0, begin, stop)) >= 0:
            end = self.gone.find(1, first, stop)
            begin = stop if end < 0 else end
            out.append((first, begin))
        return out


class Window:
    """Args:
    retains: whether a confirmed message stays until it is settled (brokerless).

    ``now`` is for whoever applies outcomes to say when they came.
    """

    def __init__(self, *, max_messages: int, max_bytes: int, retains: bool) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.retains = retains
        self.messages = 0
        self.nbytes = 0
        self.unconfirmed = 0
        self.totals = Totals()
        self.now = math.inf
        self.next_position = 0
        self._order = 0
        self._firsts: list[int] = []
        self._flights: list[_Flight] = []
        self._head = 0
        self._unknown = 0
        self._crowded = 256
        self._returned: list[tuple[int, int, int, _Flight]] = []
        self._tie = count()

    # --- going out ----------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many messages may be added now. By bytes one more batch fits while the bound is not reached."""
        if self.messages and self.nbytes >= self.max_bytes:
            return 0
        room = self.max_messages - self.messages
        return max(0, room)

    def add(self, batch: Batch, totals: Totals | None = None) -> Entry:
        """Take a batch in; submit it with `next_flight`. ``totals`` receives its counts besides the window's own."""
        entry = self._take_in(batch, totals)
        flight = _Flight(-1, entry, 0, len(batch.bodies))
        heapq.heappush(self._returned, (entry.order, 0, next(self._tie), flight))
        return entry

    def launch(self, batch: Batch, totals: Totals | None = None) -> tuple[Entry, int]:
        """`add` and `next_flight` in one, for a batch that goes out at once because nothing is `waiting`: the entry,
        and the position to submit it at."""
        assert not self._returned
        entry = self._take_in(batch, totals)
        rows = entry.pending
        position = self.next_position
        self.next_position = position + rows
        self._flights.append(_Flight(position, entry, 0, rows))
        self._firsts.append(position)
        return entry, position

    def _take_in(self, batch: Batch, totals: Totals | None) -> Entry:
        entry = Entry(batch, self._order, totals or self.totals)
        rows, nbytes = entry.pending, batch.nbytes
        self._order += rows
        self.messages += rows
        self.nbytes += nbytes
        self.unconfirmed += rows
        for books in (self.totals,) if totals is None or totals is self.totals else (self.totals, totals):
            books.sent += rows
            books.bytes += nbytes
        return entry

    @property
    def waiting(self) -> bool:
        """Whether something is to be submitted: new, or returned by the driver."""
        return bool(self._returned)

    def next_flight(self) -> tuple[Batch, int] | None:
        """The next batch to submit and its position, in the original order; None when there is none."""
        if not self._returned:
            return None
        flight = heapq.heappop(self._returned)[3]
        entry = flight.entry
        if flight.ambiguous:
            for books in self._books(entry):
                books.resent += flight.count
        position = self.next_position
        self.next_position += flight.count
        self._flights.append(_Flight(position, entry, flight.row, flight.count))
        self._firsts.append(position)
        whole = flight.count == len(entry.batch)
        return (entry.batch if whole else entry.batch[flight.row : flight.row + flight.count]), position

    def low(self) -> int | None:
        """The lowest sequence that may still be resent, of the oldest entry in flight; None when nothing is."""
        oldest: Entry | None = None
        for flight in self._flights[self._head :]:
            if flight.live > flight.unknown and (oldest is None or flight.entry.order < oldest.order):
                oldest = flight.entry
        for _, _, _, flight in self._returned:
            if oldest is None or flight.entry.order < oldest.order:
                oldest = flight.entry
        if oldest is None:
            return None
        sequence = oldest.batch.sequences[0]
        return None if sequence is None else int(sequence)

    # --- coming back --------------------------------------------------------------------------------------------

    def apply(self, outcomes: Iterable[Outcome]) -> None:
        """Book what the driver reported. Positions that are already resolved are passed over."""
        flights = self._flights
        for outcome in outcomes:
            at = bisect_right(self._firsts, outcome.first, lo=self._head) - 1
            at = max(at, self._head)
            while at < len(flights) and flights[at].position < outcome.stop:
                flight = flights[at]
                covered = outcome.first <= flight.position and flight.position + flight.count <= outcome.stop
                if not covered or not self._mark_whole(flight, outcome):
                    begin = max(outcome.first - flight.position, 0)
                    stop = min(outcome.stop - flight.position, flight.count)
                    for first, end in flight.runs(begin, stop) if begin < stop and flight.live else ():
                        if outcome.kind is OutcomeKind.RETURNED:
                            self._give_back(flight, first, end, ambiguous=outcome.ambiguous)
                        elif outcome.kind is OutcomeKind.RESENT:
                            self._count_resent(flight, first, end)
                        else:
                            self._mark(flight, first, end, outcome)
                if not flight.live:
                    # Its place stays for a while, in a list that is cut now and then; what was sent must not.
                    flight.entry = _NOBODY
                at += 1
        self._drop_resolved()

    def abandon(self, error: Exception | None) -> None:
        """Close the books: what was handed over and is open is unknown, what was not is failed."""
        for flight in self._flights[self._head :]:
            for first, end in flight.runs(0, flight.count) if flight.live else ():
                self._mark(flight, first, end, Outcome(OutcomeKind.UNKNOWN, 0, 0, error=error), only=(State.PENDING,))
        for _, _, _, flight in self._returned:
            # A message that was out before and came back as surely not there has failed; otherwise nobody knows.
            kind = OutcomeKind.UNKNOWN if flight.ambiguous else OutcomeKind.FAILED
            self._mark(flight, 0, flight.count, Outcome(kind, 0, 0, error=error), only=(State.PENDING,))
        self._returned.clear()

    def _mark_whole(self, flight: _Flight, outcome: Outcome) -> bool:
        """The common case, without looking at rows: a batch goes its straight way as a whole. False where it does
        not."""
        entry = flight.entry
        rows = flight.count
        if entry.marks is not None or flight.live != rows or flight.unknown or rows != len(entry.batch.bodies):
            return False
        if outcome.kind is OutcomeKind.CONFIRMED and entry.whole is State.PENDING and not outcome.missed:
            old, new = State.PENDING, State.CONFIRMED
            self.totals.confirmed += rows
            if entry.totals is not self.totals:
                entry.totals.confirmed += rows
            self.unconfirmed -= rows
            entry.pending = 0
            entry.at = self.now
            resolved = not self.retains
        elif outcome.kind is OutcomeKind.SETTLED and entry.whole is State.CONFIRMED and self.retains:
            old, new = State.CONFIRMED, State.SETTLED
            self.totals.settled += rows
            if entry.totals is not self.totals:
                entry.totals.settled += rows
            resolved = True
        else:
            return False
        entry.whole = new
        entry.counts[old] = 0
        entry.counts[new] = rows
        if resolved:
            self.messages -= rows
            self.nbytes -= entry.batch.nbytes
            entry.unresolved = 0
            flight.live = 0
        return True

    def _mark(
        self, flight: _Flight, begin: int, stop: int, outcome: Outcome, only: tuple[State, ...] | None = None
    ) -> None:
        entry, new = flight.entry, _KINDS[outcome.kind]
        if outcome.error is not None and new in {State.FAILED, State.UNKNOWN}:
            entry.error = outcome.error
        if outcome.missed:
            entry.missed = tuple(dict.fromkeys(entry.missed + outcome.missed))
        for old, first, end in _runs(entry, flight.row + begin, flight.row + stop):
            if not _allowed(old, new) or (only is not None and old not in only):
                continue
            rows = end - first
            if rows < len(entry.batch) and entry.marks is None:
                entry.marks = bytearray([old]) * len(entry.batch)
            if entry.marks is not None:
                entry.marks[first:end] = bytes([new]) * rows
            else:
                entry.whole = new
            entry.counts[old] -= rows
            entry.counts[new] += rows
            self._book(flight, old, new, first, end)

    def _book(self, flight: _Flight, old: State, new: State, first: int, end: int) -> None:
        entry, rows = flight.entry, end - first
        for books in self._books(entry):
            if new is State.CONFIRMED or (new in {State.SETTLED, State.REJECTED} and old is not State.CONFIRMED):
                books.confirmed += rows
            if new is State.FAILED:
                books.failed += rows
            elif new is State.UNKNOWN:
                books.unknown += rows
            elif new is State.SETTLED:
                books.settled += rows
            elif new is State.REJECTED:
                books.rejected += rows
            if old is State.UNKNOWN:
                books.unknown -= rows
        if old is State.PENDING:
            self.unconfirmed -= rows
            entry.pending -= rows
            entry.at = self.now
        resolved = new is not State.CONFIRMED or not self.retains
        if resolved and (old is State.PENDING or (old is State.CONFIRMED and self.retains)):
            whole = rows == len(entry.batch)
            self.messages -= rows
            self.nbytes -= entry.batch.nbytes if whole else entry.batch[first:end].nbytes
            entry.unresolved -= rows
            # A flight of unknown fate stays findable, so that a late report can still confirm it.
            if new is State.UNKNOWN:
                flight.unknown += rows
                self._unknown += rows
            else:
                flight.live -= rows
        elif old is State.UNKNOWN:
            flight.unknown -= rows
            self._unknown -= rows
            if resolved:
                flight.live -= rows
            else:
                # Accepted after all, and not settled yet: the window keeps it again.
                self.messages += rows
                self.nbytes += entry.batch[first:end].nbytes
                entry.unresolved += rows

    def _open(self, flight: _Flight, begin: int, stop: int) -> list[tuple[int, int]]:
        """The rows of its entry that are not resolved."""
        states = {State.PENDING, State.CONFIRMED} if self.retains else {State.PENDING}
        rows = _runs(flight.entry, flight.row + begin, flight.row + stop)
        return [(a, b) for state, a, b in rows if state in states]

    def _count_resent(self, flight: _Flight, begin: int, stop: int) -> None:
        for a, b in self._open(flight, begin, stop):
            for books in self._books(flight.entry):
                books.resent += b - a

    def _give_back(self, flight: _Flight, begin: int, stop: int, *, ambiguous: bool) -> None:
        entry = flight.entry
        for a, b in self._open(flight, begin, stop):
            flight.live -= b - a
            if flight.live:
                flight.gone = flight.gone or bytearray(flight.count)
                flight.gone[a - flight.row : b - flight.row] = b"\x01" * (b - a)
            for books in self._books(entry):
                books.returned += b - a
            again = _Flight(-1, entry, a, b - a, ambiguous=ambiguous)
            heapq.heappush(self._returned, (entry.order + a, 0, next(self._tie), again))

    def _drop_resolved(self) -> None:
        flights, head, count = self._flights, self._head, len(self._flights)
        while head < count and not flights[head].live:
            head += 1
        if head > 64 and head * 2 > count:
            del flights[:head]
            del self._firsts[:head]
            count -= head
            head = 0
        self._head = head
        if count - head > self._crowded:
            self._compact()

    def _compact(self) -> None:
        """Let go of what is resolved behind something that is not, and of the oldest of unknown fate where there are
        more of those than the window may hold: a late report finds them no more."""
        kept: list[_Flight] = []
        for flight in self._flights[self._head :]:
            if flight.live == flight.unknown and self._unknown > self.max_messages:
                self._unknown -= flight.unknown
            elif flight.live:
                kept.append(flight)
        self._flights = kept
        self._firsts = [flight.position for flight in kept]
        self._head = 0
        self._crowded = max(256, 2 * len(kept))

    def _books(self, entry: Entry) -> tuple[Totals, ...]:
        return (self.totals,) if entry.totals is self.totals else (self.totals, entry.totals)


def _allowed(old: State, new: State) -> bool:
    """Pending becomes anything; unknown may yet be confirmed; accepted may be settled or rejected."""
    if old is State.PENDING:
        return True
    if old is State.UNKNOWN:
        return new in {State.CONFIRMED, State.SETTLED, State.REJECTED}
    return old is State.CONFIRMED and new in {State.SETTLED, State.REJECTED}


def _runs(entry: Entry, first: int, stop: int) -> list[tuple[State, int, int]]:
    """The rows ``first … stop - 1`` as runs that are in one state."""
    marks = entry.marks
    if marks is None:
        return [(entry.whole, first, stop)]
    state = marks[first]
    if marks.count(state, first, stop) == stop - first:
        return [(State(state), first, stop)]
    runs: list[tuple[State, int, int]] = []
    start = first
    for row in range(first + 1, stop):
        if marks[row] != state:
            runs.append((State(state), start, row))
            start, state = row, marks[row]
    runs.append((State(state), start, stop))
    return runs

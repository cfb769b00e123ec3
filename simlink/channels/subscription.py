"""The log of one subscription in memory: competing readers, bounds, order per key, redelivery.

Order is *exclusive* per key: while one message of a key is unsettled, the next goes to no other reader, and a nacked
message holds back the later ones of its key. Bookkeeping per key is done only while it can matter (several readers, or
something nacked); otherwise whole batches pass through untouched.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Incoming, Lease, Settlement
from simlink.channels.segments import Origin, Segment
from simlink.errors import ConfigError
from simlink.message import Batch, Same, Verdict

if TYPE_CHECKING:
    from simlink.channels.hub import Hub

_TURN = 0.02
"""Seconds that a reader steps aside for one that waits."""

__all__ = ["Reader", "Subscription"]


class Held:
    """A segment in a reader's hands. ``marks`` is None until part of it is settled on its own."""

    __slots__ = ("marks", "open", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.marks: bytearray | None = None
        self.open = segment.rows


class Reader:
    """One of the competing readers of a subscription."""

    __slots__ = ("capacity", "closed", "firsts", "held", "holding", "lease", "subscription", "woken")

    def __init__(self, subscription: Subscription, capacity: int) -> None:
        self.subscription = subscription
        self.capacity = capacity
        self.lease = Lease(subscription.name)
        self.held: dict[int, Held] = {}
        self.firsts: list[int] = []
        self.holding = 0
        self.closed = False
        self.woken = False

    def receive(self, limit: int, timeout: float) -> list[Incoming]:
        """Wait for messages, at most ``limit`` and within the reader's capacity; empty on timeout or `wake`."""
        return self.subscription.receive(self, limit, timeout)

    def settle(self, settlements: Iterable[Settlement]) -> int:
        """Apply verdicts; how many settlements were stale."""
        return self.subscription.settle(self, settlements)

    def wake(self) -> None:
        with self.subscription.hub.changed:
            self.woken = True
            self.subscription.hub.changed.notify_all()

    def close(self) -> None:
        """Give back what is unsettled, in order and ahead of anything new, and leave."""
        self.subscription.detach(self)


class Subscription:
    """The log of one subscription (a queue has exactly one) and what its readers hold of it.

    Use through `Hub` and `Reader`; all methods take the hub's lock themselves.
    """

    def __init__(self, hub: Hub, name: str, *, private: bool, overflow: str = "block") -> None:
        self.hub = hub
        self.name = name
        self.private = private
        self.overflow = overflow
        self.readers: list[Reader] = []
        self.exclusive = False
        self.count = 0
        self.nbytes = 0
        self.next_offset = 0
        self.dropped = 0
        self.stale = 0
        self._waiting = 0
        self._aside = 0
        self._served: Reader | None = None
        self._fresh: deque[Segment] = deque()
        self._first: list[tuple[int, Segment]] = []  # a heap by offset: given back, due again, or no longer held back
        self._delayed: list[tuple[float, int, Segment]] = []  # a heap by due time: nacked, one row each
        self._blocked: dict[bytes, int] = {}  # key → how many of its messages are delayed
        self._parked: dict[bytes, list[Segment]] = {}  # key → rows that wait for it, in order, one row each
        self._owner: dict[bytes, tuple[Reader, int]] | None = None  # key → its reader and how many it holds

    # --- writing ------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more messages fit; by bytes at least one fits while the bound is not reached."""
        if self.overflow == "drop":
            return self.hub.max_messages
        hub = self.hub
        if self.nbytes >= hub.max_bytes:
            return 0
        room = hub.max_messages - self.count
        return max(0, room)

    def append(self, batch: Batch, origin: Origin | None, row: int) -> None:
        rows = len(batch.bodies)
        if self.overflow == "drop" and (fits := self._fits(shared=origin is not None)) < rows:
            self.dropped += rows - fits
            if origin is not None:
                origin.settled(row + fits, row + rows, Verdict.REJECT)
            if not fits:
                return
            batch, rows = batch[:fits], fits
        self._fresh.append(Segment(self.next_offset, batch, Same(1, rows), origin, row))
        self.next_offset += rows
        self.count += rows
        self.nbytes += batch.nbytes

    def _fits(self, *, shared: bool) -> int:
        """How many more one that drops may hold: half the buffer in all, where their sender keeps a copy of each until
        it is settled. With all of it the window of a sender, which is as large, would be full, and who is to hold up
        nobody would hold up everybody."""
        parts = 2 if shared else 1
        if self.nbytes * parts >= self.hub.max_bytes:
            return 0
        return max(0, max(1, self.hub.max_messages // parts) - self.count)

    # --- reading ------------------------------------------------------------------------------------------------

    def attach(self, capacity: int, *, exclusive: bool = False) -> Reader:
        with self.hub.changed:
            if self.readers and self.exclusive != exclusive:
                raise ConfigError(
                    f"{self.name!r} has receivers with exclusive={self.exclusive}; one with exclusive={exclusive} "
                    "cannot join them"
                )
            self.exclusive = exclusive
            reader = Reader(self, capacity)
            self.readers.append(reader)
            if len(self.readers) > 1 and self._owner is None:
                self._own_what_is_held()
            return reader

    def detach(self, reader: Reader) -> None:
        with self.hub.changed:
            if reader.closed:
                return
            reader.closed = True
            reader.lease.valid = False
            self.readers.remove(reader)
            for held in list(reader.held.values()):
                self._give_back(reader, held)
            reader.held.clear()
            reader.firsts.clear()
            self.hub.changed.notify_all()

    def receive(self, reader: Reader, limit: int, timeout: float) -> list[Incoming]:
        deadline = self.hub.clock() + timeout
        yielded = False
        with self.hub.changed:
            while True:
                now = self.hub.clock()
                self._release_due(now)
                # A full reader still gets one message: a prefetch of 1 with one in hand would wait for ever.
                room = min(limit, max(reader.capacity - reader.holding, 0 if reader.holding else 1))
                # Of exclusive readers the one that came first reads; the others stand by.
                stands_by = self.exclusive and self.readers[:1] != [reader]
                if room > 0 and not reader.closed and not stands_by:
                    if self._waiting and self._served is reader and not yielded:
                        # Somebody waits and this reader had the last turn; locks are not fair, so step aside once.
                        yielded = True
                        self._aside += 1
                        self.hub.changed.wait_for(lambda: self._served is not reader or reader.closed, _TURN)
                        self._aside -= 1
                        continue
                    out = self._hand_out(reader, min(room, self._share()))
                    if out:
                        self._served = reader
                        if self._aside:
                            self.hub.changed.notify_all()
                        return out
                if reader.woken or reader.closed or now >= deadline:
                    reader.woken = False
                    return []
                wait = deadline - now
                if self._delayed:
                    wait = min(wait, max(self._delayed[0][0] - now, 0.0))
                self._waiting += not stands_by
                self.hub.changed.wait(min(wait, self.hub.poll))
                self._waiting -= not stands_by

    def _share(self) -> int:
        """How many messages one reader may have now: all, or its part while others are waiting for some."""
        if not self._waiting:
            return max(self.count, 1)
        ready = sum(map(len, self._fresh)) + sum(len(segment) for _, segment in self._first)
        return max(1, -(-ready // (self._waiting + 1)))

    def _hand_out(self, reader: Reader, limit: int) -> list[Incoming]:
        careful = len(self.readers) > 1 or bool(self._blocked) or bool(self._owner)
        if not careful:
            self._owner = None
        out: list[Segment] = []
        skipped: list[Segment] = []
        while limit > 0:
            if self._first:
                segment = heapq.heappop(self._first)[1]
            elif self._fresh:
                segment = self._fresh.popleft()
            elif careful and self._unpark_own(reader):
                continue
            else:
                break
            if segment.origin is not None and segment.origin.ready is not None and not segment.origin.ready():
                skipped.append(segment)
                continue
            if segment.rows > limit:
                heapq.heappush(self._first, (segment.first + limit, segment.part(limit, segment.rows)))
                segment = segment.part(0, limit)
            pieces = self._allowed(reader, segment) if careful else (segment,)
            for piece in pieces:
                out.append(piece)
                limit -= piece.rows
        for segment in skipped:
            heapq.heappush(self._first, (segment.first, segment))
        return [self._hold(reader, segment) for segment in out]

    def _allowed(self, reader: Reader, segment: Segment) -> list[Segment]:
        """The rows of a segment that this reader may have now; the others are parked under their key."""
        if self._owner is None:
            self._own_what_is_held()
        owner = self._owner
        assert owner is not None
        runs: list[Segment] = []
        start = 0
        for row, key in enumerate(segment.batch.keys):
            if key is None:
                continue
            holder = owner.get(key)
            if key in self._blocked or key in self._parked or (holder is not None and holder[0] is not reader):
                if row > start:
                    runs.append(segment.part(start, row))
                insort(self._parked.setdefault(key, []), segment.part(row, row + 1), key=lambda s: s.first)
                start = row + 1
            else:
                owner[key] = (reader, 1 if holder is None else holder[1] + 1)
        if start < len(segment):
            runs.append(segment.part(start, len(segment)))
        return runs

    def _own_what_is_held(self) -> None:
        self._owner = {}
        for reader in self.readers:
            for held in reader.held.values():
                for row, key in enumerate(held.segment.batch.keys):
                    if key is not None and not (held.marks and held.marks[row]):
                        holder = self._owner.get(key)
                        self._owner[key] = (reader, 1 if holder is None else holder[1] + 1)

    def _hold(self, reader: Reader, segment: Segment) -> Incoming:
        reader.held[segment.first] = Held(segment)
        insort(reader.firsts, segment.first)
        reader.holding += segment.rows
        tokens = range(segment.first, segment.first + segment.rows)
        return Incoming(segment.batch, tokens, segment.attempts, reader.lease)

    # --- settling -----------------------------------------------------------------------------------------------

    def settle(self, reader: Reader, settlements: Iterable[Settlement]) -> int:
        stale = 0
        with self.hub.changed:
            for s in settlements:
                if s.lease is not reader.lease or not s.lease.valid:
                    stale += 1
                    continue
                # A run of tokens may cross segments; each is looked up by its first offset.
                at = max(bisect_right(reader.firsts, s.first) - 1, 0)
                for first in reader.firsts[at : bisect_right(reader.firsts, s.last)]:
                    held = reader.held[first]
                    begin = max(s.first - first, 0)
                    stop = min(s.last + 1 - first, held.segment.rows)
                    if begin < stop:
                        self._settle_rows(reader, held, begin, stop, s.verdict, s.delay)
            self.stale += stale
            self.hub.changed.notify_all()
        return stale

    def _settle_rows(self, reader: Reader, held: Held, begin: int, stop: int, verdict: Verdict, delay: float) -> None:
        segment = held.segment
        if held.marks is None and begin == 0 and stop == segment.rows:
            runs = [(0, stop)]
        else:
            if held.marks is None:
                held.marks = bytearray(segment.rows)
            runs = _unmarked(held.marks, begin, stop)
            held.marks[begin:stop] = b"\x01" * (stop - begin)
        for a, b in runs:
            done = segment.part(a, b)
            held.open -= b - a
            reader.holding -= b - a
            if verdict is Verdict.NACK:
                self._delay(done.again(), delay)
            else:
                self._forget(done, verdict)
            if self._owner is not None:
                self._disown(done)
        if held.open == 0 or verdict is Verdict.NACK:
            del reader.held[segment.first]
            at = bisect_right(reader.firsts, segment.first) - 1
            del reader.firsts[at]
            if held.marks is not None:
                # What was nacked may come again while the rest is held: the parts around it stand alone from now on,
                # so that a token never lies within two segments.
                self._keep(reader, segment, held.marks, 0, begin)
                self._keep(reader, segment, held.marks, stop, len(segment))

    def _keep(self, reader: Reader, segment: Segment, marks: bytearray, start: int, stop: int) -> None:
        rest = marks[start:stop]
        if 0 in rest:
            held = Held(segment.part(start, stop))
            held.marks = rest
            held.open = rest.count(0)
            reader.held[held.segment.first] = held
            insort(reader.firsts, held.segment.first)

    def _forget(self, segment: Segment, verdict: Verdict) -> None:
        self.count -= segment.rows
        self.nbytes -= segment.batch.nbytes
        if segment.origin is not None:
            segment.origin.settled(segment.row, segment.row + segment.rows, verdict)

    def _delay(self, segment: Segment, delay: float) -> None:
        due = self.hub.clock() + delay
        for row in range(len(segment)):
            one = segment.part(row, row + 1)
            heapq.heappush(self._delayed, (due, one.first, one))
            key = one.batch.keys[0]
            if key is not None:
                self._blocked[key] = self._blocked.get(key, 0) + 1

    def _release_due(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            segment = heapq.heappop(self._delayed)[2]
            key = segment.batch.keys[0]
            heapq.heappush(self._first, (segment.first, segment))
            if key is not None:
                left = self._blocked[key] - 1
                if left:
                    self._blocked[key] = left
                else:
                    del self._blocked[key]
                    self._unpark(key)

    def _disown(self, segment: Segment) -> None:
        if self._owner is None:
            return
        for key in segment.batch.keys:
            if key is None:
                continue
            holder = self._owner.get(key)
            if holder is None:
                continue
            if holder[1] > 1:
                self._owner[key] = (holder[0], holder[1] - 1)
            else:
                del self._owner[key]
                if key not in self._blocked:
                    self._unpark(key)

    def _unpark(self, key: bytes) -> None:
        for segment in self._parked.pop(key, ()):
            heapq.heappush(self._first, (segment.first, segment))

    def _unpark_own(self, reader: Reader) -> bool:
        """Let a reader have what another one parked under keys that are this reader's; whether there was any."""
        owner = self._owner or {}
        mine = [key for key in self._parked if key not in self._blocked and owner.get(key, (reader,))[0] is reader]
        for key in mine:
            self._unpark(key)
        return bool(mine)

    def _give_back(self, reader: Reader, held: Held) -> None:
        segment = held.segment
        runs = [(0, len(segment))] if held.marks is None else _unmarked(held.marks, 0, len(segment))
        for a, b in runs:
            part = segment.part(a, b)
            reader.holding -= len(part)
            self._disown(part)
            again = part.again()
            heapq.heappush(self._first, (again.first, again))

    # --- the rest -----------------------------------------------------------------------------------------------

    def withdraw(self, wanted: Callable[[Segment], bool]) -> list[Segment]:
        """Take out and return the segments that no reader holds and that ``wanted`` says yes to."""
        with self.hub.changed:
            gone: list[Segment] = []
            gone += [s for s in self._fresh if wanted(s)]
            self._fresh = deque(s for s in self._fresh if not wanted(s))
            gone += [s for _, s in self._first if wanted(s)]
            self._first = [(o, s) for o, s in self._first if not wanted(s)]
            heapq.heapify(self._first)
            for key, parked in list(self._parked.items()):
                gone += [s for s in parked if wanted(s)]
                self._parked[key] = [s for s in parked if not wanted(s)]
                if not self._parked[key]:
                    del self._parked[key]
            for _, _, segment in [d for d in self._delayed if wanted(d[2])]:
                gone.append(segment)
                held_back = segment.batch.keys[0]
                if held_back is not None:
                    self._blocked[held_back] -= 1
                    if not self._blocked[held_back]:
                        del self._blocked[held_back]
                        self._unpark(held_back)
            self._delayed = [d for d in self._delayed if not wanted(d[2])]
            heapq.heapify(self._delayed)
            for segment in gone:
                self.count -= len(segment)
                self.nbytes -= segment.batch.nbytes
            self.hub.changed.notify_all()
            return sorted(gone, key=lambda s: s.first)

    def purge(self) -> int:
        """Drop what nobody holds; how many messages."""
        gone = self.withdraw(lambda _: True)
        with self.hub.changed:
            for segment in gone:
                if segment.origin is not None:
                    segment.origin.settled(segment.row, segment.row + len(segment), Verdict.REJECT)
        return sum(map(len, gone))

    def stats(self) -> dict[str, Any]:
        with self.hub.changed:
            return {
                "messages": self.count,
                "bytes": self.nbytes,
                "held": sum(r.holding for r in self.readers),
                "delayed": len(self._delayed),
                "held_back": sum(map(len, self._parked.values())),
                "readers": len(self.readers),
                "dropped": self.dropped,
                "stale": self.stale,
            }


def _unmarked(marks: bytearray, begin: int, stop: int) -> list[tuple[int, int]]:
    """The runs of zeros in ``marks[begin:stop]``."""
    runs: list[tuple[int, int]] = []
    at = begin
    while at < stop:
        start = marks.find(0, at, stop)
        if start < 0:
            break
        end = marks.find(1, start, stop)
        end = stop if end < 0 else end
        runs.append((start, end))
        at = end
    return runs

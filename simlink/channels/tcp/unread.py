"""One bound on what a listener holds of frames that are not complete, over all its connections.

A frame that is too long for the buffer that every connection has is given room as a whole, when the first 48 KiB of
it are there; so whoever has room can always go on, and a length that is only announced costs nothing. A connection
that finds no room is not read for a while: TCP holds its peer back. That cannot last, and nobody can make it:

- buffers that are larger than what is in them are given back first;
- a quarter of the room is for frames of ordinary length, so those who announce huge ones do not keep them waiting;
- of those who wait, the one who came first and the one with the shortest frame have their turn alternately;
- one frame at a time finds room however long it is;
- while somebody waits, nobody reads far beyond the end of a frame; and where all who have room wait for more, because
  what they read is the begin of a longer frame, one of them goes on all the same;
- while somebody waits, a frame must come as fast as its time limit asks of it, second by second. Whoever takes room and
  then stalls is cut off within about a second; see `laggards`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from simlink.channels.wire.framing import FrameReader

__all__ = ["Unread"]

_ORDINARY = 64
"""A frame up to this part of the whole bound is of ordinary length."""


class _Reading(Protocol):
    """A connection."""

    reader: FrameReader


T = TypeVar("T", bound=_Reading)


class _Held:
    """The room that one connection has, and how far its frame was when that was last looked at."""

    __slots__ = ("at", "nbytes", "pending")

    def __init__(self) -> None:
        self.nbytes = 0
        self.at: float | None = None
        self.pending = 0


class _Pool(Generic[T]):
    """Room for frames of a kind, who has some, and who waits for it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.holding: dict[T, _Held] = {}
        self.waiting: OrderedDict[T, None] = OrderedDict()
        self.shortest = False
        """Whose turn it is."""

    def hold(self, who: T, nbytes: int) -> None:
        held = self.holding.setdefault(who, _Held())
        self.taken += nbytes - held.nbytes
        held.nbytes = nbytes
        if not nbytes:
            del self.holding[who]

    def fits(self, who: T, nbytes: int) -> bool:
        """Whether it may hold so much; alone it may hold anything."""
        mine = self.holding.get(who)
        others = self.taken - (0 if mine is None else mine.nbytes)
        return not others or others + nbytes <= self.limit

    def reclaim(self) -> None:
        for who, held in list(self.holding.items()):
            who.reader.compact()
            self.hold(who, min(held.nbytes, _wanted(who.reader)))


class Unread(Generic[T]):
    """The room for frames, beyond the `FrameReader.BASE` bytes that each connection has. For one thread.

    Args:
        limit: bytes of all connections together.
        frame_timeout: seconds that a frame may take.

    Attributes:
        waited: how often a connection had to wait.
    """

    def __init__(self, limit: int, frame_timeout: float) -> None:
        self.limit = limit
        self.frame_timeout = frame_timeout
        self.waited = 0
        self._ordinary: _Pool[T] = _Pool(limit // 4)
        self._large: _Pool[T] = _Pool(limit - limit // 4)
        self._pools = (self._ordinary, self._large)
        self._again: list[T] = []

    @property
    def taken(self) -> int:
        """Bytes that are held now, or promised to frames that are on their way."""
        return self._ordinary.taken + self._large.taken

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._ordinary.waiting or self._large.waiting)

    def waits(self, who: T) -> bool:
        """Whether it is not to be read now."""
        return who in self._ordinary.waiting or who in self._large.waiting

    def _pool(self, who: T) -> _Pool[T]:
        return self._ordinary if who.reader.needs <= self.limit // _ORDINARY else self._large

    def grow(self, who: T) -> bool:
        """Make room for what a connection is going to read; False when it waits for that from now on."""
        who.reader.ahead = not self
        if not who.reader.cramped:
            return True
        if who.reader.pending >= who.reader.needs:
            # There are whole frames in it, which are to be taken first.
            self._again.append(who)
            return False
        pool = self._pool(who)
        held = pool.holding.get(who)
        if held is not None and held.nbytes >= who.reader.needs:
            who.reader.grow()
            return True
        if not pool.waiting and self._take(pool, who):
            return True
        self.waited += 1
        pool.waiting[who] = None
        return False

    def _take(self, pool: _Pool[T], who: T) -> bool:
        nbytes = _wanted(who.reader)
        if not pool.fits(who, nbytes):
            pool.reclaim()
            if not pool.fits(who, nbytes):
                return False
        self._give(pool, who)
        return True

    def _give(self, pool: _Pool[T], who: T) -> None:
        nbytes = _wanted(who.reader)
        self._release(who)
        pool.hold(who, nbytes)
        who.reader.grow()

    def read_ahead(self, who: T) -> None:
        """A connection has brought as much as it had room for: read it in larger pieces, if that harms nobody."""
        pool, reader = self._ordinary, who.reader
        if reader.busy and not pool.waiting and who not in self._large.holding:
            wanted = reader.capacity + reader.growth - reader.BASE
            held = pool.holding.get(who)
            more = wanted if held is None else max(0, wanted - held.nbytes)
            if pool.taken + more <= pool.limit // 2:
                pool.hold(who, wanted if held is None else max(wanted, held.nbytes))
                reader.grow()

    def progressed(self, who: T) -> None:
        """Frames of a connection were completed."""
        for pool in self._pools:
            if who in pool.holding:
                if pool.waiting or pool is self._large:
                    who.reader.compact()
                pool.hold(who, min(pool.holding[who].nbytes, _wanted(who.reader)))

    def admitted(self) -> list[T]:
        """Those who need not wait any more. What they wait for may have come already: read them without being told."""
        out, self._again = self._again, []
        for pool in self._pools:
            while pool.waiting:
                who = min(pool.waiting, key=_needs) if pool.shortest else next(iter(pool.waiting))
                pool.shortest = not pool.shortest
                if who.reader.cramped and (other := self._pool(who)) is not pool:
                    del pool.waiting[who]
                    other.waiting[who] = None
                    continue
                if who.reader.cramped and not self._take(pool, who):
                    # Where nobody who has room goes on and makes some, one of them does: it ends its frame, and then
                    # has none.
                    if not pool.holding or not all(map(self.waits, pool.holding)):
                        pool.shortest = not pool.shortest
                        break
                    who = next(iter(pool.holding))
                    self._give(self._pool(who), who)
                for each in self._pools:
                    each.waiting.pop(who, None)
                out.append(who)
        return out

    def laggards(self, now: float) -> list[T]:
        """Those whose frame comes more slowly than its time limit asks, while others wait for the room it takes."""
        out = []
        look = min(1.0, self.frame_timeout / 4)
        for pool in self._pools:
            for who, held in pool.holding.items():
                pending = who.reader.pending
                if held.at is None or not pool.waiting or pending < held.pending or self.waits(who):
                    held.at = now if pool.waiting else None
                elif now - held.at < look:
                    continue
                elif pending - held.pending < who.reader.needs * (now - held.at) / self.frame_timeout:
                    out.append(who)
                else:
                    held.at = now
                held.pending = pending
        return out

    def leave(self, who: T) -> None:
        """A connection is not read any more."""
        for pool in self._pools:
            pool.waiting.pop(who, None)
        self._release(who)

    def _release(self, who: T) -> None:
        for pool in self._pools:
            if who in pool.holding:
                pool.hold(who, 0)


def _needs(who: _Reading) -> int:
    return who.reader.needs


def _wanted(reader: FrameReader) -> int:
    """The room that a connection needs beyond its base: for its frame, and at least for its buffer as it is."""
    begun = reader.BASE * 3 // 4 < reader.pending < reader.needs
    return max(reader.needs if begun else 0, reader.capacity - reader.BASE)

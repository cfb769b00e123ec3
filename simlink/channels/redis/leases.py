"""Streams that one receiver at a time may read, so that order survives a takeover.

Each stream has a lease, a key that expires. Whoever holds it reads the stream, what its predecessor left first, and
every read is made by a script that looks at the lease: a receiver that was away for too long reads nothing it may not.
Receivers share the streams evenly; one with more than its share drains a stream and lets it go. With ``exclusive=True``
one receiver has all of them, and the others stand by.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from simlink.channels.driver import ReceiverOptions
from simlink.channels.redis.lanes import Lane
from simlink.channels.redis.scripts import LEASED_FETCH, RELEASE, SHARE, Script
from simlink.channels.redis.settings import Settings
from simlink.channels.redis.sources import CLAIM_PAUSE, HEIR, IDLE, PAGE, Command, GroupSource
from simlink.channels.redis.wire import Wire

__all__ = ["LeasedSource"]

SHARE_PAUSE = 0.25
"""The longest pause between two looks at who has which stream, in seconds."""
JOIN_WAIT = 2.0
"""How long entering waits for the others to let a stream go, in seconds."""


class LeasedSource(GroupSource):
    """See the module."""

    scripts: tuple[Script, ...] = (*GroupSource.scripts, LEASED_FETCH)
    deep = False

    def __init__(self, settings: Settings, group: str, options: ReceiverOptions) -> None:
        super().__init__(settings, group, options)
        self._members = settings.companion("members", group)
        self._leases = {lane.key: settings.companion("lease", group, str(i)) for i, lane in enumerate(self.lanes)}
        self._held: list[Lane] = []
        self._draining: list[Lane] = []
        self._share = len(self.lanes)
        self._next_share = 0.0
        self._next_gaps = 0.0
        self._inherits: dict[bytes, bytes] = {}  # streams whose former holder's entries are to be claimed → the cursor
        self._asked: list[Lane] = []
        self._ends: dict[bytes, bytes] = {}  # streams that were empty → their last ID
        self._waits = False

    # --- joining ------------------------------------------------------------------------------------------------

    def open(self, wire: Wire, timeout: float) -> int:
        again = self._joined
        deadline = time.monotonic() + min(timeout, JOIN_WAIT)
        self.join(wire, timeout)
        self._ends.clear()
        self._sync(wire)
        if again:
            for lane in self._held:
                self.resume(wire, lane)
            return 0
        while not self._held and not self.options.exclusive and time.monotonic() < deadline:
            time.sleep(0.02)
            self._sync(wire)
        return 0

    @property
    def ready(self) -> bool:
        return bool(self._readable)

    @property
    def assigned(self) -> bool:
        return bool(self._held)

    @property
    def _readable(self) -> list[Lane]:
        return [lane for lane in self._held if lane.key not in self._inherits and lane not in self._draining]

    # --- reading ------------------------------------------------------------------------------------------------

    def ask(self, count: int, block: int, since: float) -> list[Command]:
        lanes = self._asked = self._readable
        if block and all(lane.key in self._ends for lane in lanes):
            # A lease cannot be looked at while a read waits: wait for a sign that there is something, and read then.
            self._waits = True
            ends = [self._ends[lane.key] for lane in lanes]
            self._ends.clear()
            return [("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", *(lane.key for lane in lanes), *ends)]
        self._waits = False
        keys = [key for lane in lanes for key in (self._leases[lane.key], lane.key)]
        each = max(1, count // len(lanes))
        gaps = [self.gaps_of(lane) for lane in lanes] if self.watches else []
        return [*gaps, ("EVALSHA", LEASED_FETCH.sha, len(keys), *keys, self.group, self.consumer, each)]

    def take(self, answers: Sequence[Any]) -> int:
        if self._waits:
            return 0
        for lane, gap in zip(self._asked, answers[:-1], strict=False):
            lane.gaps += int(gap)
        size = 0
        for lane, found in zip(self._asked, answers[-1], strict=True):
            if not found:
                self._next_share = 0.0  # the lease is gone: look at once
                continue
            entries, end = found
            if entries:
                self._ends.pop(lane.key, None)
                size += lane.take(entries)
            else:
                self._ends[lane.key] = end
        return size

    # --- chores -------------------------------------------------------------------------------------------------

    def next_chore(self, room: int) -> float:
        if self._inherits and room > 0:
            return 0.0
        due = min(self._next_share, self._next_gaps)
        return min(due, self._next_trim) if self._untrimmed and self.settings.trims else due

    def chores(self, wire: Wire, now: float, room: int) -> None:
        if now >= self._next_share or not all(lane.sound for lane in self._held):
            self._sync(wire)
        for lane in [lane for lane in self._held if lane.key in self._inherits]:
            if room <= 0:
                break
            before = lane.hold.count
            cursor = self.claim(wire, lane, 0, self._inherits[lane.key], min(room, PAGE))
            room -= lane.hold.count - before
            self._inherits[lane.key] = cursor
            if cursor == b"0-0":
                del self._inherits[lane.key]
        if now >= self._next_gaps:
            self._next_gaps = now + CLAIM_PAUSE
            for lane in self._held:
                self.look_for_gaps(wire, lane)
        self.trim(wire, now)

    def _sync(self, wire: Wire) -> None:
        """Look at who has which stream; take what is free and due to us, let go of what is too much."""
        when = time.monotonic()
        life = int(self.settings.min_idle * 1000)
        keys = [self._members, *self._leases.values()]
        alone = int(self.options.exclusive)
        self._share, *flags = wire.run(SHARE, keys, self.consumer, life, alone, timeout=self.timeout)
        self._next_share = when + min(SHARE_PAUSE, self.settings.min_idle / 3)
        for lane, flag in zip(self.lanes, flags, strict=True):
            if flag == 0:
                if lane in self._held:
                    self._held.remove(lane)
                    lane.let_go()
                    self._inherits.pop(lane.key, None)
            elif lane not in self._held or flag == 2:
                if lane not in self._held:
                    self._held.append(lane)
                lane.let_go()
                lane.renewed(when)
                self._inherits[lane.key] = b"0-0"
            elif lane.sound:
                lane.renewed(when)
            else:
                self.resume(wire, lane)
        self._let_surplus_go(wire)

    def _let_surplus_go(self, wire: Wire) -> None:
        surplus = len(self._held) - self._share
        # Those that are being drained first, then the idle ones.
        lanes = sorted(self._held, key=lambda lane: (lane not in self._draining, lane.hold.count))
        self._draining = lanes[: max(0, surplus)]
        for lane in self._draining:
            if not (lane.hold.count or lane.settled or lane.sent):
                self._release(wire, lane)

    def _release(self, wire: Wire, lane: Lane) -> None:
        keys = [self._leases[lane.key], lane.key]
        wire.run(RELEASE, keys, self.group, self.consumer, HEIR, IDLE, timeout=self.timeout)
        self._held.remove(lane)
        self._inherits.pop(lane.key, None)
        lane.let_go()

    def close(self, wire: Wire) -> None:
        for lane in list(self._held):
            self._release(wire, lane)
        wire.call("ZREM", self._members, self.consumer, timeout=self.timeout)
        super().close(wire)

    def stats(self) -> Mapping[str, Any]:
        return {**super().stats(), "streams": [lane.key.decode() for lane in self._held], "share": self._share}

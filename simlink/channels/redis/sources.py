"""Where a receiver's entries come from: a group that is shared, leased streams, or a stream read without a group.

A source knows which commands to send and what their answers mean. When to send them, and over what, is the receiver's.
All calls are made while nothing else is under way on the wire.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from simlink.channels.driver import Mode, ReceiverOptions
from simlink.channels.redis.lanes import Lane
from simlink.channels.redis.scripts import CLAIM, GAPS, GIVE_BACK, JOIN, RENEW, TRIM, Script
from simlink.channels.redis.settings import Settings
from simlink.channels.redis.starts import Start, before, check_start
from simlink.channels.redis.wire import Wire
from simlink.errors import ConfigError, NotSupported

__all__ = ["HEIR", "IDLE", "Command", "GroupSource", "Source", "source_for"]

HEIR = b"simlink-returned"
"""The consumer that owns what was given back, until somebody claims it."""
IDLE = 24 * 3600 * 1000
"""How long that has been idle, in milliseconds: longer than anybody's minimum."""
CLAIM_PAUSE = 1.0
"""The longest pause between two looks for what others left, in seconds."""
TRIM_PAUSE = 1.0
PAGE = 1000
"""Entries of one call, where there may be many."""

Command = tuple[Any, ...]


class Source(ABC):
    """Args:
    life: seconds after which others may claim what is held; None where nobody can.
    """

    scripts: tuple[Script, ...] = ()
    """Those that `ask` uses, by their hash."""
    deep = False
    """Whether it can be asked again before it was given the answers to the last time."""

    def __init__(self, settings: Settings, options: ReceiverOptions, life: float | None) -> None:
        check_start(options.start)
        self.settings = settings
        self.options = options
        self.lanes = [Lane(key, life) for key in settings.keys]
        self.timeout = settings.address.request_timeout

    @abstractmethod
    def open(self, wire: Wire, timeout: float) -> int:
        """Join, or join again; how many entries a broken connection cost."""

    @abstractmethod
    def ask(self, count: int, block: int, since: float) -> list[Command]:
        """The commands that read up to ``count`` entries; the last may wait for ``block`` milliseconds (0: not at
        all) and be answered with nothing. What is under way, this included, the server was asked for at ``since`` or
        later, by the monotonic clock."""

    @abstractmethod
    def take(self, answers: Sequence[Any]) -> int:
        """The answers to `ask`, in order; how many bytes of messages they brought."""

    def acknowledge(self) -> list[tuple[Lane, int, Command]]:
        """What tells the server of settled entries: the lane, how many, and the command."""
        return []

    def chores(self, wire: Wire, now: float, room: int) -> None:
        """Whatever is due: renewals, claims, leases, trimming."""

    def next_chore(self, room: int) -> float:
        """When something is due, by the monotonic clock, with so much room for messages."""
        return float("inf")

    def close(self, wire: Wire) -> None:
        """Give back what is unsettled and leave. Acknowledgements were sent before."""

    @property
    def ready(self) -> bool:
        """Whether there is anything to read from now."""
        return True

    @property
    def assigned(self) -> bool:
        """Whether anything can come at all."""
        return True

    def lane_of(self, key: bytes) -> Lane:
        return next(lane for lane in self.lanes if lane.key == key)

    def stats(self) -> Mapping[str, Any]:
        return {}


class GroupSource(Source):
    """One stream, shared by the receivers of a group: each entry goes to whoever reads first."""

    scripts: tuple[Script, ...] = (GAPS,)
    deep = True

    def __init__(self, settings: Settings, group: str, options: ReceiverOptions) -> None:
        super().__init__(settings, options, settings.min_idle)
        self.group = group.encode()
        self.consumer = f"simlink-{secrets.token_hex(8)}".encode()
        self.claimed = 0
        self._joined = False
        self._cursor = b"0-0"
        self._next_claim = 0.0
        self._next_trim = 0.0
        self._untrimmed = 0
        self.watches = settings.retention is not None  # whether gaps are looked for at every fetch

    # --- joining ------------------------------------------------------------------------------------------------

    def open(self, wire: Wire, timeout: float) -> int:
        again = self._joined
        self.join(wire, timeout)
        for lane in self.lanes if again else ():
            self.resume(wire, lane)
        self._cursor, self._next_claim = b"0-0", 0.0
        return 0

    def join(self, wire: Wire, timeout: float) -> None:
        """See that the group is there; where it starts is asked for once only."""
        start, reset = ("", False) if self._joined else (self._start(), self.options.reset)
        default = "0" if self.settings.mode is Mode.QUEUE else "$"
        keys = [lane.key for lane in self.lanes]
        made = wire.run(JOIN, keys, self.group, start, default, int(reset), timeout=timeout)
        if made < 0:
            raise ConfigError(
                f"{self.settings.url}: the group {self.group.decode()!r} has a position already, which "
                f"start={self.options.start!r} would move: pass reset=True to do that"
            )
        self._joined = True

    def _start(self) -> str:
        start = self.options.start
        return "" if start is None else before(start, end="$")

    def resume(self, wire: Wire, lane: Lane) -> None:
        """Ask what is ours, and go on with that."""
        when = time.monotonic()
        pending: list[Any] = []
        entries: list[Any] = []
        after: bytes = b"0-0"
        listed: bytes = b"-"
        while True:
            told, found = wire.call_many(
                [
                    ("XPENDING", lane.key, self.group, listed, "+", PAGE, self.consumer),
                    ("XREADGROUP", "GROUP", self.group, self.consumer, "COUNT", PAGE, "STREAMS", lane.key, after),
                ],
                timeout=self.timeout,
            )
            page = found[0][1] if found else []
            pending += told
            entries += page
            if len(page) < PAGE:
                break
            after, listed = page[-1][0], b"(" + page[-1][0]
        lane.resume(entries, {row[0]: int(row[3]) for row in pending}, when)

    # --- reading ------------------------------------------------------------------------------------------------

    def ask(self, count: int, block: int, since: float) -> list[Command]:
        lane = self.lanes[0]
        if not lane.hold.count:
            lane.renewed(since)
        commands: list[Command] = [self.gaps_of(lane)] if self.watches else []
        waits: Command = ("BLOCK", block) if block else ()
        read = ("XREADGROUP", "GROUP", self.group, self.consumer, "COUNT", count, *waits, "STREAMS", lane.key, ">")
        return [*commands, read]

    def take(self, answers: Sequence[Any]) -> int:
        lane = self.lanes[0]
        for gap in answers[:-1]:
            lane.gaps += int(gap)
        found = answers[-1]
        return lane.take(found[0][1]) if found else 0

    def acknowledge(self) -> list[tuple[Lane, int, Command]]:
        out: list[tuple[Lane, int, Command]] = []
        for lane in self.lanes:
            if lane.settled:
                ids = lane.acknowledging()
                self._untrimmed += len(ids)
                out += [
                    (lane, len(part), ("XACK", lane.key, self.group, *part))
                    for part in (ids[at : at + PAGE] for at in range(0, len(ids), PAGE))
                ]
        return out

    # --- chores -------------------------------------------------------------------------------------------------

    def next_chore(self, room: int) -> float:
        due = self._next_claim if room > 0 else float("inf")
        if self._untrimmed and self.settings.trims:
            due = min(due, self._next_trim)
        for lane in self.lanes:
            if lane.hold.count:
                due = min(due, lane.renewed_at + self.settings.min_idle / 3)
        return due

    def chores(self, wire: Wire, now: float, room: int) -> None:
        for lane in self.lanes:
            self._keep(wire, lane, now)
        if room > 0 and now >= self._next_claim:
            self._claim(wire, self.lanes[0], min(room, PAGE))
        self.trim(wire, now)

    def _keep(self, wire: Wire, lane: Lane, now: float) -> None:
        """Renew what is held at a third of its time; where some of it is gone, find out what is left."""
        if not lane.sound:
            self.resume(wire, lane)
            return
        if not lane.hold.count or now < lane.renewed_at + self.settings.min_idle / 3:
            return
        when = time.monotonic()
        ids = sorted(lane.hold.ids(), key=_order)
        for at in range(0, len(ids), PAGE):
            part = ids[at : at + PAGE]
            lost = wire.run(RENEW, [lane.key], self.group, self.consumer, *part, timeout=self.timeout)
            if lost:
                lane.lease.valid = False
                self.resume(wire, lane)
                return
        lane.renewed(when)

    def _claim(self, wire: Wire, lane: Lane, count: int) -> None:
        """Take over what others left, ahead of anything new."""
        now = time.monotonic()
        if not lane.hold.count:
            lane.renewed(now)
        self.look_for_gaps(wire, lane)
        self._cursor = self.claim(wire, lane, int(self.settings.min_idle * 1000), self._cursor, count)
        if self._cursor == b"0-0":
            self._next_claim = now + min(CLAIM_PAUSE, self.settings.min_idle / 3)

    def gaps_of(self, lane: Lane) -> Command:
        return ("EVALSHA", GAPS.sha, 1, lane.key, self.group)

    def look_for_gaps(self, wire: Wire, lane: Lane) -> None:
        """Count what was trimmed away unread; where that happens once it is looked for at every fetch."""
        gap = int(wire.run(GAPS, [lane.key], self.group, timeout=self.timeout))
        if gap:
            lane.gaps += gap
            self.watches = True

    def claim(self, wire: Wire, lane: Lane, idle: int, cursor: bytes, count: int) -> bytes:
        """One step of it; the next cursor, which is 0-0 after the last."""
        following, entries, counts, gone = wire.run(
            CLAIM, [lane.key], self.group, self.consumer, idle, cursor, count, timeout=self.timeout
        )
        lane.gaps += int(gone)
        self.claimed += len(entries)
        lane.take_claimed(entries, counts)
        return bytes(following)

    def trim(self, wire: Wire, now: float, *, pause: float = TRIM_PAUSE) -> None:
        """Drop what every group has done with, if any of it is ours."""
        if not self._untrimmed or not self.settings.trims or now < self._next_trim:
            return
        self._next_trim = now + pause
        if any(lane.sent for lane in self.lanes):
            return
        wire.run(TRIM, [lane.key for lane in self.lanes], timeout=self.timeout)
        self._untrimmed = 0

    def close(self, wire: Wire) -> None:
        self._next_trim = 0.0
        keys = [lane.key for lane in self.lanes]
        wire.run(GIVE_BACK, keys, self.group, self.consumer, HEIR, IDLE, timeout=self.timeout)
        self.trim(wire, time.monotonic())

    def stats(self) -> Mapping[str, Any]:
        return {"group": self.group.decode(), "consumer": self.consumer.decode(), "claimed": self.claimed}


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def source_for(settings: Settings, group: str | None, options: ReceiverOptions) -> Source:
    """The kind of source that a receiver needs.

    Raises:
        ConfigError: a start that Redis does not know. NotSupported: one ID for several streams.
    """
    start: Start | None = options.start
    if len(settings.keys) > 1 and isinstance(start, str) and start not in {"earliest", "new"}:
        raise NotSupported(f"start={start!r}: an ID is of one stream, and this destination has {len(settings.keys)}")
    if group is None:
        from simlink.channels.redis.plain import PlainSource

        return PlainSource(settings, options)
    if options.exclusive or len(settings.keys) > 1:
        from simlink.channels.redis.leases import LeasedSource

        return LeasedSource(settings, group, options)
    if isinstance(start, datetime) or start is not None:
        before(start, end="$")
    return GroupSource(settings, group, options)

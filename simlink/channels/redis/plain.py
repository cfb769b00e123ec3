"""Reading without a group: the last ID that was read is ours to remember, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simlink.channels.driver import ReceiverOptions
from simlink.channels.redis.scripts import POSITION, Script
from simlink.channels.redis.settings import Settings
from simlink.channels.redis.sources import Command, Source
from simlink.channels.redis.starts import before
from simlink.channels.redis.wire import Wire

__all__ = ["PlainSource"]


class PlainSource(Source):
    """An unnamed subscription.

    Gaps are found by counting: the server tells how many entries a stream ever had and how many it has, and we know
    how many we have read.
    """

    scripts: tuple[Script, ...] = (POSITION,)

    def __init__(self, settings: Settings, options: ReceiverOptions) -> None:
        super().__init__(settings, options, None)
        self._last: list[bytes] = []
        self._index: list[int | None] = []
        """How many entries lie at or before our position, of all that the stream ever had; None where that is not
        known."""

    def open(self, wire: Wire, timeout: float) -> int:
        keys = [lane.key for lane in self.lanes]
        told = wire.run(POSITION, keys, timeout=timeout)
        if self._last:
            return self._count_gaps(told)
        start = before("new" if self.options.start is None else self.options.start, end="$")
        for last, added, length, _ in told:
            self._last.append(last if start == "$" else start.encode())
            self._index.append(int(added) if start == "$" else int(added) - int(length) if start == "0" else None)
        return 0

    def ask(self, count: int, block: int, since: float) -> list[Command]:
        keys = [lane.key for lane in self.lanes]
        waits: Command = ("BLOCK", block) if block else ()
        return [
            ("EVALSHA", POSITION.sha, len(keys), *keys),
            ("XREAD", "COUNT", max(1, count // len(keys)), *waits, "STREAMS", *keys, *self._last),
        ]

    def take(self, answers: Sequence[Any]) -> int:
        told, found = answers
        self._count_gaps(told)
        size = 0
        for key, entries in found or ():
            lane = self.lane_of(key)
            at = self.lanes.index(lane)
            size += lane.take(entries)
            self._last[at] = entries[-1][0]
            known = self._index[at]
            self._index[at] = None if known is None else known + len(entries)
        return size

    def _count_gaps(self, told: Sequence[Any]) -> int:
        """Compare positions where the server's numbers say where we stand: at the end, or before the beginning."""
        missed = 0
        for at, (last, added, length, first) in enumerate(told):
            own, index = _number(self._last[at]), self._index[at]
            if own > _number(last):
                # The stream was made anew: all of it is unread.
                self._last[at], self._index[at] = b"0-0", 0
                continue
            where: int | None = None
            if own == _number(last):
                where = int(added)
            elif length and own < _number(first):
                where = int(added) - int(length)
            if where is None:
                continue
            if index is not None and where > index:
                missed += where - index
                self.lanes[at].gaps += where - index
            self._index[at] = where
        return missed

    def stats(self) -> Mapping[str, Any]:
        return {"last": {lane.key.decode(): last.decode() for lane, last in zip(self.lanes, self._last, strict=False)}}


def _number(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)

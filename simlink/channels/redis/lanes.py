"""One stream as a receiver sees it: what is held of it, and the answers of the server taken apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from simlink.channels.driver import Incoming, Settlement
from simlink.channels.redis.entries import read_entries
from simlink.channels.redis.holds import ClaimLease, Hold
from simlink.message import Verdict

__all__ = ["Lane"]


class Lane:
    """Args:
    key: of the stream.
    life: seconds after which what is held may be claimed by others; None where nobody can.

    Attributes:
        hold: what is held.
        settled: IDs that are to be acknowledged.
        sent: IDs whose acknowledgement is on the way.
        gaps: entries that were trimmed away before they were read.
    """

    def __init__(self, key: str, life: float | None) -> None:
        self.key = key.encode()
        self.life = life
        self.hold = Hold(ClaimLease(key, life, time.monotonic()))
        self.settled: list[bytes] = []
        self.sent: list[bytes] = []
        self.gaps = 0

    @property
    def lease(self) -> ClaimLease:
        return self.hold.lease

    @property
    def sound(self) -> bool:
        """Whether what is held is certainly still ours. Nothing held is nothing lost."""
        return self.hold.lease.valid or not self.hold.count

    def renewed(self, when: float) -> None:
        """Everything held was ours at ``when``."""
        if not self.hold.lease.valid and not self.hold.count:
            self._anew(when)
        self.hold.lease.renewed = max(self.hold.lease.renewed, when)

    @property
    def renewed_at(self) -> float:
        return self.hold.lease.renewed

    def let_go(self) -> None:
        """What is held is somebody else's from here on; so are the verdicts over it."""
        self.hold.lease.valid = False
        self._anew(time.monotonic())
        self.settled, self.sent = [], []

    def _anew(self, when: float) -> None:
        self.hold = Hold(ClaimLease(self.hold.lease.name, self.life, when))

    # --- entries in ---------------------------------------------------------------------------------------------

    def take(self, entries: Sequence[Any]) -> int:
        """New entries, as ``[[id, [name, value, …]], …]``; how many bytes."""
        if not entries:
            return 0
        ids, fields = zip(*entries, strict=True)
        if None in fields:
            return self._take_again(entries, [1] * len(entries))
        batch = read_entries(fields)
        self.hold.add(ids, batch)
        return batch.nbytes

    def take_claimed(self, entries: Sequence[Any], counts: Sequence[int]) -> int:
        """Entries that were another's; what is held already is passed over."""
        held = set(self.hold.ids())
        held.update(self.settled, self.sent)
        rows = [(e, max(2, int(c))) for e, c in zip(entries, counts, strict=True) if e is not None and e[0] not in held]
        return self._take_again([entry for entry, _ in rows], [count for _, count in rows])

    def _take_again(self, entries: Sequence[Any], attempts: Sequence[int]) -> int:
        """Entries with their attempts. One without fields was trimmed away: it is acknowledged and counted."""
        rows = [(entry[0], entry[1], attempt) for entry, attempt in zip(entries, attempts, strict=True)]
        for entry_id, fields, _ in rows:
            if fields is None:
                self.gaps += 1
                self.settled.append(entry_id)
        rows = [row for row in rows if row[1] is not None]
        if not rows:
            return 0
        ids, fields_of, counts = zip(*rows, strict=True)
        batch = read_entries(fields_of)
        self.hold.add(ids, batch, counts)
        return batch.nbytes

    def resume(self, entries: Sequence[Any], counts: dict[bytes, int], when: float) -> None:
        """After a connection or a hold was lost: ``entries`` is all that the server says is ours, ``counts`` how often
        each was handed out.

        Where all that was held is among it, the hold goes on, and only what got lost on its way to us is new.
        Otherwise it is over: everything comes under a new one, one attempt later.
        """
        owned = {entry[0] for entry in entries}
        settled = [i for i in (*self.sent, *self.settled) if i in owned]
        held = set(self.hold.ids())
        goes_on = self.lease.valid and held <= owned
        if not goes_on:
            self.let_go()
        self.settled, self.sent = settled, []
        skipped = set(settled)
        if goes_on:
            skipped |= held
        new = [entry for entry in entries if entry[0] not in skipped]
        attempts = [max(1, counts.get(entry[0], 1)) + (entry[0] in held) for entry in new]
        self._take_again(new, attempts)
        self.renewed(when)

    # --- out and settled ----------------------------------------------------------------------------------------

    def hand_out(self, limit: int, nbytes: int, now: float) -> list[Incoming]:
        return self.hold.hand_out(limit, nbytes, now) if self.lease.valid else []

    def settle(self, settlement: Settlement, now: float) -> None:
        done = self.hold.settle(settlement.verdict, settlement.first, settlement.last, now + settlement.delay)
        if settlement.verdict is not Verdict.NACK:
            self.settled += done

    def acknowledging(self) -> list[bytes]:
        """What is to be acknowledged now; `acknowledged` says that it was."""
        ids, self.settled = self.settled, []
        self.sent += ids
        return ids

    def acknowledged(self, count: int) -> None:
        """The first ``count`` of what was sent."""
        del self.sent[:count]

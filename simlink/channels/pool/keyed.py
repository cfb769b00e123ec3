"""A queue pool that looks at keys: for a balancer that goes by them, and for order per key.

With ``pinned`` a key stays with its endpoint while something of it is unsettled there. When that endpoint leaves the
rotation, what is new of the key is held back, until the endpoint is back or what it had comes back from it. Whatever
comes back, everything that waits here is given back with it, so that the window above sends all of it again in its
original order: nothing new overtakes what is sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simlink.balancing.pick import Pick, Verdict
from simlink.channels.driver import Outcome, OutcomeKind
from simlink.channels.pool.pins import Pins
from simlink.channels.pool.queue import CHUNK, QueuePool
from simlink.errors import NoEndpoints

if TYPE_CHECKING:
    from simlink.channels.pool.slot import Slot
    from simlink.message import Batch

__all__ = ["KeyedPool"]


class KeyedPool(QueuePool):
    """Args:
    pinned: whether a key stays while something of it is unsettled.
    """

    def __init__(self, *args: Any, pinned: bool, **options: Any) -> None:
        self._pinned = pinned
        self._pins = Pins()
        self._held: deque[tuple[int | Sequence[int], Batch]] = deque()
        self._held_keys: set[bytes] = set()
        self._free = False
        """A key that is held back may go on now."""
        super().__init__(*args, **options)

    def submit(self, batch: Batch, position: int) -> None:
        if self._pinned and self._gave_back():
            # What comes back is older; this one waits, to be given back with it.
            self._waiting.append((position, batch))
            return
        super().submit(batch, position)

    def _gave_back(self) -> bool:
        return any(outcome.kind is OutcomeKind.RETURNED for outcome in self._done)

    def _dispatch(self) -> None:
        if self._pinned and (self._held or self._waiting) and self._gave_back():
            for where, batch in (*self._held, *self._waiting):
                self._done += _returned(where, len(batch.bodies))
            self._held.clear()
            self._held_keys.clear()
            self._waiting.clear()
        if self._free:
            self._free = False
            self._waiting.extendleft(reversed(self._held))
            self._held.clear()
            self._held_keys.clear()
        super()._dispatch()

    def _members_changed(self) -> None:
        super()._members_changed()
        self._free = bool(self._held)

    def _resolved(self, slot: Slot, count: int, keys: Sequence[bytes | None] | None, verdict: Verdict) -> None:
        super()._resolved(slot, count, keys, verdict)
        if keys is not None and self._pins.release(keys) and self._held:
            self._free = True

    def _hand_out(self) -> None:
        while self._waiting and self._view:
            where, batch = self._waiting[0]
            plan: dict[str, _Share] = {}
            back: list[int] = []
            try:
                self._plan(batch, plan, back)
            except NoEndpoints:
                _abandon(plan)
                return
            except Exception as error:
                _abandon(plan)
                self._failed(self.balancer, error)
                return
            self._waiting.popleft()
            if back:
                self._held.append((_at(where, back), batch.take(back)))
            for name, share in plan.items():
                rows = sorted(share.rows)
                whole = len(rows) == len(batch.bodies)
                part = batch if whole else batch.take(rows)
                keys = list(part.keys) if self._pinned else None
                if keys is not None:
                    self._pins.hold(name, keys)
                self._give(self.slots[name], part, where if whole else _at(where, rows), share, keys)

    def _plan(self, batch: Batch, plan: dict[str, _Share], back: list[int]) -> None:
        """Which rows go where; those that are held back go to ``back``."""
        members = {member.name for member in self._view or ()}
        groups: dict[bytes | None, list[int]] = {}
        for row, key in enumerate(batch.keys):
            groups.setdefault(key, []).append(row)
        held: list[bytes] = []
        trial = self._others_than_on_trial()
        for key, rows in groups.items():
            if key is None:
                for first in range(0, len(rows), CHUNK):
                    some = rows[first : first + CHUNK]
                    self._share(plan, self.balancer.pick(len(some), None, trial), some)
                    trial = frozenset()
                continue
            pinned = self._pins.of(key) if self._pinned else None
            if key in self._held_keys or (pinned is not None and pinned not in members):
                back += rows
                held.append(key)
                continue
            exclude = trial if pinned is None else frozenset(members - {pinned})
            self._share(plan, self.balancer.pick(len(rows), key, exclude), rows)
            if pinned is None:
                trial = frozenset()
        back.sort()
        self._held_keys.update(held)

    def _share(self, plan: dict[str, _Share], pick: Pick, rows: list[int]) -> None:
        share = plan.setdefault(pick.endpoint, _Share())
        share.picks.append(pick)
        share.rows += rows

    def _waits(self) -> list[tuple[int | Sequence[int], int]]:
        return [(where, len(batch.bodies)) for where, batch in (*self._held, *self._waiting)]


class _Share:
    """What one endpoint gets of a batch. As a pick it is all of its picks, closed one after the other."""

    __slots__ = ("picks", "rows")

    def __init__(self) -> None:
        self.picks: list[Pick] = []
        self.rows: list[int] = []

    def close(self, verdict: Verdict, count: int) -> None:
        while count and self.picks:
            pick = self.picks[0]
            now = min(count, pick.left)
            if now:
                pick.close(verdict, now)
                count -= now
            if not pick.left:
                self.picks.pop(0)


def _abandon(plan: dict[str, _Share]) -> None:
    for share in plan.values():
        for pick in share.picks:
            pick.close(Verdict.ABANDONED)


def _at(where: int | Sequence[int], rows: Sequence[int]) -> Sequence[int]:
    """The positions of some rows of a batch whose positions are ``where``."""
    if isinstance(where, int):
        return [where + row for row in rows]
    return [where[row] for row in rows]


def _returned(where: int | Sequence[int], count: int) -> list[Outcome]:
    if isinstance(where, int):
        return [Outcome(OutcomeKind.RETURNED, where, where + count)]
    return [Outcome(OutcomeKind.RETURNED, at, at + 1) for at in where]

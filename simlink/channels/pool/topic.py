"""A topic over several endpoints: every subscription that is alive gets each message.

Endpoints at which only named subscriptions are received, and the same ones, are one member: each message goes to one of
them, by the balancer. Every other endpoint is a member of its own. The pool keeps what it was given until every member
has settled it, so that what one member's endpoint gives back is sent again to that member alone.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Outcome, OutcomeKind
from simlink.channels.link.runs import Runs
from simlink.channels.pool.core import PoolSender
from simlink.errors import TransportError
from simlink.health.states import State

if TYPE_CHECKING:
    from simlink.balancing.balancer import Balancer
    from simlink.channels.pool.slot import Slot
    from simlink.message import Batch

__all__ = ["TopicPool"]

log = logging.getLogger("simlink")

_CHUNK = 1024
"""Messages that go to an endpoint at once."""


class _Member:
    """One subscription, or several that are always together: who serves it, and what it has taken.

    ``confirmed`` and ``settled`` count positions before it joined as in. ``waiting`` is not handed over yet.
    """

    def __init__(self, name: str, balancer: Balancer, start: int) -> None:
        self.name = name
        self.balancer = balancer
        self.slots: set[str] = set()
        self.confirmed = Runs(start)
        self.settled = Runs(start)
        self.waiting: deque[tuple[int, int]] = deque()

    @property
    def backlog(self) -> int:
        return sum(stop - first for first, stop in self.waiting)


class TopicPool(PoolSender):
    """Args:
    balancer: the pattern of each member's own; not bound.
    drop: whether what a slow member cannot take is dropped, beyond ``backlog`` messages.
    """

    def __init__(self, *args: Any, balancer: Balancer, drop: bool, backlog: int, **options: Any) -> None:
        self._pattern = balancer
        self._drop = drop
        self._bound = backlog
        self._members: dict[str, _Member] = {}
        self._of: dict[str, _Member] = {}
        self._unheard: deque[tuple[int, int]] = deque()
        """Sent while nobody was there: for the first member to come."""
        self._firsts: list[int] = []
        self._casts: list[Batch] = []
        self._next = 0
        self._told_confirmed = Runs()
        self._told_settled = Runs()
        self._rejected = Runs()
        self._copied: set[str] = set()
        """Names of which that was said."""
        self._unsure = Runs()
        """What may have failed to reach a member: that was told, and must not be told as confirmed."""
        self._missed: list[tuple[int, int, str]] = []
        """Positions that a member goes without, until that was told."""
        self.dropped = 0
        self.resent = 0
        super().__init__(*args, **options)

    # --- members ------------------------------------------------------------------------------------------------

    def _joined(self, slot: Slot) -> None:
        names = slot.end.subscriptions
        together = bool(names) and all(names or ())
        key = "+".join(sorted(names or ())) if together else slot.name
        before = self._of.get(slot.name)
        if before is not None:
            if before.name == key or len(before.slots) == 1:
                return
            before.slots.discard(slot.name)
        member = self._members.get(key)
        if member is None:
            balancer = self._pattern.fresh()
            balancer.bind(self.world.now, self.world.random)
            member = self._members[key] = _Member(key, balancer, self._next)
            if self._unheard:
                first = self._unheard[0][0]
                member.confirmed, member.settled = Runs(first), Runs(first)
                member.waiting, self._unheard = self._unheard, deque()
        member.slots.add(slot.name)
        self._of[slot.name] = member
        self._view = None
        self._warn_of_copies(slot.name, member)

    def _warn_of_copies(self, name: str, member: _Member) -> None:
        """A name at endpoints of different members gets a copy by each: say so, once a name."""
        mine = {each for each in self.slots[name].end.subscriptions or () if each}
        for other, its in self._of.items():
            if its is member:
                continue
            twice = mine.intersection(self.slots[other].end.subscriptions or ()) - self._copied
            if twice:
                self._copied |= twice
                log.warning(
                    "%s: %s is subscribed to at %s and at %s, where other names differ, so it gets each message from"
                    " both; subscribe to the same names at both, or to it at one of them",
                    self.url,
                    ", ".join(map(repr, sorted(twice))),
                    other,
                    name,
                )

    def _gone(self, slot: Slot) -> None:
        member = self._of.get(slot.name)
        if member is None or (len(self.slots) == 1 and slot.name in self.slots):
            return
        del self._of[slot.name]
        member.slots.discard(slot.name)
        if member.slots:
            return
        del self._members[member.name]
        missed = member.confirmed.missing(self._told_confirmed.mark, self._next)
        count = sum(stop - first for first, stop in missed)
        if count:
            log.warning("%s: %d messages that %s had not accepted go without it", self.url, count, member.name)
            self.dropped += count
        self._missed += [(first, stop, member.name) for first, stop in missed]
        for first, stop in missed:
            self._tell(first, stop)
        for first, stop in member.settled.missing(self._told_settled.mark, self._next):
            self._tell(first, stop)

    def _members_changed(self) -> None:
        view = self._view or ()
        for member in self._members.values():
            member.balancer.update([each for each in view if each.name in member.slots])

    # --- going out ----------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, position: int) -> None:
        stop = position + len(batch.bodies)
        self._firsts.append(position)
        self._casts.append(batch)
        self._next = stop
        for member in self._members.values():
            member.waiting.append((position, stop))
        if not self._members:
            self._unheard.append((position, stop))
        self._dispatch()

    def _dispatch(self) -> None:
        if self._view is None:
            self._after(self.world.now())
        usable = {each.name for each in self._view or ()}
        for member in list(self._members.values()):
            while member.waiting and not usable.isdisjoint(member.slots):
                first, stop = member.waiting.popleft()
                batch, end = self._rows(first, stop)
                pick = member.balancer.pick(end - first)
                if end < stop:
                    member.waiting.appendleft((end, stop))
                usable = self._give(self.slots[pick.endpoint], batch, first, pick, usable)
            if self._drop and member.waiting and member.backlog > self._bound:
                self._drop_backlog(member)

    def _rows(self, first: int, stop: int) -> tuple[Batch, int]:
        """Some messages from a position on, and where they end."""
        at = bisect_right(self._firsts, first) - 1
        batch, start = self._casts[at], self._firsts[at]
        stop = min(stop, start + len(batch.bodies), first + _CHUNK)
        if first == start and stop == start + len(batch.bodies):
            return batch, stop
        return batch[first - start : stop - start], stop

    def _give(self, slot: Slot, batch: Batch, first: int, pick: Any, usable: set[str]) -> set[str]:
        self._touched.add(slot.name)
        now = self.world.now()
        trial = self.membership.state(slot.name) is State.HALF_OPEN
        if trial:
            slot.probe = True
            self.membership.probe_taken(slot.name, now)
        try:
            slot.submit(batch, first, pick)
        except TransportError as error:
            self._lost(slot, error, now)
            trial = True
        if not trial:
            return usable
        self._after(now)
        return {each.name for each in self._view or ()}

    def _drop_backlog(self, member: _Member) -> None:
        """The oldest of what a slow member has not been given goes."""
        over = member.backlog - self._bound
        while over > 0:
            first, stop = member.waiting.popleft()
            end = min(stop, first + over)
            if end < stop:
                member.waiting.appendleft((end, stop))
            over -= end - first
            self.dropped += end - first
            member.confirmed.add(first, end)
            member.settled.add(first, end)
            self._missed.append((first, end, member.name))
            self._tell(first, end)

    # --- coming back --------------------------------------------------------------------------------------------

    def _report(self, slot: Slot, outcomes: Sequence[Outcome]) -> None:
        mine: list[Outcome] = []
        slot.flights.apply(outcomes, mine)
        self._book(slot, mine)

    def _take_back(self, slot: Slot, *, ambiguous: bool) -> None:
        mine: list[Outcome] = []
        held = slot.flights.open
        slot.flights.take_back(mine, ambiguous=ambiguous)
        self.moved += held
        slot.taken += held
        self._book(slot, mine)

    def _book(self, slot: Slot, outcomes: list[Outcome]) -> None:
        member = self._of.get(slot.name)
        if member is None:
            return
        back: list[tuple[int, int]] = []
        for outcome in outcomes:
            first, stop, kind = outcome.first, outcome.stop, outcome.kind
            if kind is OutcomeKind.RETURNED:
                back.append((first, stop))
                self.resent += (stop - first) * outcome.ambiguous
                continue
            if kind in {OutcomeKind.FAILED, OutcomeKind.UNKNOWN}:
                # It cannot be had by all of them, and that is for the receipt to say.
                self._done.append(outcome)
                self._unsure.add(first, stop)
            if kind is OutcomeKind.REJECTED:
                self._rejected.add(first, stop)
            member.confirmed.add(first, stop)
            if kind is not OutcomeKind.CONFIRMED or not self._retains:
                member.settled.add(first, stop)
            self._tell(first, stop)
        if back:
            waiting = sorted([*back, *member.waiting])
            member.waiting = deque(waiting)

    def _confirmed(self, first: int, stop: int) -> list[Outcome]:
        """That these are confirmed, and who missed which."""
        if not self._missed:
            return [Outcome(OutcomeKind.CONFIRMED, first, stop)]
        edges = {first, stop, *(at for a, b, _ in self._missed for at in (a, b) if first < at < stop)}
        out = []
        for a, b in pairwise(sorted(edges)):
            names = dict.fromkeys(name for c, d, name in self._missed if c < b and a < d)
            out.append(Outcome(OutcomeKind.CONFIRMED, a, b, missed=tuple(names)))
        self._missed = [each for each in self._missed if each[1] > self._told_confirmed.mark]
        return out

    def _tell(self, first: int, stop: int) -> None:
        """Report what every member has taken, of these positions."""
        for a, b in self._common(first, stop, "confirmed"):
            for c, d in self._told_confirmed.add(a, b):
                for e, f in self._unsure.missing(c, d):
                    self._done += self._confirmed(e, f)
        for a, b in self._common(first, stop, "settled"):
            for c, d in self._told_settled.add(a, b):
                if not self._retains:
                    continue
                for e, f in self._rejected.missing(c, d):
                    self._done.append(Outcome(OutcomeKind.SETTLED, e, f))
                for e, f in _without(c, d, self._rejected.missing(c, d)):
                    self._done.append(Outcome(OutcomeKind.REJECTED, e, f))
        self._forget()

    def _common(self, first: int, stop: int, what: str) -> list[tuple[int, int]]:
        pieces = [(first, stop)]
        for waits in self._unheard:
            pieces = [part for piece in pieces for part in _without(*piece, [waits])]
        for member in self._members.values():
            runs: Runs = getattr(member, what)
            pieces = [part for a, b in pieces for part in _without(a, b, runs.missing(a, b))]
        return pieces

    def _forget(self) -> None:
        mark = self._told_settled.mark
        gone = bisect_right(self._firsts, mark) - 1
        if gone >= 0 and self._firsts[gone] + len(self._casts[gone].bodies) <= mark:
            gone += 1
        if gone > 0:
            del self._firsts[:gone], self._casts[:gone]

    # --- the rest -----------------------------------------------------------------------------------------------

    def _loads(self) -> Mapping[str, Mapping[str, float]]:
        out: dict[str, Mapping[str, float]] = {}
        for member in self._members.values():
            out.update(member.balancer.snapshot())
        return out

    def stats(self) -> Mapping[str, Any]:
        return {
            **super().stats(),
            "members": {
                member.name: {"endpoints": sorted(member.slots), "backlog": member.backlog}
                for member in self._members.values()
            },
            "dropped": self.dropped,
            "resent_to_members": self.resent,
        }


def _without(first: int, stop: int, holes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """``[first, stop)`` without some runs, which ascend."""
    out = []
    for a, b in holes:
        if a > first:
            out.append((first, min(a, stop)))
        first = max(first, b)
        if first >= stop:
            return out
    if first < stop:
        out.append((first, stop))
    return out

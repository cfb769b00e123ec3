"""A topic over several endpoints: every subscription that is alive gets each message.

Of a subscription's name each message goes to one of the endpoints that serve it, by the balancer; an unnamed one is a
subscription of its own. Where one endpoint can take a message for several of them it is sent once; where they need
different endpoints each is told for whom its copy is. The pool keeps what it was given until every member has settled
it, so that what one member's endpoint gives back is sent again to that member alone.
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
from simlink.channels.pool.members import Member, Members, Name, without
from simlink.errors import NoEndpoints, TransportError
from simlink.health.states import State

if TYPE_CHECKING:
    from simlink.balancing.balancer import Balancer
    from simlink.channels.pool.slot import Slot
    from simlink.message import Batch

__all__ = ["TopicPool"]

log = logging.getLogger("simlink")

_CHUNK = 1024
"""Messages that go to an endpoint at once."""


class TopicPool(PoolSender):
    """Args:
    balancer: the pattern of each member's own; not bound.
    drop: whether what a slow member cannot take is dropped, beyond ``backlog`` messages.
    """

    def __init__(self, *args: Any, drop: bool, backlog: int, **options: Any) -> None:
        self._drop = drop
        self._bound = backlog
        self._members = Members(self._new_balancer)
        self._served: dict[str, frozenset[Name]] = {}
        self._heard: dict[str, tuple[str, ...] | None] = {}
        """What each endpoint said last of its subscriptions."""
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
        super().__init__(*args, **options)

    # --- members ------------------------------------------------------------------------------------------------

    def _joined(self, slot: Slot) -> None:
        self._heard[slot.name] = slot.end.subscriptions
        names = self._names(slot)
        if names == self._served.get(slot.name):
            return
        self._served[slot.name] = names
        for member in self._members.serve(slot.name, names, self._next):
            self._out(member)
        if self._unheard:
            first = self._unheard[0][0]
            for member in self._members.all:
                member.confirmed, member.settled = Runs(first), Runs(first)
                member.waiting = deque(self._unheard)
            self._unheard.clear()
        self._view = None
        self._warn_of_copies(slot.name)

    def _new_balancer(self) -> Balancer:
        balancer = self.balancer.fresh()
        balancer.bind(self.world.now, self.world.random)
        return balancer

    def _names(self, slot: Slot) -> frozenset[Name]:
        """What an endpoint serves. One whose receiver does not heed what a message is for serves all of it at once."""
        told = slot.end.subscriptions or ("",)
        if slot.end.addressable or len(told) == 1:
            return frozenset((name, "" if name else slot.name) for name in told)
        return frozenset({("+".join(sorted(told)), "")} if all(told) else {("", slot.name)})

    def _serve(self, slot: Slot, now: float) -> None:
        super()._serve(slot, now)
        if slot.connected and slot.end.subscriptions is not self._heard.get(slot.name):
            self._joined(slot)

    def _warn_of_copies(self, name: str) -> None:
        """A name at an endpoint that cannot tell it from its others gets a copy by each: say so, once a name."""
        mine = {each for each in self.slots[name].end.subscriptions or () if each}
        for other, names in self._served.items():
            if names == self._served[name]:
                continue
            common = mine.intersection(self.slots[other].end.subscriptions or ()) - self._copied
            if twice := {each for each in common if (each, "") not in names & self._served[name]}:
                self._copied |= twice
                log.warning(
                    "%s: %s is subscribed to at %s and at %s, and the receiver at one of them, which is older, cannot"
                    " tell it from the others there, so it gets each message from both",
                    self.url,
                    ", ".join(map(repr, sorted(twice))),
                    other,
                    name,
                )

    def _gone(self, slot: Slot) -> None:
        if slot.name not in self._served or (len(self.slots) == 1 and slot.name in self.slots):
            return
        del self._served[slot.name]
        for member in self._members.gone(slot.name):
            self._out(member)

    def _out(self, member: Member) -> None:
        """Nobody serves a member any more: it goes without what it had not accepted."""
        missed = member.confirmed.missing(self._told_confirmed.mark, self._next)
        count = sum(stop - first for first, stop in missed)
        if count:
            log.warning("%s: %d messages that %s had not accepted go without it", self.url, count, member.label)
            self.dropped += count
        self._missed += [(first, stop, member.label) for first, stop in missed]
        for first, stop in missed:
            self._tell(first, stop)
        for first, stop in member.settled.missing(self._told_settled.mark, self._next):
            self._tell(first, stop)

    def _members_changed(self) -> None:
        view = self._view or ()
        for member in self._members.all:
            member.balancer.update([each for each in view if each.name in member.slots])

    # --- going out ----------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, position: int) -> None:
        stop = position + len(batch.bodies)
        self._firsts.append(position)
        self._casts.append(batch)
        self._members.merge(position)
        self._next = stop
        for member in self._members.all:
            member.waiting.append((position, stop))
        if not self._members.all:
            self._unheard.append((position, stop))
        self._dispatch()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble

    def _dispatch(self) -> None:
        if self._view is None:
            self._after(self.world.now())
        usable = {each.name for each in self._view or ()}
        for member in list(self._members.all):
            while member.waiting and not usable.isdisjoint(member.slots) and self.world.now() >= self._retry_trouble:
                first, stop = member.waiting[0]
                batch, end = self._rows(first, stop)
                try:
                    pick = member.balancer.pick(end - first)
                except NoEndpoints:
                    break
                except Exception as error:
                    self._failed(member.balancer, error)
                    break
                if end < stop:
                    member.waiting[0] = (end, stop)
                else:
                    member.waiting.popleft()
                self._done += [Outcome(OutcomeKind.RESENT, a, b) for a, b in member.resends(first, end)]
                usable = self._give(self.slots[pick.endpoint], member, batch, first, pick, usable)
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

    def _give(self, slot: Slot, member: Member, batch: Batch, first: int, pick: Any, usable: set[str]) -> set[str]:
        self._touched.add(slot.name)
        now = self.world.now()
        trial = self.membership.state(slot.name) is State.HALF_OPEN
        if trial:
            slot.probe = True
            self.membership.probe_taken(slot.name, now)
        try:
            to = () if len(self._members.of.get(slot.name, ())) < 2 else member.address
            slot.submit(batch, first, pick, owner=member.names, to=to)
        except TransportError as error:
            self._lost(slot, error, now)
            trial = True
        if not trial:
            return usable
        self._after(now)
        return {each.name for each in self._view or ()}

    def _drop_backlog(self, member: Member) -> None:
        """The oldest of what a slow member has not been given goes."""
        over = member.backlog - self._bound
        while over > 0:
            first, stop = member.waiting.popleft()
            end = min(stop, first + over)
            if end < stop:
                member.waiting.appendleft((end, stop))
            over -= end - first
            member.resends(first, end)
            self.dropped += end - first
            member.confirmed.add(first, end)
            member.settled.add(first, end)
            self._missed.append((first, end, member.label))
            self._tell(first, end)

    # --- coming back --------------------------------------------------------------------------------------------

    def _report(self, slot: Slot, outcomes: Sequence[Outcome]) -> None:
        mine: list[Outcome] = []
        owners: list[Any] = []
        slot.flights.apply(outcomes, mine, owners)
        self._book(mine, owners)

    def _take_back(self, slot: Slot, *, ambiguous: bool) -> None:
        mine: list[Outcome] = []
        owners: list[Any] = []
        slot.flights.take_back(mine, owners, ambiguous=ambiguous)
        self._book(mine, owners)

    def _book(self, outcomes: list[Outcome], owners: list[frozenset[Name]]) -> None:
        """``owners``: for whom each was sent. They may have been parted since, and some may have left."""
        for member in self._members.all:
            mine = [
                outcome for outcome, names in zip(outcomes, owners, strict=True) if names & (member.names | member.past)
            ]
            if mine:
                self._book_of(member, mine)

    def _book_of(self, member: Member, outcomes: list[Outcome]) -> None:
        back: list[tuple[int, int]] = []
        for outcome in outcomes:
            first, stop, kind = outcome.first, outcome.stop, outcome.kind
            if kind is OutcomeKind.RETURNED:
                # Not what somebody who came back under an old name was not there for.
                mine = member.settled.missing(first, stop)
                back += mine
                if outcome.ambiguous:
                    member.again += mine
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
            member.waiting = deque(sorted([*back, *member.waiting]))
            member.again.sort()

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
                for e, f in without(c, d, self._rejected.missing(c, d)):
                    self._done.append(Outcome(OutcomeKind.REJECTED, e, f))
        self._forget()

    def _common(self, first: int, stop: int, what: str) -> list[tuple[int, int]]:
        pieces = [(first, stop)]
        for waits in self._unheard:
            pieces = [part for piece in pieces for part in without(*piece, [waits])]
        for member in self._members.all:
            runs: Runs = getattr(member, what)
            pieces = [part for a, b in pieces for part in without(a, b, runs.missing(a, b))]
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
        for member in self._members.all:
            out.update(member.balancer.snapshot())
        return out

    def stats(self) -> Mapping[str, Any]:
        return {
            **super().stats(),
            "members": {
                member.label: {"endpoints": sorted(member.slots), "backlog": member.backlog}
                for member in self._members.all
            },
            "dropped": self.dropped,
        }

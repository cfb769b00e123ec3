"""Who shares the messages of a topic pool: subscriptions, the endpoints that serve them, and what each has taken.

A *member* is one subscription, or several that are served by the same endpoints, so that one endpoint can take a
message for all of them. Where the names at two endpoints overlap and differ, they are different members, and an
endpoint belongs to each whose names it serves. Pure bookkeeping.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from simlink.channels.link.runs import Runs

if TYPE_CHECKING:
    from simlink.balancing.balancer import Balancer

__all__ = ["Member", "Members", "Name", "without"]

Name = tuple[str, str]
"""A subscription, and the endpoint where it is private (its own text is empty then) or cannot be told from others
there; empty where everybody shares it."""
Run = tuple[int, int]


class Member:
    """Attributes:
    names: its subscriptions; ``past``: others that it stood for before.
    slots: the endpoints that serve all of them.
    confirmed, settled: what was accepted and settled; positions before it joined count as in.
    waiting: what is not handed over yet.
    again: what of that may be there already.
    """

    def __init__(self, names: frozenset[Name], balancer: Balancer, confirmed: Runs, settled: Runs) -> None:
        self.names = names
        self.past: frozenset[Name] = frozenset()
        self.balancer = balancer
        self.slots: set[str] = set()
        self.confirmed = confirmed
        self.settled = settled
        self.waiting: deque[Run] = deque()
        self.again: list[Run] = []

    @property
    def label(self) -> str:
        """Its names, or the endpoint where one of them is private."""
        return next((where for _, where in sorted(self.names) if where), "") or "+".join(
            sorted(text for text, _ in self.names)
        )

    @property
    def address(self) -> tuple[str, ...]:
        """Its names, as an endpoint is told of them."""
        return tuple(sorted({text for text, _ in self.names}))

    @property
    def backlog(self) -> int:
        return sum(stop - first for first, stop in self.waiting)

    def split(self, names: frozenset[Name], balancer: Balancer) -> Member:
        """A member of these, with the same past; they are no more of this one."""
        other = Member(
            names,
            balancer,
            Runs.of(self.confirmed.runs(), self.confirmed.mark),
            Runs.of(self.settled.runs(), self.settled.mark),
        )
        other.past = self.past
        other.slots = set(self.slots)
        other.waiting = deque(self.waiting)
        other.again = list(self.again)
        self.names -= names
        return other

    def resends(self, first: int, stop: int) -> list[Run]:
        """What of these positions is sent again although it may be there; said once."""
        out = [(max(a, first), min(b, stop)) for a, b in self.again if a < stop and first < b]
        if out:
            self.again = [piece for run in self.again for piece in without(*run, [(first, stop)])]
        return out

    def idle_at(self, position: int) -> bool:
        """Everything before is settled."""
        return not self.waiting and self.settled.mark >= position and not self.settled.runs()


class Members:
    """Args:
    balancer: makes one for a new member.

    Attributes:
        all: them.
        of: by endpoint, those that it serves.
    """

    def __init__(self, balancer: Callable[[], Balancer]) -> None:
        self.all: list[Member] = []
        self.of: dict[str, list[Member]] = {}
        self._balancer = balancer
        self._alike = False

    def serve(self, endpoint: str, names: frozenset[Name], start: int) -> list[Member]:
        """These are subscribed to at an endpoint from now on; who is new gets what comes from ``start`` on. Returns
        the members that nobody serves any more, which are out."""
        known = frozenset(name for member in self.all for name in member.names)
        new = names - known
        for member in list(self.all):
            keep = member.names & names
            if endpoint in member.slots:
                if keep == member.names:
                    continue
                if not keep and new and member.slots == {endpoint}:
                    # Others came back in its place: what waits for it is theirs.
                    member.past |= member.names
                    member.names, new = new, frozenset()
                    continue
                lost = self._split(member, member.names - keep)
                lost.slots.discard(endpoint)
            elif keep:
                self._split(member, keep).slots.add(endpoint)
        if new:
            member = Member(new, self._balancer(), Runs(start), Runs(start))
            member.slots.add(endpoint)
            self.all.append(member)
        return self._arrange()

    def gone(self, endpoint: str) -> list[Member]:
        """An endpoint serves nobody any more. Returns the members that are out by that."""
        for member in self.of.get(endpoint, ()):
            member.slots.discard(endpoint)
        return self._arrange()

    def merge(self, position: int) -> None:
        """Those that are served by the same endpoints become one, once everything before ``position`` is settled."""
        if not self._alike:
            return
        by_slots: dict[frozenset[str], Member] = {}
        for member in list(self.all):
            if not member.idle_at(position):
                continue
            first = by_slots.setdefault(frozenset(member.slots), member)
            if first is not member:
                first.names |= member.names
                first.past |= member.past
                self.all.remove(member)
        self._arrange()

    def _split(self, member: Member, names: frozenset[Name]) -> Member:
        if names == member.names:
            return member
        other = member.split(names, self._balancer())
        self.all.append(other)
        return other

    def _arrange(self) -> list[Member]:
        out = [member for member in self.all if not member.slots]
        self.all = [member for member in self.all if member.slots]
        self.of = {}
        for member in self.all:
            for name in member.slots:
                self.of.setdefault(name, []).append(member)
        self._alike = len({frozenset(member.slots) for member in self.all}) < len(self.all)
        return out


def without(first: int, stop: int, holes: Iterable[Run]) -> list[Run]:
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

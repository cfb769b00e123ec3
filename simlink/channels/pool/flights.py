"""What one endpoint of a pool was given and has not resolved: its own positions against the pool's, and the picks.

Pure bookkeeping. An endpoint's driver numbers what it gets from 0 without a gap, and so does the pool; a flight is what
was handed over at once, and knows both numbers of each of its messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from simlink.balancing.pick import Pick, Verdict
from simlink.channels.driver import Outcome, OutcomeKind
from simlink.channels.link.runs import Runs
from simlink.errors import SendError

__all__ = ["Flights"]

_VERDICTS = {
    OutcomeKind.CONFIRMED: Verdict.OK,
    OutcomeKind.SETTLED: Verdict.OK,
    # The application's verdict on a message says nothing against the endpoint.
    OutcomeKind.REJECTED: Verdict.OK,
    OutcomeKind.FAILED: Verdict.ERROR,
    OutcomeKind.UNKNOWN: Verdict.TIMEOUT,
    OutcomeKind.RETURNED: Verdict.ABANDONED,
}


GIVEN_UP = "its endpoint was silent for too long, and it may be there: it is not sent twice"
"""Of what is of unknown fate at an endpoint that is declared dead."""
_UNKNOWN = 256
"""Behind one of unknown fate so many flights are kept; then a late report finds it no more."""


class _Flight:
    """The endpoint's positions ``first … stop - 1``. ``where`` is the pool's position of the first where they follow
    one another, else the pool's position of each."""

    __slots__ = ("first", "keys", "open", "owner", "pick", "stop", "unknown", "where")

    def __init__(
        self,
        first: int,
        stop: int,
        where: int | Sequence[int],
        pick: Pick | None,
        keys: Sequence[bytes | None] | None,
        owner: object,
    ) -> None:
        self.first = first
        self.owner = owner
        self.stop = stop
        self.where = where
        self.pick = pick
        self.keys = keys
        self.open = stop - first
        self.unknown = False

    def translate(self, first: int, stop: int) -> list[tuple[int, int]]:
        """The pool's positions of the endpoint's ``first … stop - 1``, as runs."""
        where = self.where
        if isinstance(where, int):
            shift = where - self.first
            return [(first + shift, stop + shift)]
        rows = where[first - self.first : stop - self.first]
        runs: list[tuple[int, int]] = []
        begin = before = rows[0]
        for row in rows[1:]:
            if row != before + 1:
                runs.append((begin, before + 1))
                begin = row
            before = row
        runs.append((begin, before + 1))
        return runs


class Flights:
    """Args:
    retains: whether a confirmed message stays until it is settled (brokerless).
    once: whether what may be there already must not be sent again.
    resolved: told of every resolved stretch: how many messages, their keys where those are kept, and the verdict.
    """

    def __init__(
        self,
        *,
        retains: bool,
        once: bool = False,
        resolved: Callable[[int, Sequence[bytes | None] | None, Verdict], None],
    ) -> None:
        self._retains = retains
        self._once = once
        self._resolved = resolved
        self._firsts: list[int] = []
        self._flights: list[_Flight] = []
        self._head = 0
        self._runs = Runs()
        self.open = 0
        """Messages that are not resolved."""

    def add(
        self,
        first: int,
        count: int,
        where: int | Sequence[int],
        pick: Pick | None,
        keys: Sequence[bytes | None] | None = None,
        owner: object = None,
    ) -> None:
        """Note what is being handed over at the endpoint's position ``first``; ``owner`` is whoever asks for it."""
        self._flights.append(_Flight(first, first + count, where, pick, keys, owner))
        self._firsts.append(first)
        self.open += count

    def apply(self, outcomes: Iterable[Outcome], out: list[Outcome], owners: list[Any] | None = None) -> None:
        """Book what the endpoint reported, and append it, in the pool's positions, to ``out``, and to ``owners`` whose
        each is. What it says of messages that were taken from it means nothing any more."""
        for outcome in outcomes:
            self._apply(outcome, out, owners)
        self._drop_resolved()

    def _apply(self, outcome: Outcome, out: list[Outcome], owners: list[Any] | None) -> None:
        kind = outcome.kind
        final = kind is not OutcomeKind.CONFIRMED or not self._retains
        at = max(bisect_right(self._firsts, outcome.first, lo=self._head) - 1, self._head)
        while at < len(self._flights) and (flight := self._flights[at]).first < outcome.stop:
            at += 1
            first, stop = max(outcome.first, flight.first), min(outcome.stop, flight.stop)
            if first >= stop:
                continue
            for a, b in flight.translate(first, stop):
                out.append(Outcome(kind, a, b, outcome.ambiguous, outcome.error, outcome.missed))
                if owners is not None:
                    owners.append(flight.owner)
            if final:
                for a, b in self._runs.add(first, stop):
                    self._close(flight, a, b, _VERDICTS[kind])
                # It may be confirmed yet, and is to be found then.
                flight.unknown = flight.unknown or kind is OutcomeKind.UNKNOWN

    def unresolved(self) -> list[tuple[int, int]]:
        """What is not resolved, as runs of the pool's positions."""
        return [
            run
            for flight in self._flights[self._head :]
            for first, stop in self._runs.missing(flight.first, flight.stop)
            for run in flight.translate(first, stop)
        ]

    def take_back(self, out: list[Outcome], owners: list[Any] | None = None, *, ambiguous: bool = True) -> None:
        """Everything unresolved goes elsewhere: RETURNED, in order; or is UNKNOWN where nothing may be sent twice. What
        is said of it later means nothing."""
        kind = OutcomeKind.UNKNOWN if self._once and ambiguous else OutcomeKind.RETURNED
        error = SendError(GIVEN_UP) if kind is OutcomeKind.UNKNOWN else None
        for flight in self._flights[self._head :]:
            for first, stop in self._runs.missing(flight.first, flight.stop):
                for a, b in flight.translate(first, stop):
                    out.append(Outcome(kind, a, b, ambiguous, error))
                    if owners is not None:
                        owners.append(flight.owner)
                self._runs.add(first, stop)
                self._close(flight, first, stop, Verdict.ABANDONED)
        self._flights, self._firsts, self._head = [], [], 0

    def _close(self, flight: _Flight, first: int, stop: int, verdict: Verdict) -> None:
        count = stop - first
        flight.open -= count
        self.open -= count
        if flight.pick is not None:
            flight.pick.close(verdict, count=count)
        keys = None if flight.keys is None else flight.keys[first - flight.first : stop - flight.first]
        self._resolved(count, keys, verdict)

    def _drop_resolved(self) -> None:
        flights = self._flights
        while self._head < len(flights) and not flights[self._head].open:
            if flights[self._head].unknown and len(flights) - self._head <= _UNKNOWN:
                break
            self._head += 1
        if self._head > 64 and self._head * 2 > len(flights):
            del flights[: self._head]
            del self._firsts[: self._head]
            self._head = 0
        if len(flights) - self._head > 1024 and self.open * 2 < len(flights) - self._head:
            kept = [flight for flight in flights[self._head :] if flight.open]
            self._flights, self._firsts, self._head = kept, [flight.first for flight in kept], 0

"""Who is in the rotation: the state of every endpoint, from what happens to it and from what its detector says.

It knows no socket and no thread. Whoever does the I/O reports events, calls `Membership.tick` after them and at
`Membership.next_deadline`, sends what `Membership.take_moving` names elsewhere, and hands `Membership.eligible` to the
balancer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from itertools import count
from random import Random
from typing import Final, Literal

from simlink.balancing.member import Member
from simlink.errors import ConfigError, did_you_mean
from simlink.health.detector import FailureDetector, Level, at_least
from simlink.health.endpoint import STEPS, Endpoint
from simlink.health.outlier import Outliers
from simlink.health.states import State, Transition

__all__ = ["Membership", "State", "Transition"]

_NEVER: Final = math.inf
_LINKED: Final = frozenset({State.UP, State.WARMING, State.HALF_OPEN})
_OWN_TROUBLE: Final = 0.5
"""Our loop is late when it is by so many beats; less is the clock's grain."""


class Membership:
    """The endpoints of one pool. All times are seconds of one monotonic clock, and never go backwards.

    Args:
        detector: the pattern of each endpoint's detector; see `FailureDetector.fresh`.
        random: where the jitter of quarantines comes from; default a generator of its own, seeded by the system.
        slow_start: seconds in which the share of one that returns grows from a tenth to the whole; 0 is none. Default
            10.
        quarantine: seconds for which an endpoint stays out after its second death; doubled for each further one, and
            shortened by up to a half at random, so that not all return at once. The first death costs none, and each
            ``longest_quarantine`` that it lives takes one off. Default 1.
        longest_quarantine: seconds that no quarantine exceeds, not below ``quarantine``; default 30.
        outliers: who is ejected for its failures; False ejects nobody. Default ``Outliers()``.

    Raises:
        ConfigError: an argument out of its range.
    """

    def __init__(
        self,
        detector: FailureDetector,
        *,
        random: Random | None = None,
        slow_start: float = 10.0,
        quarantine: float = 1.0,
        longest_quarantine: float = 30.0,
        outliers: Outliers | Literal[False] | None = None,
    ) -> None:
        self.detector = detector
        self._random = Random() if random is None else random
        self._slow_start = at_least("slow_start", slow_start, 0.0, "seconds, 0 or more; 0 is no slow start")
        self._quarantine = at_least("quarantine", quarantine, 0.0, "seconds, 0 or more")
        self._longest = at_least(
            "longest_quarantine", longest_quarantine, self._quarantine, f"seconds, not below quarantine={quarantine:g}"
        )
        self._outliers = None if outliers is False else outliers or Outliers()
        self._endpoints: dict[str, Endpoint] = {}
        self._timers: list[tuple[float, int, Endpoint]] = []
        self._ties = count()
        self._told: list[Transition] = []
        self._moving: dict[str, None] = {}
        self._view: tuple[Member, ...] | None = None
        self._panic = False
        self._first: float | None = None  # when the first endpoint went into service

    # ---- who belongs

    def add(self, name: str, now: float, *, weight: float = 1.0) -> None:
        """``name`` belongs from ``now`` on, and is being connected to.

        Raises:
            ConfigError: it is there already, or the name or weight is one that `Member` refuses.
        """
        if name in self._endpoints:
            raise ConfigError(f"endpoint {name!r} is there already; remove it first, or give another")
        Member(name, weight)
        endpoint = self._endpoints[name] = Endpoint(name, now, weight, self.detector.fresh())
        endpoint.detector.reset(now)  # one that never answers is dead at last, like one that ceased to
        self._schedule(endpoint)
        self._view = None

    def drain(self, name: str, now: float) -> None:
        """``name`` gets nothing new, and may finish what it holds. Remove it when that is done.

        Raises:
            ConfigError: there is no such endpoint.
        """
        endpoint = self._known(name)
        endpoint.draining = True
        if endpoint.state in {State.DEAD, State.DRAINING}:
            self._view = None
        else:
            self._move(endpoint, now, State.DRAINING, "asked to drain")

    def remove(self, name: str, now: float) -> None:
        """``name`` is gone at once; what it held is moved. Events that still come for it are ignored.

        Raises:
            ConfigError: there is no such endpoint.
        """
        endpoint = self._known(name)
        self._move(endpoint, now, State.REMOVED, "removed")
        self._moving[name] = None
        del self._endpoints[name]
        endpoint.due = _NEVER
        if self._outliers is not None:
            self._outliers.forget(name)

    # ---- what happens; events for an endpoint that was removed are ignored

    def connected(self, name: str, now: float, incarnation: Hashable) -> None:
        """A link to ``name`` is up and it said which life of it this is; another than before proves that one over."""
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            return
        if endpoint.lived and incarnation != endpoint.incarnation:
            self._move_panicked(endpoint)
            if endpoint.state is not State.DEAD:
                self._die(endpoint, now, "a new incarnation: the one before is gone", proven=True)
        born = not endpoint.lived
        endpoint.incarnation = incarnation
        endpoint.lived = endpoint.linked = True
        endpoint.proven = False
        endpoint.detector.reset(now)
        self._view = None
        if born and not endpoint.draining:
            self._enter(endpoint, now)
        elif endpoint.state is State.DEAD:
            self._revive(endpoint, now)
        elif endpoint.state is State.SUSPECT:
            self._resume(endpoint, now, "the link is back")
        else:
            self._schedule(endpoint)

    def lost(self, name: str, now: float, why: str = "the link broke") -> None:
        """The link to ``name`` broke. That is no proof of death: it keeps what it holds until it is dead by silence."""
        endpoint = self._endpoints.get(name)
        if endpoint is None or not endpoint.linked:
            return
        endpoint.linked = endpoint.back = False
        self._view = None
        if endpoint.state in _LINKED or endpoint.state is State.EJECTED:
            self._move(endpoint, now, State.SUSPECT, why)
        else:
            endpoint.why = why if endpoint.state is State.SUSPECT else endpoint.why
            self._schedule(endpoint)

    def refused(self, name: str, now: float, why: str = "connection refused: nobody is there") -> None:
        """The host of ``name`` answered that nobody listens there: a proof of death that needs no waiting."""
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            return
        endpoint.linked = endpoint.back = False
        self._view = None
        if endpoint.state is State.DEAD:
            endpoint.proven = True
            self._move_panicked(endpoint)
            self._schedule(endpoint)
        else:
            self._die(endpoint, now, why, proven=True)

    def heard(self, name: str, now: float, seq: int | None = None, sent_at: float | None = None) -> None:
        """A beat of ``name`` came; the arguments are those of `FailureDetector.heartbeat`."""
        endpoint = self._endpoints.get(name)
        if endpoint is not None and endpoint.detector.heartbeat(now, seq, sent_at):
            self._lives(endpoint, now)

    def traffic(self, name: str, now: float) -> None:
        """Anything else came from ``name``: a confirmation, a settlement, credit."""
        endpoint = self._endpoints.get(name)
        if endpoint is not None:
            endpoint.detector.traffic(now)
            self._lives(endpoint, now)

    def outcome(self, name: str, now: float, ok: bool) -> None:
        """``name`` settled something, or failed it. What was moved elsewhere is neither: don't tell it."""
        if self._outliers is None or name not in self._endpoints:
            return
        for outlier, why in self._outliers.record(name, now, ok):
            self._eject(outlier, now, why)

    def probe_taken(self, name: str, now: float) -> None:
        """A half-open endpoint was given its one batch: no more for it until `probe_done`. Ignored for any other."""
        endpoint = self._endpoints.get(name)
        if endpoint is not None and endpoint.trial:
            endpoint.trial = False
            self._view = None

    def probe_done(self, name: str, now: float, ok: bool) -> None:
        """The one batch of a half-open endpoint was taken well, or was not. Ignored unless `probe_taken` told of it."""
        endpoint = self._endpoints.get(name)
        if endpoint is None or endpoint.trial is not False:
            return
        if not ok:
            self._die(endpoint, now, "its trial batch failed")
            if endpoint.linked and endpoint.detector.level(now) is not Level.DEAD:
                self._revive(endpoint, now)
            return
        endpoint.trial = None
        endpoint.warm_since, endpoint.step = now, 0
        if endpoint.state is State.HALF_OPEN:
            self._resume(endpoint, now, "its trial batch went well")

    def late(self, now: float, seconds: float) -> None:
        """Our own loop runs ``seconds`` late at ``now``, so nothing was read meanwhile. Call it before `tick`.

        That time convicts nobody, and everybody has one more beat's time to be heard. Less than half a beat is ignored.
        """
        if seconds >= self.detector.interval * _OWN_TROUBLE:
            for endpoint in self._endpoints.values():
                endpoint.detector.local_pause(now, seconds)

    # ---- what follows

    def tick(self, now: float) -> list[Transition]:
        """Act on all deadlines up to ``now``. Return every transition since the last call, in order."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            due, _, endpoint = heapq.heappop(timers)
            if due == endpoint.due:  # else it was scheduled anew since
                endpoint.due = _NEVER
                self._judge(endpoint, now)
                self._schedule(endpoint)
        told, self._told = self._told, []
        return told

    def next_deadline(self) -> float:
        """When `tick` has something to do, at the earliest: −infinity if now, infinity if nothing is due."""
        if self._told:
            return -_NEVER
        timers = self._timers
        while timers and timers[0][0] != timers[0][2].due:
            heapq.heappop(timers)
        return timers[0][0] if timers else _NEVER

    def take_moving(self) -> tuple[str, ...]:
        """Whose unsettled messages must be sent elsewhere: it is dead, restarted or removed. Each is told once.

        Ask after every `tick`, whatever that returned.
        """
        moving, self._moving = tuple(self._moving), {}
        return moving

    def eligible(self, now: float) -> tuple[Member, ...]:
        """Who may be picked: the same object until something changes.

        While fewer than half of those that are not draining are in the rotation, or none, there is a *panic*: all that
        have a link and are not proven dead may be picked, those out of rotation with a tenth of their weight.
        """
        if self._view is None:
            self._view = self._look(now)
        return self._view

    @property
    def panic(self) -> bool:
        """Whether `eligible` holds endpoints that are out of rotation, since too few are in it."""
        return self._panic

    # ---- what is known

    @property
    def names(self) -> tuple[str, ...]:
        """All endpoints, in the order in which they were added."""
        return tuple(self._endpoints)

    def state(self, name: str) -> State:
        """What ``name`` is; `REMOVED` if it is not there."""
        endpoint = self._endpoints.get(name)
        return State.REMOVED if endpoint is None else endpoint.state

    def why(self, name: str) -> str:
        """Why it is what it is."""
        return self._known(name).why

    def incarnation(self, name: str) -> Hashable:
        """The life of it that was last connected to, or None."""
        return self._known(name).incarnation

    def last_seen(self, name: str) -> float | None:
        """When it last gave a sign of life, or None if it never did."""
        return self._known(name).seen

    def account(self, now: float) -> str:
        """Every endpoint in a clause, for `simlink.errors.NoEndpoints`.

        As in ``a:7001 dead, last seen 6.1 s ago (silent for 5.0 s)``.
        """
        clauses = []
        for each in self._endpoints.values():
            seen = "never seen" if each.seen is None else f"last seen {now - each.seen:.1f} s ago"
            clauses.append(f"{each.name} {each.state}, {seen} ({each.why})")
        return "; ".join(clauses) or "there are no endpoints: add one"

    # ---- inside: transitions

    def _known(self, name: str) -> Endpoint:
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise ConfigError(f"there is no endpoint {name!r}{did_you_mean(name, self._endpoints)}")
        return endpoint

    def _move(self, endpoint: Endpoint, now: float, new: State, why: str) -> None:
        old, endpoint.state, endpoint.why = endpoint.state, new, why
        self._told.append(Transition(now, endpoint.name, old, new, why, endpoint.incarnation))
        self._view = None
        self._schedule(endpoint)

    def _die(self, endpoint: Endpoint, now: float, why: str, *, proven: bool = False) -> None:
        if endpoint.lived:
            alive = max(0.0, now - endpoint.revived)
            endpoint.deaths = max(0, endpoint.deaths - int(alive / self._longest)) if self._longest else 0
            endpoint.deaths += 1
            self._moving[endpoint.name] = None
        endpoint.quarantine = now
        if endpoint.deaths > 1:
            stay = min(self._quarantine * 2.0 ** min(endpoint.deaths - 2, 60), self._longest)
            endpoint.quarantine += stay * self._random.uniform(0.5, 1.0)
        endpoint.proven = proven
        endpoint.back = False
        endpoint.trial = None
        endpoint.ejected_until, endpoint.pulse = -_NEVER, _NEVER
        self._move(endpoint, now, State.DEAD, why)

    def _enter(self, endpoint: Endpoint, now: float) -> None:
        """Its first connection. One that comes well after the first of all starts slowly: the pool runs already."""
        self._first = now if self._first is None else self._first
        endpoint.revived = now
        if now - self._first > self.detector.interval * self.detector.suspect:
            endpoint.warm_since, endpoint.step = now, 0
        self._resume(endpoint, now, "connected")

    def _resume(self, endpoint: Endpoint, now: float, why: str) -> None:
        """It is heard: what it goes on with is what it was not done with."""
        if endpoint.trial is not None:
            new = State.HALF_OPEN
        elif endpoint.ejected_until > now:
            new = State.EJECTED
        else:
            new = State.WARMING if self._warming(endpoint, now) else State.UP
        if new is not endpoint.state:
            self._move(endpoint, now, new, why)

    def _revive(self, endpoint: Endpoint, now: float) -> None:
        """A dead one gives a sign of life over a link: it returns on trial, once its quarantine is over."""
        endpoint.back = not endpoint.draining
        if endpoint.back and now >= endpoint.quarantine:
            endpoint.back = False
            endpoint.revived = now
            endpoint.trial, endpoint.pulse = True, _NEVER
            self._move(endpoint, now, State.HALF_OPEN, "it is back: one batch on trial")
        else:
            self._schedule(endpoint)

    def _lives(self, endpoint: Endpoint, now: float) -> None:
        state = endpoint.state
        if state is State.SUSPECT or state is State.DEAD:
            if endpoint.linked and not endpoint.back and endpoint.detector.level(now) is Level.ALIVE:
                if state is State.DEAD:
                    self._revive(endpoint, now)
                else:
                    self._resume(endpoint, now, "heard again")
        elif self._due(endpoint) < endpoint.due:  # what was learnt allows less: later is left to the timer that is set
            self._schedule(endpoint)

    def _eject(self, name: str, now: float, why: str) -> None:
        endpoint = self._endpoints.get(name)
        outliers = self._outliers
        if endpoint is None or outliers is None or endpoint.state not in {State.UP, State.WARMING}:
            return
        staying = [each for each in self._endpoints.values() if not each.draining]
        ejected = 1 + sum(each.ejected_until > now for each in staying)
        left = sum(each.state in {State.UP, State.WARMING} for each in staying) - 1
        if ejected > outliers.most(len(staying)) or left < 1 or 2 * left < len(staying):
            return  # it would be used all the same, as one of too few
        endpoint.ejected_until = outliers.ejected(name, now)
        endpoint.warm_since = None
        self._move(endpoint, now, State.EJECTED, why)

    # ---- inside: time

    def _due(self, endpoint: Endpoint) -> float:
        """When the record must be looked at, as things stand."""
        state, detector = endpoint.state, endpoint.detector
        if state is State.DEAD:
            return min(endpoint.pulse, endpoint.quarantine if endpoint.back else _NEVER)
        if state is State.UP or state is State.HALF_OPEN:
            return detector.deadline(Level.SUSPECT)
        if state is State.WARMING:
            return min(detector.deadline(Level.SUSPECT), self._next_step(endpoint))
        if state is State.EJECTED:
            return min(detector.deadline(Level.DEAD), endpoint.ejected_until)
        return _NEVER if state is State.REMOVED else detector.deadline(Level.DEAD)

    def _schedule(self, endpoint: Endpoint) -> None:
        due = self._due(endpoint)
        if due == endpoint.due:
            return
        endpoint.due = due
        if due < _NEVER:
            heapq.heappush(self._timers, (due, next(self._ties), endpoint))
        if len(self._timers) > 64 + 4 * len(self._endpoints):  # mostly timers that were set anew since
            valid = [each for each in self._endpoints.values() if each.due < _NEVER]
            self._timers[:] = [(each.due, next(self._ties), each) for each in valid]  # in place: a tick may hold it
            heapq.heapify(self._timers)

    def _judge(self, endpoint: Endpoint, now: float) -> None:
        """A timer of it ran out."""
        state, level = endpoint.state, endpoint.detector.level(now)
        if state is State.DEAD:
            self._judge_dead(endpoint, now, level)
        elif level is Level.DEAD:
            silent = "no answer" if state is State.CONNECTING else "silent"
            self._die(endpoint, now, f"{silent} for {_span(endpoint.detector.silence(now))}")
        elif state in _LINKED and level is Level.SUSPECT:
            self._move(endpoint, now, State.SUSPECT, f"silent for {_span(endpoint.detector.silence(now))}")
        elif state is State.WARMING:
            self._view = None
            if not self._warming(endpoint, now):
                self._move(endpoint, now, State.UP, "warm")
        elif state is State.EJECTED and now >= endpoint.ejected_until:
            endpoint.warm_since, endpoint.step = now, 0
            if level is Level.SUSPECT:
                self._move(endpoint, now, State.SUSPECT, f"silent for {_span(endpoint.detector.silence(now))}")
            else:
                self._resume(endpoint, now, "its ejection is over")

    def _judge_dead(self, endpoint: Endpoint, now: float, level: Level) -> None:
        if now >= endpoint.pulse:
            self._move_panicked(endpoint)
            self._view = None  # if the panic goes on, the next look sets the next one
        if endpoint.back and now >= endpoint.quarantine:
            endpoint.back = False
            if level is Level.ALIVE:  # else it fell silent again, and the next sign of life is what it waits for
                self._revive(endpoint, now)

    def _move_panicked(self, endpoint: Endpoint) -> None:
        """Have what a dead one was given in panic moved, if it may have been given anything."""
        if endpoint.pulse < _NEVER:
            self._moving[endpoint.name] = None
            endpoint.pulse = _NEVER

    def _next_step(self, endpoint: Endpoint) -> float:
        if endpoint.warm_since is None:
            return _NEVER
        return endpoint.warm_since + (endpoint.step + 1) * self._slow_start / STEPS

    def _warming(self, endpoint: Endpoint, now: float) -> bool:
        """Whether slow start goes on; takes the steps that are due."""
        while endpoint.warm_since is not None and now >= self._next_step(endpoint):
            endpoint.step += 1
            if endpoint.step >= STEPS:
                endpoint.warm_since = None
        return endpoint.warm_since is not None

    def _look(self, now: float) -> tuple[Member, ...]:
        staying = [each for each in self._endpoints.values() if not each.draining]
        serving = [each for each in staying if each.state in _LINKED]
        view = [each for each in serving if each.trial is not False]
        self._panic = False
        if not view or 2 * len(serving) < len(staying):
            usable = [each for each in staying if each.linked and not each.proven]
            if len(usable) > len(view):
                self._panic = True
                view = usable
                for each in usable:
                    if each.state is State.DEAD and each.pulse == _NEVER:
                        each.pulse = now + each.detector.allowed(Level.DEAD)
                        self._schedule(each)
        return tuple(Member(each.name, each.weight, each.share) for each in view)


def _span(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"

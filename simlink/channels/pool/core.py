"""A sending end over many: connects to each endpoint, watches them, and moves what a dead one held.

This is what a queue and a topic over several endpoints have in common. It stands where a transport's own sending end
stands, below the window, which submits again whatever is reported as RETURNED. It never fails because an endpoint does:
endpoints are connected again here, each with its own back-off, and what finds no endpoint waits.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from simlink.balancing.pick import Verdict
from simlink.channels.driver import Outcome, OutcomeKind, SenderDriver
from simlink.channels.pool.settings import check_weights
from simlink.channels.pool.slot import Slot
from simlink.channels.pool.told import Told
from simlink.errors import ConfigError, ConnectError, ConnectTimeout, SimlinkError, TransportError
from simlink.health.states import State, Transition

if TYPE_CHECKING:
    from simlink.balancing.balancer import Balancer
    from simlink.balancing.member import Member
    from simlink.channels.pool.world import World
    from simlink.health.membership import Membership

__all__ = ["PoolSender"]

log = logging.getLogger("simlink")

_OPEN_TIMEOUT = 2.0
"""Seconds that one attempt to connect may take; there is always another."""
_GRACE = 0.1
"""Seconds after the first endpoint is connected in which a first send waits for the others."""
_FIRST_BACKOFF = 0.02
_MAX_BACKOFF = 1.0
_PATIENCE = 0.1
"""Seconds after which a balancer that failed is asked again."""
_POLLED = 0.002
"""Seconds between two looks at an end that cannot tell when it has something, while something is in flight."""
_TAKEN = frozenset({OutcomeKind.CONFIRMED, OutcomeKind.SETTLED, OutcomeKind.REJECTED})
_REMEMBERED = 100
"""Endpoints that have left, and still stand in the counts."""
_BAD = frozenset({State.SUSPECT, State.DEAD, State.EJECTED})


class PoolSender(Told):
    """Args:
    url: for messages; masked.
    make: a new sending end for an endpoint's name.
    weights: the endpoints to begin with.
    membership: judges them; knows none of them yet.
    world: time, chance, waiting.
    retains: whether a confirmed message stays until it is settled (brokerless).
    once: whether what may be at an endpoint must not be sent to another.
    announce: told of every transition.
    balancer: picks, or is the pattern of those that do.
    resolver: says who the endpoints are, every ``resolve_every`` seconds; who is not among them any more is drained.
    """

    def __init__(
        self,
        url: str,
        make: Callable[[str], SenderDriver],
        weights: Mapping[str, float],
        *,
        membership: Membership,
        world: World,
        retains: bool,
        once: bool = False,
        announce: Callable[[Transition], None] = lambda _: None,
        balancer: Balancer,
        resolver: Callable[[], list[str]] | None = None,
        resolve_every: float = 30.0,
    ) -> None:
        self.url = url
        self.balancer = balancer
        self.slots: dict[str, Slot] = {}
        self.membership = membership
        self.world = world
        self._make = make
        self._retains = retains
        self._once = once
        self._announce = announce
        self._done: list[Outcome] = []
        self._touched: set[str] = set()
        self._next_due = -math.inf
        self._view: tuple[Member, ...] | None = None
        self._last_round: float | None = None
        self._idle = 0.5
        self._trouble: Exception | None = None
        self._retry_trouble = -math.inf
        self._closed = False
        self.moved = 0
        """Messages that were taken from an endpoint, because it died or left, to go to another."""
        self.beats = 0
        self._leaving: list[SenderDriver] = []
        self._left: deque[tuple[str, int, int]] = deque(maxlen=_REMEMBERED)
        self._resolver = resolver
        self._resolve_every = resolve_every
        self._resolved_times = 0
        self._resolve_at = -math.inf if resolver is not None else math.inf
        for name, weight in weights.items():
            self.add(name, weight)

    # --- what kinds of pools say ----------------------------------------------------------------------------------

    @abstractmethod
    def _members_changed(self) -> None:
        """Other endpoints than before may be used now."""

    @abstractmethod
    def _dispatch(self) -> None:
        """Hand over what waits, as far as there are endpoints for it."""

    @abstractmethod
    def _report(self, slot: Slot, outcomes: Sequence[Outcome]) -> None:
        """Book what an endpoint reported."""

    @abstractmethod
    def _take_back(self, slot: Slot, *, ambiguous: bool) -> None:
        """An endpoint is dead or leaves: what it holds goes elsewhere."""

    def _joined(self, slot: Slot) -> None:
        """An endpoint is connected."""

    def _gone(self, slot: Slot) -> None:
        """An endpoint is dead, or has left, and holds nothing any more."""

    def _resolved(self, slot: Slot, count: int, keys: Sequence[bytes | None] | None, verdict: Verdict) -> None:
        """So many messages of an endpoint are resolved."""
        if verdict is Verdict.ABANDONED:
            return
        now, ok = self.world.now(), verdict is Verdict.OK
        self.membership.outcome(slot.name, now, ok)
        if not ok:
            self._probed(slot, ok=False)

    def _probed(self, slot: Slot, *, ok: bool) -> None:
        """The one batch of an endpoint that is being tried was accepted, or was not."""
        if slot.probe:
            slot.probe = False
            self.membership.probe_done(slot.name, self.world.now(), ok)

    # --- endpoints ------------------------------------------------------------------------------------------------

    def add(self, name: str, weight: float = 1.0) -> None:
        """One more endpoint; connected to with the next round.

        Raises:
            ConfigError: it is there already, or the weight is not above 0.
        """
        if name in self.slots:
            raise ConfigError(f"{self.url} has an endpoint {name!r} already")
        if not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"{self.url}: the weight of {name!r} must be a number above 0, not {weight:g}")
        check_weights(self.balancer, [weight, *(slot.weight for slot in self.slots.values())], self.url)
        end = self._make(name)
        slot = Slot(name, weight, end, retains=self._retains, once=self._once, resolved=self._resolved)
        slot.end.listen(lambda: self.world.wake(name))
        slot.end.lease(self.membership.detector.interval * self.membership.detector.suspect)
        self.membership.add(name, self.world.now(), weight=weight)
        self.slots[name] = slot
        if slot.end.pulse is None:
            # One that has no beats is looked at as often as beats would come.
            slot.pause = self.membership.detector.interval
        self._idle = min(self._idle, slot.end.idle_interval, slot.pause)
        self._next_due = -math.inf
        self.world.wake()

    def drain(self, name: str, timeout: float) -> None:
        """Give an endpoint nothing more; it leaves when what it holds is resolved, or after ``timeout`` seconds, when
        that is sent elsewhere.

        Raises:
            ConfigError: it is not there.
        """
        slot = self._slot(name)
        now = self.world.now()
        self.membership.drain(name, now)
        slot.leave_by = now + timeout
        self._next_due = -math.inf
        self._after(now)
        self.world.wake()

    def remove(self, name: str) -> None:
        """An endpoint leaves at once; what it holds is sent elsewhere.

        Raises:
            ConfigError: it is not there.
        """
        self._leave(self._slot(name))
        self._after(self.world.now())
        self.world.wake()

    def _slot(self, name: str) -> Slot:
        slot = self.slots.get(name)
        if slot is None:
            raise ConfigError(f"{self.url} has no endpoint {name!r}; there are {', '.join(self.slots) or 'none'}")
        return slot

    def _leave(self, slot: Slot) -> None:
        name = slot.name
        self._withdraw(slot)
        self.world.watch(name, ())
        self.membership.remove(name, self.world.now())
        del self.slots[name]
        self._idle = min((min(other.end.idle_interval, other.pause) for other in self.slots.values()), default=0.25)
        self._gone(slot)
        self._left.append((name, slot.sent, slot.taken))
        self._touched.discard(name)
        self._leaving.append(slot.end)

    # --- the round --------------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        """Returns when one endpoint is connected, and the others are or had a moment to be."""
        deadline = self.world.now() + timeout
        grace = math.inf
        for slot in self.slots.values():
            slot.retry_at = min(slot.retry_at, self.world.now())
        self._next_due = -math.inf
        tried: set[str] = set()
        while True:
            self._round(max(0.0, min(deadline, grace) - self.world.now()) if tried else 0.0)
            now = self.world.now()
            tried |= {slot.name for slot in self.slots.values() if slot.error is not None or slot.connected}
            up = any(slot.connected for slot in self.slots.values())
            if up and grace == math.inf:
                grace = now + _GRACE
            if len(tried) >= len(self.slots) or now >= min(deadline, grace):
                break
        if not any(slot.connected for slot in self.slots.values()):
            errors = [slot.error for slot in self.slots.values() if slot.error is not None]
            hopeless = bool(errors) and all(getattr(error, "retryable", False) is False for error in errors)
            first = errors[0] if errors else None
            if hopeless and len(errors) == len(self.slots):
                raise ConnectError(f"{self.url}: {first}", url=self.url, retryable=False) from first
            raise ConnectTimeout(f"{self.url}: {self._no_endpoints()}", url=self.url, retryable=True) from first

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        if self._closed:
            done, self._done = self._done, []
            return done
        if self.in_haste and self._touched and timeout > 0:
            # Somebody waits for what was handed over last: it is written, and its answer is what comes next.
            self._serve_touched(self.world.now())
        else:
            self._round(0.0)
        if not self._done and timeout > 0:
            self._round(timeout)
        done, self._done = self._done, []
        return done

    def _round(self, timeout: float) -> None:
        world = self.world
        begun = world.now()
        if self._last_round is not None:
            self._late(begun, begun - self._last_round - self.idle_interval)
        wait = max(0.0, min(timeout, self._next_due - begun)) if timeout > 0 else 0.0
        ready = world.wait(wait, self.in_haste)
        now = world.now()
        self._late(now, now - begun - wait)
        for name, error in world.opened():
            slot = self.slots.get(name)
            if slot is not None and slot.opening:
                self._was_opened(slot, error, now)
        if self._touched:
            ready |= self._touched
            self._touched = set()
        for name in ready:
            slot = self.slots.get(name)
            if slot is not None and slot.connected:
                self._serve(slot, now)
        if now >= self._next_due:
            self._look_after_all(now)
        self._after(now)
        self._dispatch()
        self._last_round = world.now()

    def _serve_touched(self, now: float) -> None:
        touched, self._touched = self._touched, set()
        for name in touched:
            slot = self.slots.get(name)
            if slot is not None and slot.connected:
                self._serve(slot, now)

    def _late(self, now: float, late: float) -> None:
        if late > 0:
            # Our own loop paused: what the endpoints said meanwhile has not been read yet.
            self.membership.late(now, late)

    def _serve(self, slot: Slot, now: float) -> None:
        """Let an end do its I/O, and book what it says."""
        end = slot.end
        try:
            outcomes = end.outcomes(0.0)
        except TransportError as error:
            self._lost(slot, error, now)
            return
        if outcomes:
            if slot.probe and any(outcome.kind in _TAKEN for outcome in outcomes):
                self._probed(slot, ok=True)
            self._report(slot, outcomes)
        self._hear(slot, now, bool(outcomes))
        descriptors = end.waits_for()
        due = now + min(end.rest(), slot.pause)
        if descriptors is None:
            due = min(due, now + _POLLED) if slot.flights.open else due
        else:
            self.world.watch(slot.name, descriptors)
        slot.due = due
        self._next_due = min(self._next_due, due)

    def _hear(self, slot: Slot, now: float, answered: bool) -> None:
        pulse = slot.end.pulse
        if pulse is None:
            # No beats: being connected is all the life that there is to hear, and answers where some are due.
            if answered or not slot.flights.open:
                self.membership.traffic(slot.name, now)
            return
        signs, beats = pulse
        if beats != slot.beats:
            self.beats += beats - slot.beats
            slot.beats, slot.signs = beats, signs
            self.membership.heard(slot.name, now)
        elif signs != slot.signs:
            slot.signs = signs
            self.membership.traffic(slot.name, now)

    def _look_after_all(self, now: float) -> None:
        """What is due: ends that were silent, connections to make again, endpoints that leave."""
        due = self.membership.next_deadline()
        for slot in list(self.slots.values()):
            if slot.leave_by is not None and (not slot.flights.open or now >= slot.leave_by):
                self._leave(slot)
                continue
            if slot.connected:
                if now >= slot.due:
                    self._serve(slot, now)
                due = min(due, slot.due)
            elif not slot.opening:
                if now >= slot.retry_at:
                    self._connect(slot, now)
                else:
                    due = min(due, slot.retry_at)
            if slot.leave_by is not None:
                due = min(due, slot.leave_by, now + 0.05)
        due = min(due, self._resolve(now))
        self._next_due = due
        if self._leaving:
            leaving, self._leaving = self._leaving, []
            self.world.close(leaving, 0.0)

    def _after(self, now: float) -> None:
        """Judge, and act on the judgement."""
        membership = self.membership
        if membership.next_deadline() <= now:
            for transition in membership.tick(now):
                level = logging.WARNING if transition.new in _BAD else logging.INFO
                log.log(level, "%s: %s", self.url, transition)
                self._announce(transition)
        for name in membership.take_moving():
            slot = self.slots.get(name)
            if slot is not None:
                self._died(slot, now)
        view = membership.eligible(now)
        if view is not self._view:
            self._view = view
            self._members_changed()
        self._next_due = min(self._next_due, membership.next_deadline())

    def _resolve(self, now: float) -> float:
        """Ask the resolver, and follow what it says; when that is due again."""
        if self._resolver is None:
            return math.inf
        answer = self.world.answer()
        self._resolved_times += answer is not None
        if isinstance(answer, Exception) or answer == []:
            log.warning("%s: the resolver names no endpoints, so those there are stay: %r", self.url, answer)
        elif answer is not None:
            for name in answer:
                if name not in self.slots:
                    try:
                        self.add(name)
                    except SimlinkError as error:
                        log.warning("%s: the resolver names %r: %s", self.url, name, error)
            for name, slot in list(self.slots.items()):
                if name not in answer and slot.leave_by is None:
                    self.drain(name, 30.0)
        if now >= self._resolve_at:
            self._resolve_at = now + self._resolve_every
            self.world.ask(self._resolver)
        return min(self._resolve_at, now + 0.1)

    # --- connections ------------------------------------------------------------------------------------------------

    def _connect(self, slot: Slot, now: float) -> None:
        slot.opening = True
        self.world.open(slot.name, slot.end, _OPEN_TIMEOUT)

    def _was_opened(self, slot: Slot, error: Exception | None, now: float) -> None:
        slot.opening = False
        slot.error = error
        self._next_due = -math.inf
        if slot.forsaken:
            # What it took up again on the way goes elsewhere already; it must hear so before it does anything else.
            slot.forsaken = False
            slot.end.withdraw()
            slot.retry_at = now
            if error is None:
                return
        if error is None:
            slot.connected = True
            slot.backoff = 0.0
            slot.signs, slot.beats = slot.end.pulse or (0, 0)
            self.membership.connected(slot.name, now, slot.end.incarnation)
            self._joined(slot)
            self._serve(slot, now)
            return
        if not isinstance(error, TransportError | OSError):
            log.error("%s: connecting to %s failed: %r", self.url, slot.name, error)
        if refused(error):
            self.membership.refused(slot.name, now, str(error))
        slot.backoff = min(max(slot.backoff * 2, _FIRST_BACKOFF), _MAX_BACKOFF)
        slot.retry_at = now + slot.backoff * self.world.random.uniform(0.5, 1.0)
        if not getattr(error, "retryable", True):
            slot.retry_at = now + 30.0

    def _lost(self, slot: Slot, error: TransportError, now: float) -> None:
        """The connection broke, which proves nothing: connecting again will tell."""
        slot.connected = False
        slot.error = error
        slot.retry_at = now
        slot.backoff = 0.0
        self._next_due = -math.inf
        self.world.watch(slot.name, ())
        log.info("%s: the connection to %s broke: %s", self.url, slot.name, error)
        self.membership.lost(slot.name, now, str(error))

    def _died(self, slot: Slot, now: float) -> None:
        """Its messages go elsewhere; with nobody else there, they stay for its return."""
        slot.probe = False
        if len(self.slots) == 1:
            return
        if slot.flights.open:
            self._forsake(slot, now)
        if self.membership.state(slot.name) is State.DEAD:
            self._gone(slot)

    def _forsake(self, slot: Slot, now: float) -> None:
        self._withdraw(slot)
        if slot.opening:
            slot.forsaken = True
            return
        if slot.connected:
            slot.connected = False
            slot.retry_at = now
            self.world.watch(slot.name, ())
            self.membership.lost(slot.name, now)
        self._next_due = -math.inf

    def _withdraw(self, slot: Slot) -> None:
        """Take back what an endpoint holds; that is counted as moved."""
        given = () if slot.opening else slot.end.withdraw()
        back = sum(outcome.stop - outcome.first for outcome in given if outcome.kind is OutcomeKind.RETURNED)
        self._report(slot, given)
        back += 0 if self._once else slot.flights.open
        self._take_back(slot, ambiguous=True)
        self.moved += back
        slot.taken += back

    def _failed(self, balancer: Balancer, error: Exception) -> None:
        """The user's balancer failed: that must be told, and costs no message."""
        error.add_note(f"raised by the balancer {balancer!r}; the messages are kept")
        log.error("%s: the balancer failed: %r; the messages are kept", self.url, error)
        self._trouble = error
        self._retry_trouble = self.world.now() + _PATIENCE

    # --- the rest ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        self.world.wake()

    @property
    def idle_interval(self) -> float:
        return self._idle

    @property
    def incarnation(self) -> bytes:
        return b""

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.world.close([*(slot.end for slot in self.slots.values()), *self._leaving], timeout)
            for slot in self.slots.values():
                if not slot.opening and slot.connected:
                    try:
                        self._report(slot, slot.end.outcomes(0.0))
                    except TransportError as error:
                        slot.error = error
        finally:
            self.world.end()


def refused(error: BaseException | None) -> bool:
    """Whether an error proves that nobody is at an address: the machine answered, and said so."""
    while error is not None:
        text = str(error).lower()
        # gRPC says it in words only; a process that receives something else has let go of what it held of ours.
        if isinstance(error, ConnectionRefusedError) or "connection refused" in text or "nobody receives" in text:
            return True
        error = error.__cause__
    return False

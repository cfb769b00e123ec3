"""What is received in one HTTP application: its destinations, their readers, and the sessions of its senders.

Everything but `join`, `leave` and `stats` is called from the one event loop that serves the application. A gate can be
joined before a loop serves it, and after: an application that is mounted in another one is started by somebody else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from simlink.channels.driver import Mode
from simlink.channels.http.plain import Posted
from simlink.channels.http.problem import Problem
from simlink.channels.http.sessions import Early, Session
from simlink.channels.http.settings import Settings
from simlink.channels.hub import Reader
from simlink.channels.link.addressed import narrow
from simlink.channels.link.destination import PAUSE, STALE, Destination
from simlink.channels.link.places import Bounds, Place, Places
from simlink.channels.link.withdraw import unowned
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    Bye,
    Code,
    ErrorFrame,
    Frame,
    FrameError,
    Heartbeat,
    Hello,
    Moved,
    Void,
)
from simlink.errors import ConfigError

__all__ = ["Gate"]

log = logging.getLogger("simlink")

_QUIET = 0.005
"""Seconds that settlements may gather before they are told: each telling is a chunk that both sides handle. The first
after a pause is told at once."""
_MAX_KEYS = 65_536
"""So many Idempotency-Keys are remembered; the oldest goes first."""
RETRY_AFTER = 1
"""Seconds after which a client that found no room may try again."""


class Gate:
    """Args:
    where: what stands in messages as the address.
    """

    def __init__(self, where: str = "this application") -> None:
        self.where = where
        self.settings: Settings | None = None
        self.sessions: dict[str, Session] = {}
        self.counts: Counter[str] = Counter()
        self._places = Places(
            Place,
            where,
            manners=self._manners,
            notify=self._notify,
            post=lambda command: self._command(command, 5.0),
            retire=self._retire,
            tell=lambda place: self.tell(place.destination),
        )
        self._keys: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = False
        self._pumped = 0.0

    # --- for receivers, from any thread -------------------------------------------------------------------------

    def adopt(self, settings: Settings) -> None:
        """Take the settings of the first receiver.

        Raises:
            ConfigError: another one has asked for others.
        """
        with self._places.lock:
            if self.settings is None or not len(self._places):
                self.settings = settings
            elif self.settings != settings:
                raise ConfigError(f"{self.where} is served with {self.settings}; this channel asks for {settings}")

    def join(
        self, name: str, mode: Mode, bounds: Bounds, subscription: str | None, *, capacity: int, overflow: str
    ) -> Reader:
        """A new reader of a destination, which is there from now on.

        Raises:
            ConfigError: it is there already, with another mode or other bounds.
        """
        return self._places.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def _manners(self) -> Settings:
        assert self.settings is not None  # adopted before anybody joins
        return self.settings

    def leave(self, name: str, reader: Reader, timeout: float) -> None:
        """A reader goes. With the last one of a destination everything unsettled goes back to its senders."""
        self._places.leave(name, reader, lambda command: self._command(command, timeout))

    def _command(self, command: Callable[[], None], timeout: float) -> None:
        """Run something where the gate is served; here, if it is not served by anybody."""
        loop = self._loop
        if loop is None or not loop.is_running() or _running() is loop:
            command()
            return
        done = threading.Event()

        def run() -> None:
            command()
            done.set()

        try:
            loop.call_soon_threadsafe(run)
        except RuntimeError:  # closed just now
            command()
            return
        done.wait(timeout)

    def stats(self, name: str) -> dict[str, Any]:
        """Counts of the gate, and of one destination."""
        found = self._places.get(name)
        return {
            "address": self.where,
            "sessions": len(self.sessions),
            **{key: self.counts[key] for key in ("posts", "plain", "refused", "garbage", "timed_out", "given_up")},
            **({} if found is None else found.destination.stats()),
        }

    # --- the loop -----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Called in the event loop at every request: whose loop it is, and that its clock ticks.

        Raises:
            Problem: another loop serves it as well.
        """
        loop = self._loop
        here = asyncio.get_running_loop()
        if loop is here:
            return
        if loop is not None and loop.is_running():
            raise Problem(500, "two-loops", "this application is served by two event loops, and it has one state")
        self._loop = here
        self._timer = None
        self._tick()
        self._pump()

    def _notify(self) -> None:
        # One-shot: armed by the loop after it has looked, which looks again after arming. From any thread.
        if self._armed:
            self._armed = False
            self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._soon)
            except RuntimeError:
                self._armed = True  # closed: whoever serves next pumps first of all

    def _soon(self) -> None:
        loop = self._loop
        assert loop is not None
        wait = self._pumped + _QUIET - time.monotonic()
        if wait > 0:
            loop.call_later(wait, self._pump)
        else:
            self._pump()

    def _pump(self) -> None:
        for place in self._places:
            destination = place.destination
            if destination.has_settled:
                self.tell(destination)
        self._pumped = time.monotonic()
        self._armed = True
        if self._places.anything_settled():
            self._notify()

    def _tick(self) -> None:
        """Heartbeats, silence, and what the destinations must look after."""
        loop, settings = self._loop, self.settings
        assert loop is not None
        self._timer = None
        wait = 0.25
        now = time.monotonic()
        if settings is not None:
            wait = min(settings.heartbeat, settings.dead) / 4
            for session in list(self.sessions.values()):
                wait = min(wait, session.beat / 2)
                if now - session.link.heard > settings.dead:
                    self.counts["timed_out"] += 1
                    self.end(session, ErrorFrame(Code.TIMEOUT, f"silent for {settings.dead:g} s", True))
                elif now - session.sent >= session.beat:
                    self._push(session, Heartbeat())
        for place in self._places:
            destination = place.destination
            wait = min(wait, destination.tick())
            if destination.holding_back:
                self.tell(destination)
        self._timer = loop.call_later(max(wait, 0.005), self._tick)

    def _hasten(self) -> None:
        """Readers may stop settling: look again soon."""
        loop, planned = self._loop, self._timer
        if loop is None or loop.is_closed() or planned is None:
            return
        if planned.when() > loop.time() + PAUSE:
            planned.cancel()
            self._timer = loop.call_later(PAUSE, self._tick)

    def stop(self) -> None:
        """The loop will end: say so to everybody."""
        for place in self._places:
            self._retire(place)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- links --------------------------------------------------------------------------------------------------

    def mode(self, name: str) -> Mode | None:
        """How a destination is received here; None if it is not."""
        found = self._places.get(name)
        return None if found is None else found.destination.hub.mode

    def hello(self, name: str, hello: Hello, peer: bytes = b"") -> Session:
        """A new session. Its first frame, the Welcome, is in it. ``peer`` is who asks, where that is proven.

        Raises:
            FrameError: nobody receives that here, or not like that.
        """
        found = self._places.get(name)
        settings = self.settings
        if found is None or settings is None:
            raise FrameError(f"nobody receives {name!r} at {self.where}", Code.NO_RECEIVER)
        destination = found.destination
        mode = destination.hub.mode
        if mode is not hello.mode:
            raise FrameError(f"{name!r} is a {mode.value} at {self.where}, not a {hello.mode.value}", Code.MODE)
        if hello.subscription and hello.subscription not in destination.hub.subscriptions:
            raise FrameError(f"nobody receives the subscription {hello.subscription!r} of {name!r}", Code.NO_RECEIVER)
        for other in list(self.sessions.values()):
            known = other.link
            if other.destination is destination and (known.scope, known.sender) == (peer, hello.sender):
                self.end(other, ErrorFrame(Code.REPLACED, "the sender has connected anew", True))
        link = destination.hello(hello, peer)
        session = Session(name, destination, link, max(0.01, min(settings.heartbeat, hello.heartbeat_ms / 1000)))
        link.early = session.early
        self.sessions[session.token] = session
        destination.pump()
        self._push(
            session,
            link.welcome(heartbeat_ms=round(settings.heartbeat * 1000), max_frame_bytes=settings.max_body_bytes - 4),
        )
        # What was booked for it may be of others, and the next `_pump` will find nothing of that.
        self.tell(destination)
        return session

    def take(self, session: Session, frames: Sequence[Frame]) -> list[Frame]:
        """Frames that were posted: what to reply. Call the destination's `announce` after that.

        Raises:
            FrameError: out of place; the session has ended by it.
        """
        destination = session.destination
        try:
            if not destination.heard(session.link):
                raise FrameError(STALE, Code.TIMEOUT)
            for frame in frames:
                self._take(session, frame)
        except FrameError as error:
            self.counts["garbage"] += not error.retryable
            log.warning("%s: ended a session of %r: %s", self.where, session.name, error)
            self.end(session, ErrorFrame(error.code, str(error), error.retryable))
            destination.announce()  # of what came before the one that is wrong
            raise
        replies: list[Frame] = []
        self.tell(destination, session, replies)
        if session.link.gone:
            self.end(session, None)
        return replies

    def _take(self, session: Session, frame: Frame) -> None:
        destination, link = session.destination, session.link
        if isinstance(frame, BatchFrame | Void):
            position = frame.position if isinstance(frame, BatchFrame) else frame.first
            if position > link.expected:
                if isinstance(frame, BatchFrame):
                    narrow(destination, frame)
                    assert self.settings is not None
                    session.check_early(frame, self.settings.max_body_bytes)
                session.early.add(position, frame)
                if isinstance(frame, BatchFrame):
                    destination.check_room(link, frame)
                return
            self._in_turn(session, frame)
            if session.early:
                for later in session.early.due(link):
                    self._in_turn(session, later)
        elif isinstance(frame, Heartbeat):
            destination.heartbeat(link, frame)
        elif isinstance(frame, Moved):
            destination.moved(link, frame)
        elif isinstance(frame, Bye):
            destination.bye(link)
        else:
            raise FrameError(f"a {type(frame).__name__} cannot be posted")

    def _in_turn(self, session: Session, frame: BatchFrame | Void) -> None:
        if isinstance(frame, BatchFrame):
            session.destination.batch(session.link, frame)
        else:
            session.destination.void(session.link, frame)

    def tell(self, destination: Destination, here: Session | None = None, replies: list[Frame] | None = None) -> None:
        """Tell every sender of a destination what is new. What ``here`` has accepted goes into its ``replies``: the
        post that brought it waits for the answer. All else goes through the streams, each of which has the whole
        story of what was settled, in order; a settlement that overtakes an acceptance implies it. While somebody waits
        for an answer, settlements gather until they are due."""
        now = time.monotonic()
        due = here is None or now - self._pumped >= _QUIET
        destination.pump(settlements=due)
        if due and here is not None:
            self._pumped = now
        for session in list(self.sessions.values()):
            if session.destination is destination and not session.ended:
                for frame in session.link.news():
                    if session is here and replies is not None and isinstance(frame, Accept):
                        replies.append(frame)
                    else:
                        self._push(session, frame)
        if destination.holding_back:
            self._hasten()
        if here is None:
            destination.announce()

    def _push(self, session: Session, frame: Frame) -> None:
        if not session.push(frame, time.monotonic()):
            self.counts["refused"] += 1
            self.lost(session)
            session.out.clear()
            session.end()

    def end(self, session: Session, last: ErrorFrame | None) -> None:
        """End a session, with a last word."""
        if last is not None:
            self._push(session, last)
        self.lost(session)
        session.end()

    def lost(self, session: Session) -> None:
        """A stream has ended, whoever ended it."""
        if self.sessions.pop(session.token, None) is not None and session.link.connected:
            session.destination.lost(session.link)
        session.early = Early()  # whoever writes the last word may take a while

    def _retire(self, place: Place) -> None:
        """The last reader has left: settle the accounts with every sender, and let go of them."""
        destination = place.destination
        plain = unowned(destination.hub)
        if plain:
            self.counts["given_up"] += plain
            log.warning(
                "%s: %d messages of %r from plain clients were accepted and not settled; nobody else has them",
                self.where,
                plain,
                destination.hub.name,
            )
        destination.close()
        if self._loop is None:
            return
        self.tell(destination)
        for session in list(self.sessions.values()):
            if session.destination is destination:
                message = f"the receiver of {session.name!r} at {self.where} was closed"
                self.end(session, ErrorFrame(Code.CLOSING, message, True))

    # --- plain clients ------------------------------------------------------------------------------------------

    def offer(self, name: str, posted: Posted, peer: bytes = b"") -> tuple[int, int]:
        """Take all of a plain client's messages, or none: how many are held or settled here, and how many of these
        were before this post. Call the destination's `announce` by `announce` after the reply. ``peer`` is who posts
        (`plain_scope`): only what is theirs can be a duplicate.

        Raises:
            Problem: nobody receives that here, there is no room, or its Idempotency-Key was used for something else.
        """
        found = self._places.get(name)
        if found is None:
            raise Problem(404, "no-receiver", f"nobody receives {name!r} at {self.where}")
        destination = found.destination
        batch, n = posted.batch, len(posted.batch)
        if posted.idempotency is not None and (known := self._keys.get(posted.idempotency)) is not None:
            if known[1] != posted.digest:
                raise Problem(422, "idempotency-key", "this Idempotency-Key was used for another body")
            self._keys.move_to_end(posted.idempotency)
            return known[0], known[0]
        producer = batch.producers[0] if posted.identified else None
        if producer is not None and destination.dedup.check(peer + producer, batch.sequences) is not None:
            destination.duplicates += n
            return n, n
        hub = destination.hub
        if n > hub.max_messages:
            raise Problem(413, "too-many", f"{n} messages in one request, and at most {hub.max_messages} fit here")
        with hub.changed:
            room = min((s.room() for s in hub.subscriptions.values()), default=n)
            if room < n:
                raise Problem(
                    429,
                    "no-room",
                    f"the receiver of {name!r} is busy: {n} messages came, and there is room for {room}",
                    headers=(("retry-after", str(RETRY_AFTER)),),
                )
            if n:
                hub.offer(batch, None, announce=False)
        if posted.idempotency is not None:
            self._keys[posted.idempotency] = (n, posted.digest)
            if len(self._keys) > _MAX_KEYS:
                self._keys.popitem(last=False)
        if producer is not None:
            destination.dedup.mark(peer + producer, batch.sequences)
        self.counts["plain"] += n
        return n, 0

    def announce(self, name: str) -> None:
        """Wake the readers for what plain clients brought."""
        found = self._places.get(name)
        if found is not None:
            found.destination.hub.announce()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

"""The receiving process' end of all links at one address, without the I/O: who is let in, and what is said.

A transport has one `Reception` a listener and one `Peer` a connection. It calls `received`, `gone`, `pump` and `tick`
from one thread, and writes what `Peer.take` gives. `join` and `leave` are for receivers and come from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simlink.channels.driver import Mode
from simlink.channels.hub import Reader
from simlink.channels.link.destination import PAUSE, STALE, Destination
from simlink.channels.link.places import Bounds, Place, Places
from simlink.channels.link.receiver import ReceiverLink
from simlink.channels.wire.frames import (
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
from simlink.message import Batch

__all__ = ["Bounds", "Manners", "NoRoom", "Peer", "Reception"]

log = logging.getLogger("simlink")


@dataclass(frozen=True, slots=True)
class Manners:
    """What connections at one address keep to. Times are in seconds.

    Attributes:
        heartbeat: how often a peer hears something at least.
        dead: silence of a sender after which its messages are not handed out before it is heard again.
        orphan_after: silence after which they are handed out nevertheless, as a repeated attempt.
        hello_timeout: how long a new connection may take to introduce itself.
        silence: without a frame for so long, a connection is given up. One frame may take about as long.
        max_frame_bytes: the longest frame that is read.
        max_peers: how many connections are let in.
    """

    heartbeat: float = 1.0
    dead: float = 5.0
    orphan_after: float = 10.0
    hello_timeout: float = 5.0
    silence: float = 30.0
    max_frame_bytes: int = 8 * 1024 * 1024
    max_peers: int = 1024


class NoRoom(Exception):
    """Messages that were offered whole find no room now."""


class Peer(ABC):
    """One connection, as the reception has it.

    Attributes:
        name: its address, for logs.
        scope: who it is, where that is proven (a certificate), else empty: names that peers give themselves and their
            messages mean something within it only.
        writing: it takes what there is to say by itself when it has written what it has; `wake` is not needed then.
        ended: nothing it says counts any more; when `take` was written, close it.
        reason: why it was ended; None for a good end.
    """

    def __init__(self, name: str, now: float, scope: bytes = b"") -> None:
        self.name = name
        self.scope = scope
        self.link: ReceiverLink | None = None
        self.destination: Destination | None = None
        self.opened = now
        self.heard = now
        self.told = now
        self.beat = 0.0
        self.writing = False
        self.ended = False
        self.reason: ErrorFrame | None = None
        self._out: list[Frame] = []

    @abstractmethod
    def wake(self) -> None:
        """`take` has something from now on."""

    def take(self) -> list[Frame]:
        """What to write next, in order; what is said of positions is gathered only now, so a slow peer costs no
        memory."""
        out, self._out = self._out, []
        if self.link is not None:
            out += self.link.news()
        return out

    def send(self, frame: Frame, now: float) -> None:
        self._out.append(frame)
        self.told = now
        if not self.writing:
            self.wake()

    def _tell(self, now: float) -> None:
        """Say what is new of the link, if anything is."""
        if not self.writing and self.link is not None and (news := self.link.news()):
            self._out += news
            self.told = now
            self.wake()

    def _end(self, reason: ErrorFrame | None, *, news: bool) -> None:
        if self.link is not None and news:
            self._out += self.link.news()
        self.link = self.destination = None
        self.reason = reason
        if reason is not None:
            self._out.append(reason)
        self.ended = True
        self.wake()


@dataclass(slots=True, eq=False)
class _Place(Place):
    """With those who send to it."""

    peers: dict[bytes, Peer] = field(default_factory=dict)


class Reception:
    """Args:
    address: where this is, for messages.
    manners: deadlines and limits.
    post: run a function soon in the thread of this object; called from any thread.
    soon: run a function when what `Peer.wake` has started is under way; called in the thread of this object.
    notify: something was settled, so `pump` is due soon; called from any thread, under a hub's lock.
    hasten: `tick` is due within so many seconds; called in the thread of this object.
    clock: seconds, monotonic.
    """

    def __init__(
        self,
        address: str,
        manners: Manners,
        *,
        post: Callable[[Callable[[], None]], None],
        soon: Callable[[Callable[[], None]], None],
        notify: Callable[[], None],
        hasten: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.manners = manners
        self.counts: Counter[str] = Counter()
        self._post = post
        self._soon = soon
        self._notify = notify
        self._hasten = hasten
        self._clock = clock
        self._places: Places[_Place] = Places(
            _Place,
            address,
            manners=lambda: manners,
            notify=notify,
            clock=clock,
            post=post,
            retire=self._retire,
            tell=self._tell,
        )
        self._peers: set[Peer] = set()
        self._closing = False

    # --- for receivers, from any thread -------------------------------------------------------------------------

    def join(
        self, name: str, mode: Mode, bounds: Bounds, subscription: str | None, *, capacity: int, overflow: str
    ) -> Reader:
        """A new reader of a destination, which is there from now on.

        Raises:
            ConfigError: it is there already, with another mode or other bounds.
        """
        return self._places.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def leave(self, name: str, reader: Reader, timeout: float, *, alive: Callable[[], bool]) -> None:
        """A reader goes. With the last one of a destination everything unsettled goes back to its senders."""

        def there(command: Callable[[], None]) -> None:
            done = threading.Event()

            def run() -> None:
                command()
                done.set()

            self._post(run)
            if alive():
                done.wait(timeout)

        self._places.leave(name, reader, there)

    def wake_readers(self) -> None:
        """Let readers that wait look again: something has ended."""
        self._places.wake_readers()

    def names(self) -> list[str]:
        """The destinations that are received here now."""
        return self._places.names()

    def stats(self, name: str | None = None) -> dict[str, Any]:
        """Counts of the address, and of one destination."""
        place = self._places.get(name) if name is not None else None
        counted = ("opened", "refused", "garbage", "half_open", "timed_out", "published")
        return {
            "address": self.address,
            "connections": len(self._peers),
            **{key: self.counts[key] for key in counted},
            **({} if place is None else place.destination.stats()),
        }

    # --- connections ----------------------------------------------------------------------------------------------

    def opened(self, peer: Peer) -> None:
        """A connection was made."""
        self.counts["opened"] += 1
        busy = len(self._peers) >= self.manners.max_peers
        self._peers.add(peer)
        if busy:
            self._refuse(peer, Code.BUSY, f"{self.address} has too many connections", retryable=True)

    def gone(self, peer: Peer) -> None:
        """A connection has ended, whoever ended it."""
        self._forget(peer)
        self._peers.discard(peer)

    def received(self, peer: Peer, frame: Frame | None) -> None:
        """A frame came; None for one that is to be skipped."""
        if peer.ended:
            return
        now = peer.heard = self._clock()
        if peer.destination is not None and peer.link is not None and not peer.destination.heard(peer.link):
            self._refuse(peer, Code.TIMEOUT, STALE, retryable=True)
            return
        try:
            if frame is not None:
                self._take(peer, frame, now)
        except FrameError as error:
            self.garbage(peer, error)
        destination, link = peer.destination, peer.link
        if destination is not None and link is not None:
            place = self._places.get(destination.hub.name)
            if place is not None:
                # What came is accepted at once, for its sender may wait; what was settled may gather for `pump`.
                self._tell(place, settlements=False)

    def garbage(self, peer: Peer, error: FrameError) -> None:
        """What came cannot be read, makes no sense, or finds no room."""
        if not peer.ended:
            self.counts["garbage"] += not error.retryable
            log.warning("%s: cut off %s: %s", self.address, peer.name, error)
            self._refuse(peer, error.code, str(error), retryable=error.retryable)

    def publish(self, name: str, batch: Batch, scope: bytes = b"") -> None:
        """Messages of somebody without a link, who is told of their acceptance only: all of them, or none.
        ``scope`` is who that is (`plain_scope`).

        Raises:
            KeyError: nobody receives this. ValueError: never so many at once. NoRoom: not now.
        """
        destination = self._places[name].destination
        if len(batch) > destination.hub.max_messages:
            raise ValueError(f"{len(batch)} messages at once, and the buffer takes {destination.hub.max_messages}")
        if not destination.publish(batch, scope):
            raise NoRoom
        self.counts["published"] += len(batch)
        self._soon(destination.announce)

    def _take(self, peer: Peer, frame: Frame, now: float) -> None:
        destination, link = peer.destination, peer.link
        if destination is None or link is None:
            if isinstance(frame, Hello):
                self._hello(peer, frame, now)
            elif isinstance(frame, ErrorFrame):
                self._refuse(peer, None)
            else:
                raise FrameError(f"the first frame is a {type(frame).__name__}, and must be a Hello")
        elif isinstance(frame, BatchFrame):
            destination.batch(link, frame)
        elif isinstance(frame, Heartbeat):
            destination.heartbeat(link, frame)
        elif isinstance(frame, Void):
            destination.void(link, frame)
        elif isinstance(frame, Moved):
            destination.moved(link, frame)
        elif isinstance(frame, Bye):
            destination.bye(link)
            destination.pump()
            self._refuse(peer, None)
            place = self._places.get(destination.hub.name)
            if place is not None:
                # What was booked for it may be of others, and the next `pump` will find nothing of that.
                self._tell(place, settlements=False)
        elif isinstance(frame, ErrorFrame):
            log.warning("%s: %s gives up: %s", self.address, peer.name, frame.message)
            self._refuse(peer, None)
        else:
            raise FrameError(f"a {type(frame).__name__} is for a receiver to say")

    def _hello(self, peer: Peer, hello: Hello, now: float) -> None:
        place = self._places.get(hello.destination)
        if place is None or self._closing:
            message = f"nobody receives {hello.destination!r} at {self.address}"
            self._refuse(peer, Code.NO_RECEIVER, message, retryable=True)
            return
        hub = place.destination.hub
        if hub.mode is not hello.mode:
            message = f"{hello.destination!r} is a {hub.mode.value} at {self.address}, not a {hello.mode.value}"
            self._refuse(peer, Code.MODE, message)
            return
        if hello.subscription and hello.subscription not in hub.subscriptions:
            message = f"nobody receives the subscription {hello.subscription!r} of {hello.destination!r} here"
            self._refuse(peer, Code.NO_RECEIVER, message, retryable=True)
            return
        other = place.peers.get(peer.scope + hello.sender)
        if other is not None:
            self._refuse(other, Code.REPLACED, "the sender has connected anew", retryable=True)
        link = place.destination.hello(hello, peer.scope)
        peer.link, peer.destination = link, place.destination
        place.peers[peer.scope + hello.sender] = peer
        peer.beat = max(0.01, min(self.manners.heartbeat, hello.heartbeat_ms / 1000))
        place.destination.pump()
        welcome = link.welcome(
            heartbeat_ms=round(self.manners.heartbeat * 1000), max_frame_bytes=self.manners.max_frame_bytes
        )
        peer.send(welcome, now)

    # --- telling ------------------------------------------------------------------------------------------------

    def _tell(self, place: _Place, *, settlements: bool = True) -> None:
        place.destination.pump(settlements=settlements)
        now = self._clock()
        for peer in place.peers.values():
            peer._tell(now)
        # Only then the readers: their work, and the interpreter lock it takes, would stand between a sender and the
        # answer that it waits for.
        self._soon(place.destination.announce)
        if place.destination.holding_back:
            self._hasten(PAUSE)

    def pump(self) -> None:
        """Tell the senders what was settled."""
        for place in self._places:
            if place.destination.has_settled:
                self._tell(place)

    @property
    def has_settled(self) -> bool:
        """Whether `pump` has something to tell."""
        return self._places.anything_settled()

    def tick(self) -> float:
        """Deadlines and heartbeats; seconds until the next look."""
        manners, now = self.manners, self._clock()
        wait = min(manners.heartbeat, manners.dead, manners.hello_timeout, manners.silence) / 4
        for peer in list(self._peers):
            if peer.ended:
                continue
            if peer.link is None:
                if now - peer.opened > manners.hello_timeout:
                    self.counts["timed_out"] += 1
                    self._refuse(peer, Code.TIMEOUT, f"no Hello within {manners.hello_timeout:g} s")
            elif now - peer.heard > manners.silence:
                self.counts["half_open"] += 1
                log.warning("%s: %s was silent for %g s", self.address, peer.name, manners.silence)
                self._refuse(peer, Code.TIMEOUT, f"silent for {manners.silence:g} s", retryable=True)
            else:
                wait = min(wait, peer.beat / 2)
                if now - peer.told >= peer.beat and not peer.writing:
                    peer.send(Heartbeat(), now)
        for place in self._places:
            wait = min(wait, place.destination.tick())
            if place.destination.holding_back:
                self._tell(place)
        return max(wait, 0.005)

    # --- ending -------------------------------------------------------------------------------------------------

    def _retire(self, place: _Place) -> None:
        """The last reader has left: settle the accounts with every sender, and let go of them."""
        name = place.destination.hub.name
        place.destination.pump()
        lost = place.destination.published_and_open()
        if lost:
            log.warning("%s: %d messages of plain clients were accepted and never settled", name, lost)
        place.destination.close()
        self._tell(place)
        message = f"the receiver of {name!r} at {self.address} was closed"
        for peer in list(place.peers.values()):
            self._refuse(peer, Code.CLOSING, message, retryable=True, place=place)

    def close(self) -> None:
        """Let nobody else in, and say goodbye to those who are here."""
        self._closing = True
        for peer in list(self._peers):
            self._refuse(peer, Code.CLOSING, f"the receiver at {self.address} was closed", retryable=True)

    def _refuse(
        self,
        peer: Peer,
        code: Code | None,
        message: str = "",
        *,
        retryable: bool = False,
        place: _Place | None = None,
    ) -> None:
        if peer.ended:
            return
        if code not in {None, Code.CLOSING, Code.REPLACED}:
            self.counts["refused"] += 1
        self._forget(peer, place)
        # A link that goes on elsewhere tells its news there.
        peer._end(None if code is None else ErrorFrame(code, message, retryable), news=code is not Code.REPLACED)

    def _forget(self, peer: Peer, place: _Place | None = None) -> None:
        destination, link = peer.destination, peer.link
        if destination is None or link is None:
            return
        place = place or self._places.get(destination.hub.name)
        if place is not None and place.peers.get(link.scope + link.sender) is peer:
            del place.peers[link.scope + link.sender]
        if link.connected:
            destination.lost(link)

"""The receiving process' end of all its connections on one address: one thread that reads, keeps and answers.

The thread takes messages into the hubs of their destinations and accepts them at once; what the readers settle comes
back through a queue and is told in few frames. It never waits for a reader, nor for a peer.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from simlink.channels.driver import Mode
from simlink.channels.hub import Reader
from simlink.channels.link.destination import PAUSE, STALE, Destination
from simlink.channels.link.places import Bounds, Place, Places
from simlink.channels.link.receiver import ReceiverLink
from simlink.channels.tcp.connection import Connection
from simlink.channels.tcp.door import Door, bind
from simlink.channels.tcp.settings import Settings, shown
from simlink.channels.tcp.unread import Unread
from simlink.channels.wire.codec import encode
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
    Proof,
    Void,
)

__all__ = ["Listener"]

log = logging.getLogger("simlink")

_QUIET = 0.001
"""Seconds that settlements gather before they are told."""
_TOGETHER = 7 / 8
"""When the thread looks for what is due, who waits for a beat gets it after this part of the time between two, so that
one look serves many. It looks four times in that time at most."""
_CLOSING = 0.05
"""Seconds between two looks at connections that are being closed."""
_LINGER_AT_STOP = 0.2
"""Seconds that peers have to close their half when all was said; what was said reaches them even if they do not."""
_WAKE = object()
_ACCEPT = object()


class Listener:
    """An address that is listened on, and everything that is received there.

    Args:
        host, port: what to bind; port 0 takes a free one.
        settings: deadlines and limits.

    Attributes:
        port: the one that was really bound.
        users: how many receivers share it; kept by the registry.
        error: why its thread has ended by itself, or None.

    Raises:
        ConnectError: the address is in use, or not of this machine.
        ConfigError: what the listener's `Door` needs is missing.
    """

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.host = host
        self.settings = settings
        self.users = 0
        self.error: Exception | None = None
        self.counts: Counter[str] = Counter()
        self._door = Door(settings, shown(host, port))
        self._socket = bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.address = self._door.address = shown(host, self.port)
        self._places = Places(
            Place,
            self.address,
            manners=lambda: settings,
            notify=self._notify,
            post=self._command,
            retire=self._retire,
            tell=lambda place: self._tell(place.destination),
        )
        self._commands: deque[Callable[[], None]] = deque()
        self._connections: set[Connection] = set()
        self._unread: Unread[Connection] = Unread(settings.unread_bytes, settings.frame_timeout)
        self._armed = False
        self._stopping_at: float | None = None
        self._due = 0.0  # when the thread looks for what is due
        # Sockets, not a pipe: writing to a closed one fails, where a file number may belong to somebody else by then.
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ, _ACCEPT)
        self._selector.register(self._wake_out, selectors.EVENT_READ, _WAKE)
        self._thread = threading.Thread(target=self._run, name=f"simlink-tcp-{self.address}", daemon=True)
        self._thread.start()

    # --- for receivers, from any thread -------------------------------------------------------------------------

    def join(
        self, name: str, mode: Mode, bounds: Bounds, subscription: str | None, *, capacity: int, overflow: str
    ) -> Reader:
        """A new reader of a destination, which is there from now on.

        Raises:
            ConfigError: it is there already, with another mode or other bounds.
        """
        return self._places.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def leave(self, name: str, reader: Reader, timeout: float) -> None:
        """A reader goes. With the last one of a destination everything unsettled goes back to its senders."""
        self._places.leave(name, reader, lambda command: self._run_there(command, timeout))

    def unlisten(self) -> None:
        """Let nobody else in, and free the address; those who are connected stay."""

        def close() -> None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._socket)
            self._socket.close()

        self._run_there(close, 1.0)

    def stop(self, timeout: float) -> None:
        """Let what is queued go out, for at most ``timeout`` seconds; then close everything and end the thread."""

        def begin() -> None:
            self._stopping_at = time.monotonic() + timeout

        self.unlisten()
        self._command(begin)
        self._thread.join(timeout + 5.0)

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._wake()

    def _run_there(self, command: Callable[[], None], timeout: float) -> None:
        """Have the thread run something, and wait for it."""
        done = threading.Event()

        def run() -> None:
            command()
            done.set()

        self._command(run)
        if self._thread.is_alive():
            done.wait(timeout)

    def _notify(self) -> None:
        # One-shot: the thread arms it before it sleeps, and looks again after it has armed it.
        if self._armed:
            self._armed = False
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake; closed: it has ended
            self._wake_in.send(b"\0")

    def stats(self, name: str | None = None) -> dict[str, Any]:
        """Counts of the listener, and of one destination."""
        found = self._places.get(name) if name is not None else None
        return {
            "address": self.address,
            "connections": len(self._connections),
            **{key: self.counts[key] for key in ("opened", "refused", "garbage", "half_open", "timed_out", "slow")},
            "unread_bytes": self._unread.taken,
            "unread_waits": self._unread.waited,
            **({} if found is None else found.destination.stats()),
        }

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:
            # The readers are told at their next call; see TcpReceiver.
            self.error = error
            log.exception("the listener at %s failed", self.address)
        finally:
            self._close_all()

    def _loop(self) -> None:
        pumped = 0.0
        while True:
            now = time.monotonic()
            wait = max(0.0, self._due - now)
            if now - pumped < _QUIET:
                wait = min(wait, _QUIET)
            else:
                self._armed = True
                if self._commands or self._places.anything_settled():
                    self._armed = False
                    wait = 0.0
            events = self._selector.select(wait)
            self._armed = False
            now = time.monotonic()
            dirty: set[Destination] = set()
            for key, mask in events:
                if key.data is _WAKE:
                    with contextlib.suppress(OSError):
                        self._wake_out.recv(4096)
                elif key.data is _ACCEPT:
                    self._accept(now)
                else:
                    self._handle(key.data, mask, now, dirty)
            for connection in self._unread.admitted():
                self._watch(connection)
                self._handle(connection, selectors.EVENT_READ, now, dirty)
            while self._commands:
                self._commands.popleft()()
            due = now - pumped >= _QUIET
            if due or dirty:
                for place in self._places:
                    destination = place.destination
                    if destination in dirty or destination.has_settled:
                        # What came is accepted at once, for its sender may wait. What was settled may gather.
                        self._tell(destination, settlements=due)
                        pumped = now if due else pumped
                        if destination.holding_back and self._due > now + PAUSE:
                            self._due = now + destination.tick()
            if now >= self._due:
                self._due = math.inf  # what is done on the way may be due again before the rest is
                wait = self._tick(now)
                self._due = min(self._due, now + wait)
            if self._stopping_at is not None and self._stopped(now):
                return

    def _accept(self, now: float) -> None:
        for _ in range(64):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # Out of descriptors, most likely: the connection waits in the backlog. Busy-looping helps nobody.
                log.warning("%s: a connection could not be accepted: %s", self.address, error)
                time.sleep(0.01)
                return
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(
                self._door.wrap(sock), shown(*address[:2]), now, self.settings.max_frame_bytes, self._unread
            )
            self.counts["opened"] += 1
            busy = len(self._connections) >= self.settings.max_connections
            self._connections.add(connection)
            self._selector.register(sock, selectors.EVENT_READ, connection)
            if busy:
                self._refuse(connection, Code.BUSY, f"{self.address} has too many connections", now, retryable=True)

    def _handle(self, connection: Connection, mask: int, now: float, dirty: set[Destination]) -> None:
        if connection not in self._connections:
            return  # closed by an earlier event of this round
        if mask & selectors.EVENT_WRITE:
            self._flush(connection)
        if not mask & selectors.EVENT_READ or connection not in self._connections:
            return
        if connection.closing_at is not None:
            if not connection.discard():
                self._close(connection)
            return
        open_ = connection.receive(now)
        if connection.distrust is not None:
            self._distrust(connection, now)
            return
        waits = self._unread.waits(connection)
        if waits:
            self._due = min(self._due, now + self.settings.frame_timeout / 16, now + 0.25)
        if (connection.secure and connection.unsent) or waits:
            self._watch(connection)  # an answer of the handshake, or it is not to be read
        destination, link = connection.destination, connection.link
        if destination is not None and link is not None and link.connected and not destination.heard(link):
            self._refuse(connection, Code.TIMEOUT, STALE, now, retryable=True)
            return
        count, news = 0, False
        try:
            while connection.closing_at is None and (frame := connection.next_frame()) is not None:
                count += 1
                news = news or type(frame) is not Heartbeat
                self._take(connection, frame, now)
        except FrameError as error:
            self.counts["garbage"] += not error.retryable
            log.warning("%s: cut off %s: %s", self.address, connection.peer, error)
            self._refuse(connection, error.code, str(error), now, retryable=error.retryable)
        connection.noted(now, count)
        if news and connection.destination is not None:
            dirty.add(connection.destination)
        if not open_ and connection in self._connections:
            self._close(connection)

    def _take(self, connection: Connection, frame: Frame, now: float) -> None:
        destination, link = connection.destination, connection.link
        if destination is None or link is None:
            if isinstance(frame, Hello | Proof):
                self._let_in(connection, frame, now)
                return
            if isinstance(frame, ErrorFrame):
                self._refuse(connection, None, "", now)
                return
            raise FrameError(f"the first frame is a {type(frame).__name__}, and must be a Hello")
        if isinstance(frame, BatchFrame):
            destination.batch(link, frame)
            if len(frame.batch.bodies) == 1 and not connection.pending:
                # Whoever sends one message is likely to wait for it: the answer goes out before anything else is done.
                self._answer(connection, link, now)
        elif isinstance(frame, Heartbeat):
            destination.heartbeat(link, frame)
        elif isinstance(frame, Void):
            destination.void(link, frame)
        elif isinstance(frame, Moved):
            destination.moved(link, frame)
        elif isinstance(frame, Bye):
            destination.bye(link)
            self._tell(destination)
            self._refuse(connection, None, "", now)
        elif isinstance(frame, ErrorFrame):
            log.warning("%s: %s gives up: %s", self.address, connection.peer, frame.message)
            self._refuse(connection, None, "", now)
        else:
            raise FrameError(f"a {type(frame).__name__} is for a receiver to say")

    def _let_in(self, connection: Connection, frame: Hello | Proof, now: float) -> None:
        answer = self._door.answer(connection, frame)
        if isinstance(answer, Hello):
            self._hello(connection, answer, now)
        elif isinstance(answer, ErrorFrame):
            self._refuse(connection, answer.code, answer.message, now)
        else:
            self._send(connection, answer, now)

    def _hello(self, connection: Connection, hello: Hello, now: float) -> None:
        found = self._places.get(hello.destination)
        if found is None or self._stopping_at is not None:
            message = f"nobody receives {hello.destination!r} at {self.address}"
            self._refuse(connection, Code.NO_RECEIVER, message, now, retryable=True)
            return
        destination = found.destination
        mode = destination.hub.mode
        if mode is not hello.mode:
            message = f"{hello.destination!r} is a {mode.value} at {self.address}, not a {hello.mode.value}"
            self._refuse(connection, Code.MODE, message, now)
            return
        if hello.subscription and hello.subscription not in destination.hub.subscriptions:
            message = f"nobody receives the subscription {hello.subscription!r} of {hello.destination!r} here"
            self._refuse(connection, Code.NO_RECEIVER, message, now, retryable=True)
            return
        for other in list(self._connections):
            known = None if other.link is None or other.destination is not destination else other.link
            if known is not None and (known.scope, known.sender) == (connection.identity, hello.sender):
                self._refuse(other, Code.REPLACED, "the sender has connected anew", now, retryable=True)
        link = destination.hello(hello, connection.identity)
        connection.link, connection.destination = link, destination
        connection.reader.max_frame_bytes = self.settings.max_frame_bytes
        connection.beat = max(0.01, min(self.settings.heartbeat, hello.heartbeat_ms / 1000))
        self._due = min(self._due, now + connection.beat)
        destination.pump()
        welcome = link.welcome(
            heartbeat_ms=round(self.settings.heartbeat * 1000), max_frame_bytes=self.settings.max_frame_bytes
        )
        self._send(connection, welcome, now)
        destination.announce()

    # --- telling ------------------------------------------------------------------------------------------------

    def _tell(self, destination: Destination, *, settlements: bool = True) -> None:
        destination.pump(settlements=settlements)
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.destination is destination and connection.closing_at is None:
                assert connection.link is not None
                self._answer(connection, connection.link, now)
        destination.announce()

    def _answer(self, connection: Connection, link: ReceiverLink, now: float) -> None:
        """Send what is new of a link. In one piece: every write is a system call here, and a wake-up there."""
        news = link.news()
        if news:
            data = encode(news[0]) if len(news) == 1 else b"".join(map(encode, news))
            self._send_bytes(connection, data, now)

    def _send(self, connection: Connection, frame: Frame, now: float) -> None:
        self._send_bytes(connection, encode(frame), now)

    def _send_bytes(self, connection: Connection, data: bytes, now: float) -> None:
        if connection not in self._connections or connection.closing_at is not None:
            return
        if not connection.send_bytes(data, now):
            self.counts["slow"] += bool(connection.out)
            self._close(connection)
        elif connection.out:
            self._watch(connection)

    def _flush(self, connection: Connection) -> None:
        if not connection.flush():
            self._close(connection)
        elif not connection.unsent:
            self._watch(connection)
            if connection.closing_at is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_WR)

    def _watch(self, connection: Connection) -> None:
        """Have the selector tell what is to be done now: a connection that waits for room is not read."""
        if connection not in self._connections:
            return
        events = 0 if self._unread.waits(connection) else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if connection.unsent else 0
        if connection.sock not in self._selector.get_map():
            if events:
                self._selector.register(connection.sock, events, connection)
        elif events:
            self._selector.modify(connection.sock, events, connection)
        else:
            self._selector.unregister(connection.sock)

    def _retire(self, place: Place) -> None:
        """The last reader has left: settle the accounts with every sender, and let go of them."""
        destination = place.destination
        destination.close()
        self._tell(destination)
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.destination is destination:
                name = destination.hub.name
                message = f"the receiver of {name!r} at {self.address} was closed"
                self._refuse(connection, Code.CLOSING, message, now, retryable=True)

    # --- ending -------------------------------------------------------------------------------------------------

    def _refuse(
        self, connection: Connection, code: Code | None, message: str, now: float, *, retryable: bool = False
    ) -> None:
        if connection.closing_at is not None:
            return
        if code not in {None, Code.CLOSING, Code.REPLACED}:
            self.counts["refused"] += 1
        self._forget(connection)
        self._unread.leave(connection)
        connection.say_goodbye(code, message, now, retryable=retryable)
        self._due = min(self._due, now + _CLOSING)
        self._watch(connection)

    def _distrust(self, connection: Connection, now: float) -> None:
        self.counts["refused"] += 1
        why, frame = self._door.distrust(connection)
        if frame is not None:
            connection.send(frame, now)
        log.warning("%s: cut off %s: %s", self.address, connection.peer, why)
        self._refuse(connection, None, "", now)

    def _forget(self, connection: Connection) -> None:
        if connection.destination is not None and connection.link is not None and connection.link.connected:
            connection.destination.lost(connection.link)

    def _close(self, connection: Connection) -> None:
        if connection.closing_at is None:
            self._forget(connection)
        self._connections.discard(connection)
        self._unread.leave(connection)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()

    def _tick(self, now: float) -> float:
        """Deadlines and heartbeats; seconds until the next look."""
        settings = self.settings
        wait = min(settings.dead, settings.hello_timeout, settings.frame_timeout) / 4
        beats = pause = math.inf
        if self._unread:
            wait = min(wait, settings.frame_timeout / 16, 0.25)
        for connection in self._unread.laggards(now):
            self.counts["timed_out"] += 1
            message = "a frame came too slowly while others waited for the room it took"
            self._refuse(connection, Code.TIMEOUT, message, now, retryable=True)
        for connection in list(self._connections):
            if self._unread.waits(connection):
                connection.excuse(now)
                if connection.destination is not None and connection.link is not None:
                    connection.destination.heard(connection.link)
            if connection.closing_at is not None:
                wait = min(wait, _CLOSING)
                if now >= connection.closing_at:
                    self._close(connection)
            elif connection.link is None:
                if now - connection.opened > settings.hello_timeout:
                    self.counts["timed_out"] += 1
                    message = f"no Hello within {settings.hello_timeout:g} s"
                    self._refuse(connection, Code.TIMEOUT, message, now)
            elif connection.waiting_since is not None and now - connection.waiting_since > settings.frame_timeout:
                self.counts["timed_out"] += 1
                message = f"a frame was not completed within {settings.frame_timeout:g} s"
                self._refuse(connection, Code.TIMEOUT, message, now)
            elif now - connection.heard > settings.dead:
                self.counts["half_open"] += 1
                log.warning("%s: %s was silent for %g s", self.address, connection.peer, settings.dead)
                self._refuse(connection, Code.TIMEOUT, f"silent for {settings.dead:g} s", now, retryable=True)
            else:
                if now - connection.sent >= connection.beat * _TOGETHER:
                    self._send(connection, Heartbeat(), now)
                wait = min(wait, connection.heard + settings.dead - now)
                beats, pause = min(beats, connection.sent + connection.beat - now), min(pause, connection.beat / 4)
        wait = min(wait, max(beats, pause))
        for place in self._places:
            destination = place.destination
            wait = min(wait, destination.tick())
            if destination.holding_back:
                self._tell(destination)
        return max(wait, 0.005)

    def _stopped(self, now: float) -> bool:
        """Whether everything was said, or the time for it is over."""
        for connection in list(self._connections):
            if connection.closing_at is None:
                message = f"the receiver at {self.address} was closed"
                self._refuse(connection, Code.CLOSING, message, now, retryable=True)
            if not connection.out:
                connection.closing_at = min(connection.closing_at or now, now + _LINGER_AT_STOP)
        assert self._stopping_at is not None
        self._due = min(self._due, now + _CLOSING)
        return now >= self._stopping_at or not self._connections

    def _close_all(self) -> None:
        for connection in list(self._connections):
            self._close(connection)
        self._selector.close()
        self._socket.close()
        self._wake_in.close()
        self._wake_out.close()
        self._places.wake_readers()

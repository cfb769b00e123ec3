"""FaultProxy: its address, its controls, and the one thread that moves the bytes."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from simlink.errors import ConfigError, ConnectError, StateError
from simlink.testing.brokers.ports import free_ports
from simlink.testing.chaos.passage import Direction, Passage, Pipe, Shape

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Direction", "FaultProxy"]

log = logging.getLogger("simlink")

HOST: Final = "127.0.0.1"
BACKLOG: Final = 256
CONTROL_TIMEOUT: Final = 10.0
"""Seconds within which the thread must take a command; it never waits for a peer, so this is far away."""
_COUNTS: Final = (
    "accepted",
    "cut",
    "reset",
    "replies",
    "lost_replies",
    "bytes_up",
    "bytes_down",
    "pieces",
    "swallowed",
    "unreachable",
)
_WAKE: Final = "wake"
_ACCEPT: Final = "accept"


class FaultProxy:
    """A proxy on loopback, as a context manager: entered, it listens; left, its thread and sockets are gone.

    Args:
        target: ``host:port`` of the server; None where it is known only later: set ``target``. Until then every
            connection is closed.
        port: where to listen on 127.0.0.1; 0 takes a free one, below the range of outgoing connections, so that it
            stays free while the proxy refuses.
        seed: what the cuts' places and the pieces' lengths are drawn from.

    Raises:
        ConfigError: the target is no ``host:port``. ConnectError (on entering): the port is taken.
    """

    def __init__(self, target: str | None = None, *, port: int = 0, seed: int = 0) -> None:
        self.port = port or free_ports(1)[0]
        self._target = None if target is None else _parsed(target)
        self._shape = Shape(random.Random(seed))
        self._passages: set[Passage] = set()
        self._masks: dict[socket.socket, int] = {}
        self._listener: socket.socket | None = None
        self._refusing = False
        self._commands: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._closed = False

    # --- where it is ---------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """Where it listens: 127.0.0.1."""
        return HOST

    @property
    def address(self) -> str:
        """``host:port`` that it listens on."""
        return f"{HOST}:{self.port}"

    @property
    def target(self) -> str | None:
        """``host:port`` of the server; what is set counts for connections that come from then on."""
        return None if self._target is None else f"{self._target[0]}:{self._target[1]}"

    @target.setter
    def target(self, address: str | None) -> None:
        self._target = None if address is None else _parsed(address)

    @property
    def counts(self) -> dict[str, int]:
        """What happened so far: ``accepted`` connections, ``cut``, ``reset``, ``replies``, ``lost_replies``,
        ``bytes_up``, ``bytes_down``, ``pieces`` that they were written in, ``swallowed`` bytes, and ``unreachable``:
        connections that the server refused."""
        return {name: self._shape.counts[name] for name in _COUNTS}

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._passages)

    # --- its life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._closed or self._thread is not None:
            raise StateError("a FaultProxy is entered once; make a new one")
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, _WAKE)
        try:
            if not self._refusing:
                self._listen()
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name=f"simlink-chaos-{self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and stop listening. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._ending = True
            self._wake()
            self._thread.join(CONTROL_TIMEOUT)

    # --- the faults ----------------------------------------------------------------------------------------------

    def slice(self, shortest: int = 1, longest: int = 7) -> None:
        """Pass everything in pieces of so many bytes, each a write of its own."""
        if not 0 < shortest <= longest:
            raise ConfigError(f"pieces are 1 byte or more, the shortest first, not {shortest} to {longest}")
        self._do(lambda: setattr(self._shape, "pieces", (shortest, longest)))

    def throttle(self, rate: float) -> None:
        """Pass so many bytes a second, each way of each connection."""
        if not rate > 0:
            raise ConfigError(f"a rate is a number of bytes a second above 0, not {rate:g}")
        self._do(lambda: setattr(self._shape, "rate", rate))

    def stall(self, seconds: float) -> None:
        """Pass nothing, and read nothing, for so many seconds from now; new connections are taken and wait as well."""
        until = time.monotonic() + seconds
        self._do(lambda: setattr(self._shape, "stalled_until", until))

    def cut(self, direction: Direction = "up", *, times: int = 1) -> None:
        """Let the next data in this direction (two bytes at least) pass in part, and close that connection behind
        them; ``times`` connections one after the other."""

        def arm() -> None:
            self._shape.cuts[direction] = times

        self._do(arm)

    def reset(self) -> int:
        """End every connection now with a reset (RST); how many there were."""
        found: list[int] = []

        def act() -> None:
            found.append(len(self._passages))
            self._shape.counts["reset"] += len(self._passages)
            for passage in list(self._passages):
                self._end(passage, reset=True)

        self._do(act)
        return found[0]

    def lose_replies(self, every: int) -> None:
        """Lose every so many-th reply, counted over all connections: the request has passed, the server has done its
        work and answered, and the connection is closed instead. A reply is what a server says first after its client
        has said something. 0 loses none."""
        if every < 0:
            raise ConfigError(f"every is 0 or more, not {every}")
        self._do(lambda: setattr(self._shape, "every", every))

    def silence(self, *, new: bool = True) -> None:
        """Half-open: connections stay up and what is said on them is swallowed; new ones are taken and lead nowhere
        or, without ``new``, pass. Neither end hears of the other's end. `heal` resets them, since their streams have
        holes."""

        def act() -> None:
            self._shape.silent = new
            for passage in self._passages:
                passage.silenced = True
                passage.up.waiting.clear()
                passage.down.waiting.clear()

        self._do(act)

    def refuse(self) -> None:
        """Stop listening: who comes now is refused. Connections that are up stay up; `reset` ends them."""

        def act() -> None:
            self._refusing = True
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None

        self._do(act)

    def accept(self) -> None:
        """Listen again after `refuse`, at the same port. Raises ConnectError: somebody else took it."""

        def act() -> None:
            self._refusing = False
            if self._listener is None and self._thread is not None:
                self._listen()

        self._do(act)

    def heal(self) -> None:
        """All faults off, and listen. Connections that lost bytes are reset; the others go on where they were."""

        def act() -> None:
            shape = self._shape
            shape.pieces = shape.rate = None
            shape.stalled_until = 0.0
            shape.silent = False
            shape.every = 0
            shape.cuts = {"up": 0, "down": 0}
            self._refusing = False
            for passage in list(self._passages):
                passage.up.not_before = passage.down.not_before = 0.0
                if passage.silenced:
                    self._end(passage, reset=True)
            if self._listener is None and self._thread is not None:
                self._listen()

        self._do(act)

    def wait_for(self, count: str, at_least: int = 1, timeout: float = 30.0) -> int:
        """Wait until a count of `counts` has reached a number; the count. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._shape.counts[count] >= at_least, timeout):
                found = self._shape.counts[count]
                raise TimeoutError(f"{count} is {found} after {timeout:g} s, and not {at_least}")
            return self._shape.counts[count]

    # --- the thread ----------------------------------------------------------------------------------------------

    def _do(self, act: Callable[[], None]) -> None:
        """Run in the thread, which owns everything; returns when it was done, raises what it raised."""
        if self._closed:
            raise StateError("this FaultProxy is closed")
        if self._thread is None:
            act()
            return
        done = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                act()
            except BaseException as error:
                failed.append(error)
            finally:
                done.set()

        self._commands.append(run)
        self._wake()
        deadline = time.monotonic() + CONTROL_TIMEOUT
        while not done.wait(0.1):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise StateError(f"the proxy at {self.address} does not answer: its thread has ended or hangs")
        if failed:
            raise failed[0]

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake; closed: it has ended
            self._wake_in.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._ending:
                self._turn()
        except Exception:
            log.exception("the proxy at %s failed", self.address)
        finally:
            self._release()

    def _turn(self) -> None:
        now = time.monotonic()
        wait = self._arrange(now)
        events = self._selector.select(None if math.isinf(wait) else wait)
        # The bell before the letters: a command that comes in between rings again.
        with contextlib.suppress(OSError):
            self._wake_out.recv(4096)
        while self._commands:
            self._commands.popleft()()
        now = time.monotonic()
        for key, mask in events:
            if key.data is _WAKE:
                continue
            if key.data is _ACCEPT:
                self._take()
            else:
                self._handle(key.fileobj, key.data, mask)  # type: ignore[arg-type]  # only sockets are registered
        for passage in list(self._passages):
            if passage.open:
                passage.push(passage.up, now)
            if passage.open:
                passage.push(passage.down, now)
            if not passage.open:
                self._forget(passage)
        with self._changed:
            self._changed.notify_all()

    def _arrange(self, now: float) -> float:
        """Say what each socket is watched for; seconds until something falls due by itself."""
        due = math.inf
        stalled = self._shape.stalled_until
        if stalled > now and self._passages:
            due = stalled
        for passage in self._passages:
            for pipe in (passage.up, passage.down):
                due = min(due, passage.due(pipe))
            self._watch(passage, passage.client, passage.up, passage.down, now)
            if passage.server is not None:
                self._watch(passage, passage.server, passage.down, passage.up, now)
        return max(0.0, due - now)

    def _watch(self, passage: Passage, sock: socket.socket, source_of: Pipe, sink_of: Pipe, now: float) -> None:
        mask = selectors.EVENT_READ if passage.wants_read(source_of, now) else 0
        if sock is passage.server and passage.connecting:
            mask = selectors.EVENT_WRITE
        elif sink_of.blocked and now >= self._shape.stalled_until:
            mask |= selectors.EVENT_WRITE
        known = self._masks.get(sock, 0)
        if mask == known:
            return
        if not mask:
            self._selector.unregister(sock)
        elif not known:
            self._selector.register(sock, mask, passage)
        else:
            self._selector.modify(sock, mask, passage)
        self._masks[sock] = mask

    def _take(self) -> None:
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.warning("the proxy at %s cannot take a connection: %s", self.address, error)
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shape.counts["accepted"] += 1
            if self._shape.silent:
                self._passages.add(Passage(client, None, self._shape))
                continue
            target = self._target
            if target is None:
                self._shape.counts["unreachable"] += 1
                client.close()
                continue
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            passage = Passage(client, server, self._shape)
            self._passages.add(passage)
            if not passage.begin(target):
                self._shape.counts["unreachable"] += 1
                self._end(passage, reset=True)

    def _handle(self, sock: socket.socket, passage: Passage, mask: int) -> None:
        if not passage.open:
            return
        if passage.connecting and sock is passage.server:
            if not passage.connected():
                self._shape.counts["unreachable"] += 1
                passage.end(reset=True)
            return
        if mask & selectors.EVENT_WRITE:
            (passage.down if sock is passage.client else passage.up).blocked = False
        if mask & selectors.EVENT_READ:
            passage.pull(passage.up if sock is passage.client else passage.down)

    def _end(self, passage: Passage, *, reset: bool) -> None:
        passage.end(reset=reset)
        self._forget(passage)

    def _forget(self, passage: Passage) -> None:
        self._passages.discard(passage)
        for sock in (passage.client, passage.server):
            if sock is not None and self._masks.pop(sock, 0):
                self._selector.unregister(sock)
        passage.close()

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, self.port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, _ACCEPT)
        except OSError as error:
            listener.close()
            raise ConnectError(f"cannot listen at {self.address}: {error.strerror}", endpoint=self.address) from error
        self._listener = listener

    def _release(self) -> None:
        for passage in list(self._passages):
            self._end(passage, reset=False)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "refusing" if self._refusing else "open"
        return f"<FaultProxy {self.address} → {self.target or 'nowhere yet'}, {state}, {self.connections} connections>"


def _parsed(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigError(f"a target is host:port, as 127.0.0.1:7001, not {address!r}")
    return host, int(port)

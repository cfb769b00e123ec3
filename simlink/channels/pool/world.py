"""What a pool needs of the world: the time, chance, waiting for many ends at once, and opening them meanwhile.

The pool itself reads no clock, sleeps nowhere and starts no thread, so that a simulation can be its world.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from simlink.channels.peeking import Peeker

if TYPE_CHECKING:
    from simlink.channels.driver import SenderDriver

__all__ = ["RealWorld", "World"]

_OPENERS = 16
"""So many endpoints are connected to, or closed, at the same time."""


class World(ABC):
    """Attributes:
    random: the source of chance.
    """

    random: random.Random

    @abstractmethod
    def now(self) -> float:
        """Seconds, monotonic."""

    @abstractmethod
    def watch(self, name: str, descriptors: Sequence[tuple[int, int]]) -> None:
        """From now on `wait` waits for these of an endpoint's (descriptor, poll events), in place of those before."""

    @abstractmethod
    def wait(self, timeout: float, haste: bool = False) -> set[str]:
        """The endpoints that have something; waits up to ``timeout`` seconds for the first, or until `wake`. In haste
        it may look for a fraction of a millisecond before it sleeps."""

    @abstractmethod
    def wake(self, name: str | None = None) -> None:
        """Make `wait` return, with this endpoint among those that have something. From any thread."""

    @abstractmethod
    def open(self, name: str, end: SenderDriver, timeout: float) -> None:
        """Begin to open an end. It belongs to the opener until `opened` names it."""

    @abstractmethod
    def opened(self) -> list[tuple[str, Exception | None]]:
        """The ends whose opening is over, and the error where it failed."""

    @abstractmethod
    def ask(self, resolver: Callable[[], list[str]]) -> None:
        """Begin to ask who the endpoints are; one question at a time."""

    @abstractmethod
    def answer(self) -> list[str] | Exception | None:
        """What the resolver said, once; None while it has not."""

    @abstractmethod
    def close(self, ends: Iterable[SenderDriver], timeout: float) -> None:
        """Close ends, all at the same time. Those that are being opened are closed after that."""

    @abstractmethod
    def end(self) -> None:
        """Nothing is asked for any more."""


class RealWorld(World):
    """The monotonic clock, `select.poll`, and threads for what blocks (``simlink-endpoints-URL``)."""

    def __init__(self, url: str) -> None:
        self.random = random.Random()
        self._url = url
        self._poll = select.poll()
        self._peeker = Peeker()
        self._owners: dict[int, str] = {}
        self._watched: dict[str, tuple[tuple[int, int], ...]] = {}
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._poll.register(self._out, select.POLLIN)
        self._woken: deque[str] = deque()
        self._opened: deque[tuple[str, Exception | None]] = deque()
        self._threads: ThreadPoolExecutor | None = None
        self._opening: dict[SenderDriver, Future[None]] = {}
        self._guard = threading.Lock()
        self._ended = False
        self._answer: list[str] | Exception | None = None

    def now(self) -> float:
        return time.monotonic()

    def watch(self, name: str, descriptors: Sequence[tuple[int, int]]) -> None:
        old = self._watched.get(name, ())
        if descriptors is old:
            # The same object, so the same connection: its number is nobody else's.
            return
        new = tuple(descriptors)
        if new == old and all(self._owners.get(fd) == name for fd, _ in new):
            return
        for fd, _ in old:
            # A number that was closed may be another's by now.
            if self._owners.get(fd) == name:
                del self._owners[fd]
                with contextlib.suppress(KeyError):
                    self._poll.unregister(fd)
        for fd, events in new:
            self._poll.register(fd, events)
            self._owners[fd] = name
        if new:
            self._watched[name] = new
        else:
            self._watched.pop(name, None)

    def wait(self, timeout: float, haste: bool = False) -> set[str]:
        if self._woken or self._opened:
            timeout = 0.0
        ready = set()
        peeked = self._peeker(self._poll.poll, timeout) if haste and timeout > 0 else []
        for fd, _ in peeked or self._poll.poll(max(timeout, 0.0) * 1000):
            name = self._owners.get(fd)
            if name is not None:
                ready.add(name)
            else:
                with contextlib.suppress(OSError):
                    self._out.recv(4096)
        while self._woken:
            ready.add(self._woken.popleft())
        return ready

    def wake(self, name: str | None = None) -> None:
        if name is not None:
            self._woken.append(name)
        with contextlib.suppress(OSError):
            self._in.send(b"\0")

    def _executor(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_OPENERS, f"simlink-endpoints-{self._url}")
        return self._threads

    def open(self, name: str, end: SenderDriver, timeout: float) -> None:
        self._opening[end] = self._executor().submit(self._open, name, end, timeout)

    def _open(self, name: str, end: SenderDriver, timeout: float) -> None:
        error: Exception | None = None
        try:
            if not self._ended:
                end.open(timeout)
        except Exception as cause:
            # Whatever it is, it belongs to the thread that asks for what was opened.
            error = cause
        self._opened.append((name, error))
        self.wake()

    def opened(self) -> list[tuple[str, Exception | None]]:
        out = []
        while self._opened:
            out.append(self._opened.popleft())
        if out:
            self._opening = {end: future for end, future in self._opening.items() if not future.done()}
        return out

    def ask(self, resolver: Callable[[], list[str]]) -> None:
        self._executor().submit(self._ask, resolver)

    def _ask(self, resolver: Callable[[], list[str]]) -> None:
        try:
            self._answer = resolver()
        except Exception as error:
            # Whatever it is, it belongs to the thread that asks for the answer.
            self._answer = error
        self.wake()

    def answer(self) -> list[str] | Exception | None:
        answer, self._answer = self._answer, None
        return answer

    def close(self, ends: Iterable[SenderDriver], timeout: float) -> None:
        deadline = self.now() + timeout

        def one(end: SenderDriver) -> None:
            opening = self._opening.get(end)
            if opening is not None:
                opening.result()
            end.close(max(0.0, deadline - self.now()))

        many = list(ends)
        if len(many) == 1:
            one(many[0])
        elif many:
            list(self._executor().map(one, many))

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._threads is not None:
            self._threads.shutdown()
        self._in.close()
        self._out.close()

"""Ends that send over a simulated network, and the world of the pool that has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

from simlink.channels.driver import Mode, Outcome, SenderDriver
from simlink.channels.link.sender import SenderLink
from simlink.channels.pool.world import World
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import (
    Accept,
    Code,
    ErrorFrame,
    FrameError,
    Heartbeat,
    Returned,
    Settle,
    Subscribed,
    Welcome,
)
from simlink.channels.wire.framing import FrameReader
from simlink.errors import ConnectError, ConnectTimeout
from simlink.message import Batch, Same
from simlink.testing.clock import VirtualClock
from simlink.testing.network import END, Network
from simlink.testing.processes import Connection

__all__ = ["SimEnd", "SimWorld", "numbered"]


class SimEnd(SenderDriver):
    """The sending end of a link to a process. What `TcpSender` does with a socket it does with a connection here."""

    def __init__(
        self,
        network: Network,
        name: str,
        *,
        heartbeat: float,
        dead: float = 5.0,
        destination: str = "orders",
        mode: Mode = Mode.QUEUE,
    ) -> None:
        self._network = network
        self.name = name
        self._dead = dead
        self._beat = heartbeat
        self._link = SenderLink(
            network.random.getrandbits(128).to_bytes(16), destination, mode, heartbeat_ms=round(heartbeat * 1000)
        )
        self._connection: Connection | None = None
        self._opened: Callable[[Exception | None], None] | None = None
        self._reader = FrameReader()
        self._inbox: deque[bytes] = deque()
        self._done: list[Outcome] = []
        self._error: ConnectError | None = None
        self._notify: Callable[[], None] = lambda: None
        self._wrote = self._heard = 0.0
        self._signs = self._beats = 0
        self._attempt = 0

    # --- opening, which takes time ------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        raise NotImplementedError("in virtual time nothing waits: use begin()")

    def begin(self, timeout: float, opened: Callable[[Exception | None], None]) -> None:
        """Connect; ``opened`` is told how that ended."""
        self._drop()
        self._error = None
        self._opened = opened
        self._attempt += 1
        attempt = self._attempt
        network = self._network
        network.clock.call_later(network.delay(), lambda: self._reach(attempt))
        silence = ConnectTimeout("does not answer", retryable=True)
        network.clock.call_later(timeout, lambda: self._give_up(attempt, silence))

    def _reach(self, attempt: int) -> None:
        if attempt != self._attempt or self._opened is None:
            return
        network = self._network
        process = network.processes[self.name]
        if self.name in network.cut_out or self.name in network.cut_back or not process.listening:
            return  # silence
        connection = Connection(network, self, process)
        if not process.connect(connection):
            refused = ConnectError("nobody listens there", retryable=True)
            refused.__cause__ = ConnectionRefusedError()
            network.clock.call_later(network.delay(), lambda: self._give_up(attempt, refused))
            return
        self._connection = connection
        self._reader = FrameReader()
        self._inbox.clear()
        self._wrote = self._heard = network.clock.now()
        connection.out.push(encode(self._link.hello()))

    def _give_up(self, attempt: int, error: Exception) -> None:
        if attempt == self._attempt and self._opened is not None:
            self._drop()
            opened, self._opened = self._opened, None
            opened(error)

    # --- wires ------------------------------------------------------------------------------------------------------

    def arrives(self, connection: Connection, data: bytes) -> None:
        if connection is not self._connection:
            return
        if self._opened is None:
            self._inbox.append(data)
            self._notify()
            return
        opened, self._opened = self._opened, None
        error: Exception | None = None
        frame = None
        if data is not END:
            self._reader.feed(data)
            frame = self._reader.next_frame()
        if isinstance(frame, Welcome):
            self._done += self._link.welcome(frame)
            self._heard = self._network.clock.now()
        else:
            why = frame.message if isinstance(frame, ErrorFrame) else "closed the connection"
            error = ConnectError(why, retryable=True)
            self._drop()
        opened(error)

    def _drop(self) -> None:
        self._link.lost()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.out.push(END)

    def _lost(self, why: str) -> None:
        self._drop()
        if self._error is None:
            self._error = ConnectError(why, retryable=True)

    def _flush(self) -> None:
        while self._connection is not None and (data := self._link.produce(self._done)) is not None:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._connection is not None:
            self._wrote = self._network.clock.now()
            self._connection.out.push(data)

    # --- a sending end ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, position: int) -> None:
        self._link.submit(batch, position)
        if self._connection is None:
            raise self._error or ConnectError("not connected", retryable=True)
        self._flush()

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        now = self._network.clock.now()
        while self._inbox and self._connection is not None:
            data = self._inbox.popleft()
            if data is END:
                self._lost("closed the connection")
                break
            self._heard = now
            self._reader.feed(data)
            try:
                self._take()
            except FrameError as error:
                self._lost(str(error))
        if self._connection is not None:
            self._flush()
            if now - self._wrote >= self._beat:
                self._write(encode(self._link.heartbeat()))
            if now - self._heard > self._dead:
                self._lost("silent")
        done, self._done = self._done, []
        if not done and self._connection is None:
            raise self._error or ConnectError("not connected", retryable=True)
        return done

    def _take(self) -> None:
        while self._connection is not None and (frame := self._reader.next_frame()) is not None:
            self._signs += 1
            if isinstance(frame, Accept | Settle | Returned | Subscribed):
                self._done += self._link.receive(frame)
            elif isinstance(frame, Heartbeat):
                self._beats += 1
            elif isinstance(frame, ErrorFrame):
                if frame.code is Code.CLOSING:
                    self._done += self._link.closing()
                self._lost(frame.message)

    def withdraw(self) -> Sequence[Outcome]:
        self._drop()
        done, self._done = self._done, []
        return [*done, *self._link.withdraw()]

    def close(self, timeout: float) -> None:
        self._drop()

    def listen(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def waits_for(self) -> Sequence[tuple[int, int]]:
        return ()

    def rest(self) -> float:
        return max(self._wrote + self._beat - self._network.clock.now(), 0.005)

    def lease(self, seconds: float) -> None:
        self._link.lease_ms = round(seconds * 1000)

    @property
    def idle_interval(self) -> float:
        return min(0.25, self._beat / 3)

    @property
    def incarnation(self) -> bytes:
        return self._link.incarnation

    @property
    def subscriptions(self) -> tuple[str, ...]:
        return self._link.subscriptions

    @property
    def addressable(self) -> bool:
        return self._link.addressable

    def address(self, subscriptions: tuple[str, ...]) -> None:
        self._link.address(subscriptions)

    @property
    def pulse(self) -> tuple[int, int]:
        return self._signs, self._beats


class SimWorld(World):
    """The world of a pool in virtual time. ``round_due`` is called when the pool should have a round."""

    def __init__(self, clock: VirtualClock, random: Random) -> None:
        self.random = random
        self.round_due: Callable[[], None] = lambda: None
        self._clock = clock
        self._ready: set[str] = set()
        self._opened: list[tuple[str, Exception | None]] = []
        self._answer: list[str] | None = None

    def now(self) -> float:
        return self._clock.now()

    def watch(self, name: str, descriptors: Sequence[tuple[int, int]]) -> None:
        return

    def wait(self, timeout: float, haste: bool = False) -> set[str]:
        ready, self._ready = self._ready, set()
        return ready

    def wake(self, name: str | None = None) -> None:
        if name is not None:
            self._ready.add(name)
        self.round_due()

    def open(self, name: str, end: SenderDriver, timeout: float) -> None:
        assert isinstance(end, SimEnd)

        def opened(error: Exception | None) -> None:
            self._opened.append((name, error))
            self.round_due()

        end.begin(timeout, opened)

    def opened(self) -> list[tuple[str, Exception | None]]:
        opened, self._opened = self._opened, []
        return opened

    def close(self, ends: Iterable[SenderDriver], timeout: float) -> None:
        for end in ends:
            end.close(timeout)

    def ask(self, resolver: Callable[[], list[str]]) -> None:
        self._answer = resolver()

    def answer(self) -> list[str] | Exception | None:
        answer, self._answer = self._answer, None
        return answer

    def end(self) -> None:
        return


def numbered(producer: bytes, first: int, bodies: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> Batch:
    """A batch with identities, as a channel stamps it."""
    count = len(bodies)
    return Batch(list(bodies), keys=keys, producers=Same(producer, count), sequences=range(first, first + count))

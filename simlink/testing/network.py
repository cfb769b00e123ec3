"""A simulated network: processes that receive, ends that send to them, and everything that can go wrong in between.

The code under test is the real one: on the receiving side `Reception` with its links, hub and de-duplication, on the
sending side `SenderLink`, and above it whatever is given such an end (a pool). Simulated are the time, the wires, and
the processes that stop, crash and come back. All chance comes from one seeded source, so a run can be had again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

from simlink.channels.driver import Incoming, Mode, Outcome, SenderDriver, Settlement
from simlink.channels.hub import Reader
from simlink.channels.link.reception import Bounds, Manners, Peer, Reception
from simlink.channels.link.sender import SenderLink
from simlink.channels.pool.world import World
from simlink.channels.wire.codec import FrameReader, encode
from simlink.channels.wire.frames import (
    Accept,
    Code,
    ErrorFrame,
    FrameError,
    Heartbeat,
    Returned,
    Settle,
    Welcome,
)
from simlink.errors import ConnectError, ConnectTimeout
from simlink.message import Batch, Same, Verdict
from simlink.testing.clock import VirtualClock

__all__ = ["HandOut", "Network", "SimEnd", "SimProcess", "SimWorld"]

_END: bytes = b""
"""What a pipe carries when its far end was closed."""


class Network:
    """The wires between one sending process and many receiving ones.

    Args:
        latency: seconds one way, at least; ``jitter`` is drawn on top of it.
        loss: the part of writes that is lost, and sent again by the kernel 0.2 s later, with all that comes behind it.
        duplication, reordering: the part of frames that comes twice, or late, to a receiver.
    """

    def __init__(
        self,
        clock: VirtualClock,
        random: Random,
        *,
        latency: float = 0.0002,
        jitter: float = 0.0005,
        loss: float = 0.0,
        duplication: float = 0.0,
        reordering: float = 0.0,
    ) -> None:
        self.clock = clock
        self.random = random
        self.latency = latency
        self.jitter = jitter
        self.loss = loss
        self.duplication = duplication
        self.reordering = reordering
        self.processes: dict[str, SimProcess] = {}
        self.cut_out: set[str] = set()
        """Nothing from the sender reaches these."""
        self.cut_back: set[str] = set()
        """Nothing from these reaches the sender."""
        self._pipes: list[Pipe] = []

    def delay(self) -> float:
        seconds = self.latency + self.random.random() * self.jitter
        again = 0.2
        while self.loss and self.random.random() < self.loss:
            seconds += again
            again *= 2
        return seconds

    def pipe(self, blocked: Callable[[], bool], deliver: Callable[[bytes], None], *, mischief: bool) -> Pipe:
        self._pipes = [pipe for pipe in self._pipes if not pipe.over]
        pipe = Pipe(self, blocked, deliver, mischief=mischief)
        self._pipes.append(pipe)
        return pipe

    def partition(self, name: str, *, out: bool = True, back: bool = True) -> None:
        """Cut a process off: what the sender says does not get there (``out``), what it says does not come (``back``)."""
        if out:
            self.cut_out.add(name)
        if back:
            self.cut_back.add(name)

    def heal(self, name: str) -> None:
        """The wires to a process are whole again; what the kernels kept is sent again."""
        self.cut_out.discard(name)
        self.cut_back.discard(name)
        for pipe in self._pipes:
            pipe.flush()


class Pipe:
    """One direction of a connection: what is put in comes out in order and once, but for mischief."""

    def __init__(
        self, network: Network, blocked: Callable[[], bool], deliver: Callable[[bytes], None], *, mischief: bool
    ) -> None:
        self._network = network
        self._blocked = blocked
        self._deliver = deliver
        self._mischief = mischief
        self._last = 0.0
        self._held: deque[bytes] = deque()
        self.over = False

    def push(self, data: bytes) -> None:
        network = self._network
        now = network.clock.now()
        at = now + network.delay()
        if self._mischief and data and network.reordering and network.random.random() < network.reordering:
            network.clock.call_at(at + 0.01, lambda: self._arrive(data))
            return
        self._last = at = max(self._last, at)
        network.clock.call_at(at, lambda: self._arrive(data))
        if self._mischief and data and network.duplication and network.random.random() < network.duplication:
            network.clock.call_at(at, lambda: self._arrive(data))

    def _arrive(self, data: bytes) -> None:
        if self.over:
            return
        if self._held or self._blocked():
            self._held.append(data)
            return
        if data is _END:
            self.over = True
        self._deliver(data)

    def flush(self) -> None:
        if self.over or self._blocked():
            return
        held, self._held = self._held, deque()
        for data in held:
            self.push(data)


class Connection:
    """Between an end and a process."""

    def __init__(self, network: Network, end: SimEnd, process: SimProcess) -> None:
        self.end = end
        self.process = process
        self.life = process.life
        name = process.name
        self.out = network.pipe(
            lambda: name in network.cut_out, lambda data: process.arrives(self, data), mischief=True
        )
        self.back = network.pipe(lambda: name in network.cut_back, lambda data: end.arrives(self, data), mischief=False)
        self.reader = FrameReader()
        self.peer: _Peer | None = None


class _Peer(Peer):
    """The receiving side of a connection."""

    def __init__(self, process: SimProcess, connection: Connection, now: float) -> None:
        super().__init__(f"{process.name}-{process.life}", now)
        self._connection = connection

    def wake(self) -> None:
        for frame in self.take():
            self._connection.back.push(encode(frame))
        if self.ended:
            self._connection.back.push(_END)


class HandOut:
    """A message in the application's hands, once."""

    __slots__ = ("at", "attempt", "body", "identity", "life", "process")

    def __init__(
        self, at: float, process: str, life: int, identity: tuple[bytes, int], attempt: int, body: bytes
    ) -> None:
        self.at = at
        self.process = process
        self.life = life
        self.identity = identity
        self.attempt = attempt
        self.body = body


class SimProcess:
    """A process that receives, works on one message at a time, and settles it.

    Args:
        service: seconds that a message takes.
        skew: what its clock is fast by, as a part; its zero is its own anyway.
        clock_skew and everything else that happens to it is done by its methods.
        handed: told of every hand-out.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        *,
        manners: Manners,
        service: Callable[[], float],
        handed: Callable[[HandOut], None],
        skew: float = 0.0,
        destination: str = "orders",
        mode: Mode = Mode.QUEUE,
        bounds: Bounds = Bounds(),  # noqa: B008 – it is frozen
    ) -> None:
        self.network = network
        self.name = name
        self.manners = manners
        self.service = service
        self.slow = 1.0
        self.life = 0
        self.alive = False
        self.listening = True
        """Whether the machine is there to refuse connections while the process is not."""
        self.stalled = False
        self.held_at_death = 0
        """Hand-outs that ended unsettled with a life of the process."""
        self._skew = skew
        self._zero = network.random.random() * 1e4
        self._destination = destination
        self._mode = mode
        self._bounds = bounds
        self._handed = handed
        self._inbox: deque[Callable[[], None]] = deque()
        self._connections: list[Connection] = []
        self._reception: Reception
        self._reader: Reader
        self._busy = False
        self._pump_asked = False
        network.processes[name] = self
        self.start()

    def now(self) -> float:
        """Its own monotonic clock."""
        return self._zero + self.network.clock.now() * (1.0 + self._skew)

    # --- what happens to it -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """It runs, with nothing in its memory."""
        if self.alive:
            return
        self.life += 1
        self.alive = self.listening = True
        self.stalled = self._busy = self._pump_asked = False
        self._inbox.clear()
        # A machine that is back answers what it does not know with a reset.
        for connection in self._connections:
            connection.back.push(_END)
        self._connections = []
        self._reception = Reception(
            self.name,
            self.manners,
            post=lambda function: function(),
            soon=lambda function: function(),
            notify=self._ask_for_pump,
            hasten=lambda _: None,
            clock=self.now,
        )
        self._reader = self._reception.join(
            self._destination, self._mode, self._bounds, None, capacity=500, overflow="block"
        )
        life = self.life
        self.network.clock.call_later(self.network.random.random() * 0.05, lambda: self._tick(life))

    def kill(self) -> None:
        """It ends at once; its kernel closes its connections and refuses new ones."""
        if not self.alive:
            return
        self._die()
        for connection in self._connections:
            connection.back.push(_END)
        self._connections = []

    def power_off(self) -> None:
        """Its machine is gone: not a word."""
        if self.alive:
            self._die()
            self.listening = False

    def _die(self) -> None:
        self.alive = False
        self.held_at_death += self._busy
        self._inbox.clear()

    def stall(self, seconds: float) -> None:
        """It is stopped, and goes on after so many seconds, with its clock that much further."""
        if not self.alive or self.stalled:
            return
        self.stalled = True
        life = self.life
        self.network.clock.call_later(seconds, lambda: self._go_on(life))

    def _go_on(self, life: int) -> None:
        if self.life != life or not self.alive:
            return
        self.stalled = False
        # The application may be quicker to wake than whoever reads the wires: the worst case.
        self._work()
        while self._inbox and not self.stalled:
            self._inbox.popleft()()

    def _when_it_runs(self, what: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.stalled:
            self._inbox.append(what)
        else:
            what()

    # --- wires ------------------------------------------------------------------------------------------------------

    def connect(self, connection: Connection) -> bool:
        """Whether its kernel takes a connection."""
        if not self.alive:
            return False
        connection.life = self.life
        self._connections.append(connection)
        self._when_it_runs(lambda: self._accept(connection))
        return True

    def _accept(self, connection: Connection) -> None:
        connection.peer = _Peer(self, connection, self.now())
        self._reception.opened(connection.peer)

    def arrives(self, connection: Connection, data: bytes) -> None:
        if connection.life != self.life:
            if self.alive or self.listening:
                connection.back.push(_END)  # a reset
            return
        self._when_it_runs(lambda: self._read(connection, data))

    def _read(self, connection: Connection, data: bytes) -> None:
        peer = connection.peer
        if peer is None or connection not in self._connections:
            return
        if data is _END:
            self._connections.remove(connection)
            self._reception.gone(peer)
            return
        connection.reader.feed(data)
        try:
            while not peer.ended and (frame := connection.reader.next_frame()) is not None:
                self._reception.received(peer, frame)
        except FrameError as error:
            self._reception.garbage(peer, error)
        if peer.ended:
            self._reception.gone(peer)
            self._connections.remove(connection)
        self._work()

    def _ask_for_pump(self) -> None:
        if not self._pump_asked:
            self._pump_asked = True
            life = self.life
            self.network.clock.call_later(0.0, lambda: self._pump(life))

    def _pump(self, life: int) -> None:
        def pump() -> None:
            self._pump_asked = False
            self._reception.pump()
            self._work()

        if life == self.life:
            self._when_it_runs(pump)

    def _tick(self, life: int) -> None:
        if life != self.life or not self.alive:
            return
        self._when_it_runs(self._reception.tick)
        self._when_it_runs(self._work)
        self.network.clock.call_later(self.manners.heartbeat / 2, lambda: self._tick(life))

    # --- the application ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._busy or not self.alive or self.stalled:
            return
        found = self._reader.receive(1, 0.0)
        if not found:
            return
        incoming = found[0]
        message = incoming.batch[0]
        assert message.producer is not None
        assert message.sequence is not None
        attempt = incoming.attempts[0]
        life = self.life
        self._handed(
            HandOut(
                self.network.clock.now(), self.name, life, (message.producer, message.sequence), attempt, message.body
            )
        )
        self._busy = True
        self.network.clock.call_later(
            self.service() * self.slow, lambda: life == self.life and self._when_it_runs(lambda: self._finish(incoming))
        )

    def _finish(self, incoming: Incoming) -> None:
        self._busy = False
        self._reader.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        self._work()


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
        network.clock.call_later(timeout, lambda: self._give_up(attempt, ConnectTimeout("does not answer", retryable=True)))

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
        if data is not _END:
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
            connection.out.push(_END)

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
            if data is _END:
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
            if isinstance(frame, Accept | Settle | Returned):
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

    def wait(self, timeout: float) -> set[str]:
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



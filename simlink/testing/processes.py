"""Simulated processes that receive: real links, hub and de-duplication, in a life that ends, stops and begins again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from simlink.channels.driver import Incoming, Mode, Settlement
from simlink.channels.hub import Reader
from simlink.channels.link.reception import Bounds, Manners, Peer, Reception
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import FrameError
from simlink.channels.wire.framing import FrameReader
from simlink.message import Verdict
from simlink.testing.network import END, Network

if TYPE_CHECKING:
    from simlink.testing.ends import SimEnd

__all__ = ["Connection", "HandOut", "SimProcess"]


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
            self._connection.back.push(END)


class HandOut:
    """A message in the application's hands, once; ``subscription`` is empty for a queue's, and a private one's."""

    __slots__ = ("at", "attempt", "body", "identity", "life", "process", "subscription")

    def __init__(
        self,
        at: float,
        process: str,
        life: int,
        identity: tuple[bytes, int],
        attempt: int,
        body: bytes,
        subscription: str = "",
    ) -> None:
        self.at = at
        self.process = process
        self.life = life
        self.identity = identity
        self.attempt = attempt
        self.body = body
        self.subscription = subscription


class SimProcess:
    """A process that receives, works on one message at a time, and settles it.

    Args:
        service: seconds that a message takes.
        handed: told of every hand-out.
        skew: what its clock is fast by, as a part; its zero is its own anyway.
        subscriptions: of a topic, what it receives; None is private.
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
        subscriptions: Sequence[str | None] = (None,),
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
        self._subscriptions = subscriptions
        self._bounds = bounds
        self._handed = handed
        self._inbox: deque[Callable[[], None]] = deque()
        self._connections: list[Connection] = []
        self._reception: Reception
        self._readers: deque[Reader]
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
            connection.back.push(END)
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
        self._readers = deque()
        for name in self._subscriptions:
            self.subscribe(name)
        life = self.life
        self.network.clock.call_later(self.network.random.random() * 0.05, lambda: self._tick(life))

    def subscribe(self, name: str | None) -> None:
        """One more reader in this life."""
        self._readers.append(
            self._reception.join(self._destination, self._mode, self._bounds, name, capacity=500, overflow="block")
        )

    def kill(self) -> None:
        """It ends at once; its kernel closes its connections and refuses new ones."""
        if not self.alive:
            return
        self._die()
        for connection in self._connections:
            connection.back.push(END)
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
                connection.back.push(END)  # a reset
            return
        self._when_it_runs(lambda: self._read(connection, data))

    def _read(self, connection: Connection, data: bytes) -> None:
        peer = connection.peer
        if peer is None or connection not in self._connections:
            return
        if data is END:
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
        self._when_it_runs(self._look)
        self.network.clock.call_later(self.manners.heartbeat / 2, lambda: self._tick(life))

    def _look(self) -> None:
        self._reception.tick()
        self._work()

    # --- the application ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._busy or not self.alive or self.stalled:
            return
        found: Sequence[Incoming] = ()
        for _ in range(len(self._readers)):
            reader = self._readers[0]
            self._readers.rotate(-1)
            if found := reader.receive(1, 0.0):
                break
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
                self.network.clock.now(),
                self.name,
                life,
                (message.producer, message.sequence),
                attempt,
                message.body,
                "" if reader.subscription.private else reader.subscription.name,
            )
        )
        self._busy = True

        def over() -> None:
            if life == self.life:
                self._when_it_runs(lambda: self._finish(reader, incoming))

        self.network.clock.call_later(self.service() * self.slow, over)

    def _finish(self, reader: Reader, incoming: Incoming) -> None:
        self._busy = False
        reader.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        self._work()

"""A simulated network: processes that receive, ends that send to them, and everything that can go wrong in between.

The code under test is the real one: on the receiving side `Reception` with its links, hub and de-duplication, on the
sending side `SenderLink`, and above it whatever is given such an end (a pool). Simulated are the time, the wires, and
the processes that stop, crash and come back. All chance comes from one seeded source, so a run can be had again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from simlink.testing.clock import VirtualClock

if TYPE_CHECKING:
    from simlink.testing.processes import SimProcess

__all__ = ["END", "Network", "Pipe"]

END: bytes = b""
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
        """Cut a process off: nothing gets there (``out``), or comes from there (``back``)."""
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
        if data is END:
            self.over = True
        self._deliver(data)

    def flush(self) -> None:
        if self.over or self._blocked():
            return
        held, self._held = self._held, deque()
        for data in held:
            self.push(data)

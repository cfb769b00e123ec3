"""``memory://name``: the reference transport, a hub shared by the channels of one process.

Bounded, ordered per key, with real redelivery. The hub lives from the first channel opened on its name to the last
one closed.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from simlink.channels.driver import (
    Capabilities,
    Driver,
    Incoming,
    Kept,
    Mode,
    Nack,
    Order,
    Outcome,
    OutcomeKind,
    ReceiverDriver,
    ReceiverOptions,
    SenderDriver,
    Settlement,
)
from simlink.channels.hub import Hub, Reader
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, InvalidURL
from simlink.message import Batch

__all__ = ["MemoryDriver"]

_hubs: dict[tuple[Mode, str], tuple[Hub, int]] = {}
_guard = threading.Lock()


class MemoryDriver(Driver):
    """Queues and topics inside one process."""

    schemes: ClassVar[tuple[str, ...]] = ("memory",)
    options: ClassVar[Mapping[str, Option]] = {
        "max_messages": Option(int, 1_000_000, "bound of each subscription, in messages", minimum=1),
        "max_bytes": Option(int, 256 * 1024 * 1024, "the same in bytes", minimum=1),
    }

    def __init__(self, target: Target, *, mode: Mode, max_messages: int, max_bytes: int) -> None:
        super().__init__(target, mode=mode)
        if target.path:
            raise InvalidURL(f"{target}: memory:// has one name, as in memory://{target.name}")
        self._bounds = (max_messages, max_bytes)
        self._hub: Hub | None = None

    def capabilities(self) -> Capabilities:
        return Capabilities(kept=Kept.IN_PROCESS, order=Order.EXCLUSIVE, nack=Nack.NATIVE, cross_process=False)

    def hub(self) -> Hub:
        """The hub of this name; made, and held until `release`, when the channel is entered or first used."""
        with _guard:
            if self._hub is None:
                key = (self.mode, self.target.name)
                found, users = _hubs.get(key, (None, 0))
                if found is None:
                    found = Hub(self.target.name, self.mode, max_messages=self._bounds[0], max_bytes=self._bounds[1])
                elif (found.max_messages, found.max_bytes) != self._bounds:
                    there = f"max_messages={found.max_messages}, max_bytes={found.max_bytes}"
                    raise ConfigError(
                        f"{self.target} is open with {there}; asked for max_messages={self._bounds[0]}, "
                        f"max_bytes={self._bounds[1]}"
                    )
                _hubs[key] = (found, users + 1)
                self._hub = found
            return self._hub

    def acquire(self) -> None:
        self.hub()

    def release(self) -> None:
        with _guard:
            if self._hub is None:
                return
            key = (self.mode, self.target.name)
            found, users = _hubs[key]
            if users == 1:
                del _hubs[key]
            else:
                _hubs[key] = (found, users - 1)
            self._hub = None

    def sender(self) -> SenderDriver:
        return _MemorySender(self.hub())

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        return _MemoryReceiver(self.hub(), subscription, options)

    def purge(self, timeout: float) -> int:
        return self.hub().purge()

    def delete(self, timeout: float) -> None:
        self.hub().purge()

    def delete_subscription(self, name: str, timeout: float) -> None:
        self.hub().delete_subscription(name)


class _MemorySender(SenderDriver):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._queued: deque[tuple[Batch, int]] = deque()
        self._done: list[Outcome] = []

    def open(self, timeout: float) -> None:
        pass

    def submit(self, batch: Batch, position: int) -> None:
        if self._queued:
            self._queued.append((batch, position))
        else:
            self._offer(batch, position)

    def _offer(self, batch: Batch, position: int) -> None:
        taken = self._hub.offer(batch)
        if taken:
            self._done.append(Outcome(OutcomeKind.CONFIRMED, position, position + taken))
        if taken < len(batch):
            self._queued.appendleft((batch[taken:], position + taken))

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        if self._queued and not self._done and timeout > 0:
            self._hub.wait_for_room(timeout)
        while self._queued and self._hub.wait_for_room(0.0):
            self._offer(*self._queued.popleft())
        done, self._done = self._done, []
        return done

    def close(self, timeout: float) -> None:
        self._queued.clear()

    @property
    def idle_interval(self) -> float:
        return math.inf

    def stats(self) -> Mapping[str, Any]:
        return {"waiting_for_room": sum(len(b) for b, _ in self._queued)}


class _MemoryReceiver(ReceiverDriver):
    def __init__(self, hub: Hub, subscription: str | None, options: ReceiverOptions) -> None:
        self._hub = hub
        self._subscription = subscription
        self._options = options
        self._reader: Reader | None = None

    def open(self, timeout: float) -> None:
        if self._reader is None:
            self._reader = self._hub.subscribe(
                self._subscription,
                capacity=self._options.prefetch,
                overflow=self._options.overflow,
                exclusive=self._options.exclusive,
            )

    def receive(self, limit: int, timeout: float) -> Sequence[Incoming]:
        assert self._reader is not None
        return self._reader.receive(limit, timeout)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        if self._reader is not None:
            self._reader.settle(settlements)

    def wake(self) -> None:
        if self._reader is not None:
            self._reader.wake()

    def reserve(self, count: int) -> None:
        assert self._reader is not None
        self._reader.capacity = count

    def close(self, timeout: float) -> None:
        if self._reader is not None:
            self._hub.unsubscribe(self._reader)

    def stats(self) -> Mapping[str, Any]:
        return {} if self._reader is None else self._reader.subscription.stats()

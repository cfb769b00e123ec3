"""A destination held in memory: a queue with its one subscription, or a topic with any number.

The memory transport is a hub shared by the channels of one process; a brokerless listener keeps what it accepted in
one. A hub has one lock and one condition; nothing in here does I/O, and the clock is injected.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from simlink.channels.driver import Mode
from simlink.channels.segments import Origin, Segment
from simlink.channels.subscription import Reader, Subscription
from simlink.message import Batch, Verdict

__all__ = ["Hub", "Origin", "Reader", "Segment", "Subscription"]


class Hub:
    """One destination: a queue with its one subscription, or a topic with any number.

    Args:
        name: the destination.
        mode: queue or topic.
        max_messages: the bound of each subscription, held ones included.
        max_bytes: the same in bytes of bodies and keys.
        clock: seconds, monotonic.
        poll: the longest single wait inside the hub, in seconds; for clocks that do not follow the wall.
    """

    def __init__(
        self,
        name: str,
        mode: Mode,
        *,
        max_messages: int = 1_000_000,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
        poll: float = 3600.0,
    ) -> None:
        self.name = name
        self.mode = mode
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.clock = clock
        self.poll = poll
        self.changed = threading.Condition(threading.RLock())
        self.unrouted = 0
        self.subscriptions: dict[str, Subscription] = {}
        self._private = 0
        if mode is Mode.QUEUE:
            self.subscriptions[name] = Subscription(self, name, private=False)

    def subscribe(self, name: str | None, *, capacity: int, overflow: str = "block", exclusive: bool = False) -> Reader:
        """A reader of the queue, of the named subscription (made if need be), or of a private one.

        Raises:
            ConfigError: others read it that asked otherwise for ``exclusive``.
        """
        with self.changed:
            if self.mode is Mode.QUEUE:
                return self.subscriptions[self.name].attach(capacity, exclusive=exclusive)
            private = name is None
            if name is None:
                self._private += 1
                name = f"~{self._private}"
            subscription = self.subscriptions.get(name)
            if subscription is None:
                subscription = Subscription(self, name, private=private, overflow=overflow)
                self.subscriptions[name] = subscription
            return subscription.attach(capacity, exclusive=exclusive)

    def unsubscribe(self, reader: Reader) -> None:
        """Close a reader; a private subscription goes with it."""
        reader.close()
        with self.changed:
            if reader.subscription.private:
                self._remove(reader.subscription.name)

    def delete_subscription(self, name: str) -> None:
        with self.changed:
            if self.mode is Mode.TOPIC:
                self._remove(name)

    def _remove(self, name: str) -> None:
        subscription = self.subscriptions.pop(name, None)
        if subscription is not None:
            subscription.purge()
            self.changed.notify_all()

    def offer(
        self,
        batch: Batch,
        origin: Origin | None = None,
        row: int = 0,
        *,
        announce: bool = True,
        names: Collection[str] | None = None,
        more: int = 0,
    ) -> int:
        """Append as many of the batch's first messages as every subscription has room for; how many that is.
        ``names`` are the only ones that it is for, and ``more`` others must settle it as well.

        ``row`` is the row, in the origin's count, of the batch's first message. Without ``announce`` the readers that
        wait are not woken: call `announce` soon.
        """
        rows = len(batch.bodies)
        with self.changed:
            targets = [s for name, s in self.subscriptions.items() if names is None or name in names]
            if not targets:
                self.unrouted += rows
                if origin is not None:
                    origin.settled(row, row + rows, Verdict.ACK)
                return rows
            count = rows
            for subscription in targets:
                room = subscription.room()
                count = min(count, room)
            if count == 0:
                return 0
            part = batch if count == rows else batch[:count]
            if origin is not None:
                origin.expect(row, row + count, len(targets) + more)
            for subscription in targets:
                subscription.append(part, origin, row)
            if announce:
                self.changed.notify_all()
            return count

    def announce(self) -> None:
        """Wake the readers that wait for what was offered."""
        with self.changed:
            self.changed.notify_all()

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until every subscription has room for a message; False on timeout."""
        deadline = self.clock() + timeout
        with self.changed:
            while not all(s.room() for s in self.subscriptions.values()):
                wait = deadline - self.clock()
                if wait <= 0:
                    return False
                self.changed.wait(min(wait, self.poll))
            return True

    def purge(self) -> int:
        with self.changed:
            return sum(s.purge() for s in self.subscriptions.values())

    def stats(self) -> dict[str, Any]:
        with self.changed:
            return {
                "unrouted": self.unrouted,
                "subscriptions": {n: s.stats() for n, s in self.subscriptions.items()},
            }

"""Where cells happen: what they need, their URLs, and the brokers that they share."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simlink.testing.chaos import FaultProxy

if TYPE_CHECKING:
    from tests.faults.secured import Door

# What a fault needs, and a transport or a place has.
PROCESSES = "processes"
NETWORK = "network"
BROKER = "broker"
CREDENTIALS = "credentials"
TLS = "tls"
BEATS = "beats"


@dataclass(frozen=True)
class Wrong:
    """A URL that must be refused.

    Attributes:
        what: is wrong with it.
        url: itself.
        says: what the sentence must say, a regular expression.
    """

    what: str
    url: str
    says: str


@dataclass
class Place:
    """Where one cell happens.

    Attributes:
        sender_url, receiver_url: of its destination, through the proxy where there is one.
        proxy: between the ends, or between both ends and their broker; None where the fault needs none.
        broker: its own, where the fault needs one; otherwise the one that all share, or None.
        direct_url: past the proxy.
        others: URLs at which the receiver listens too, with certificates that nobody may trust.
        wrong: what must be refused.
        joins: a receiver calls too, and must be refused as well: where there is a broker.
        door: a server with a bad certificate, which nobody may talk to.
    """

    sender_url: str
    receiver_url: str
    proxy: FaultProxy | None = None
    broker: object = None
    direct_url: str = ""
    others: tuple[str, ...] = ()
    wrong: tuple[Wrong, ...] = ()
    joins: bool = False
    door: Door | None = None


class Shared:
    """A broker for all cells that do not break it, started by the first; with places in front of it for proxies."""

    def __init__(self, make, slots):
        self._make = make
        self._slots = slots
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._free = queue.SimpleQueue()
        self.broker = None

    def start(self):
        with self._lock:
            if self.broker is None:
                proxies = [self._stack.enter_context(FaultProxy()) for _ in range(self._slots)]
                self.broker = self._stack.enter_context(self._make([proxy.address for proxy in proxies]))
                targets = getattr(self.broker, "behind", None) or [f"{self.broker.host}:{self.broker.port}"] * len(
                    proxies
                )
                for proxy, target in zip(proxies, targets, strict=True):
                    proxy.target = target
                    self._free.put(proxy)
            return self.broker

    @contextlib.contextmanager
    def proxy(self):
        """One of the proxies, for as long as a cell lasts."""
        self.start()
        proxy = self._free.get(timeout=600)
        try:
            yield proxy
        finally:
            proxy.heal()
            proxy.reset()
            self._free.put(proxy)

    def close(self):
        with self._lock:
            self.broker = None
            self._stack.close()

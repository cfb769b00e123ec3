"""What is received at one address: the destinations, and who reads them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from simlink.channels.driver import Mode
from simlink.channels.hub import Reader
from simlink.channels.link.destination import Destination
from simlink.errors import ConfigError

__all__ = ["Bounds", "Place", "Places"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a destination's buffer; its receivers in one process must agree on them."""

    messages: int = 65_536
    nbytes: int = 16 * 1024 * 1024


class Deadlines(Protocol):
    """Seconds of silence: see `Destination`."""

    @property
    def dead(self) -> float: ...
    @property
    def orphan_after(self) -> float: ...


@dataclass(slots=True, eq=False)
class Place:
    """A destination that is received here, and who reads it."""

    destination: Destination
    bounds: Bounds
    readers: list[Reader] = field(default_factory=list)


P = TypeVar("P", bound=Place)


class Places(Generic[P]):
    """Readers come and go, from any thread; the links are served in one.

    Args:
        kind: of place.
        where: the address, for messages.
        manners: the deadlines of what is received there, asked for when a destination is made.
        notify: something was settled; called from any thread.
        clock: seconds, monotonic.
        post: run a function soon where the links are served.
        retire: a place has lost its last reader; called where the links are served.
        tell: what is subscribed to has changed, and the senders are to hear of it; called there too.

    Attributes:
        lock: held while a reader comes or goes.
    """

    def __init__(
        self,
        kind: Callable[[Destination, Bounds], P],
        where: str,
        *,
        manners: Callable[[], Deadlines],
        notify: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        post: Callable[[Callable[[], None]], None],
        retire: Callable[[P], None],
        tell: Callable[[P], None],
    ) -> None:
        self.lock = threading.Lock()
        self._kind, self._where = kind, where
        self._manners, self._notify, self._clock = manners, notify, clock
        self._post, self._retire, self._tell = post, retire, tell
        self._all: dict[str, P] = {}

    def __iter__(self) -> Iterator[P]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, name: str) -> P:
        return self._all[name]

    def get(self, name: str) -> P | None:
        return self._all.get(name)

    def names(self) -> list[str]:
        return list(self._all)

    def join(
        self, name: str, mode: Mode, bounds: Bounds, subscription: str | None, *, capacity: int, overflow: str
    ) -> Reader:
        """A new reader of a destination, which is there from now on.

        Raises:
            ConfigError: it is there already, with another mode or other bounds.
        """
        with self.lock:
            place = self._all.get(name)
            if place is None:
                place = self._kind(self._make(name, mode, bounds), bounds)
            hub = place.destination.hub
            if hub.mode is not mode:
                raise ConfigError(f"{name!r} is received as a {hub.mode.value} at {self._where}, not as a {mode.value}")
            if place.bounds != bounds:
                raise ConfigError(f"{name!r} is received at {self._where} with {place.bounds}; asked for {bounds}")
            reader = hub.subscribe(subscription, capacity=capacity, overflow=overflow)
            place.readers.append(reader)
            # Only now senders are let in: a topic without a subscription would lose what they send.
            self._all[name] = place
            if mode is Mode.TOPIC and place.destination.links:
                self._post(partial(self._subscribed, place))
            return reader

    def _make(self, name: str, mode: Mode, bounds: Bounds) -> Destination:
        manners = self._manners()
        return Destination(
            name,
            mode,
            max_messages=bounds.messages,
            max_bytes=bounds.nbytes,
            dead=manners.dead,
            orphan_after=manners.orphan_after,
            notify=self._notify,
            clock=self._clock,
        )

    def leave(self, name: str, reader: Reader, run: Callable[[Callable[[], None]], None]) -> None:
        """A reader goes. With the last one of a destination everything unsettled goes back to its senders. ``run`` runs
        a function where the links are served, and waits for it as long as is good."""
        with self.lock:
            place = self._all.get(name)
            if place is None or reader not in place.readers:
                return
            place.destination.hub.unsubscribe(reader)
            place.readers.remove(reader)
            run(partial(self._left, name, place, not place.readers))

    def _left(self, name: str, place: P, last: bool) -> None:
        if last:
            self._all.pop(name, None)
            self._retire(place)
        else:
            self._subscribed(place)

    def _subscribed(self, place: P) -> None:
        place.destination.subscribed()
        self._tell(place)

    def anything_settled(self) -> bool:
        """Whether the senders of some destination have something to hear."""
        return any(place.destination.has_settled for place in self)

    def wake_readers(self) -> None:
        """Let readers that wait look again: something has ended."""
        for place in self:
            for reader in list(place.readers):
                reader.wake()

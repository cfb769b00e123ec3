"""The receiving end of a transport whose receivers listen: a reader of a hub behind a listener that others share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from simlink.channels.driver import Incoming, Mode, ReceiverDriver, ReceiverOptions, Settlement
from simlink.channels.hub import Reader
from simlink.channels.link.driver import LinkDriver
from simlink.channels.link.listeners import Listeners, Listening
from simlink.channels.link.reception import Bounds
from simlink.errors import ConnectError, ReceiveError

__all__ = ["ListenerReceiver", "ReaderReceiver", "acquire", "check"]


class _Joinable(Listening, Protocol):
    """A listener that destinations are received at."""

    address: str

    def join(
        self, name: str, mode: Mode, bounds: Bounds, subscription: str | None, *, capacity: int, overflow: str
    ) -> Reader: ...

    def leave(self, name: str, reader: Reader, timeout: float) -> None: ...

    def stats(self, name: str | None = None) -> Mapping[str, Any]: ...


class _Addressed(Listening, Protocol):
    address: str


A = TypeVar("A", bound=_Addressed)
J = TypeVar("J", bound=_Joinable)


def acquire(listeners: Listeners[A, Any], driver: LinkDriver, host: str, port: int, settings: Any) -> A:
    """The listener of a receiver. Port 0 is chosen once for a channel: its receivers share it, and its sender finds
    them there.

    Raises:
        ConnectError, ConfigError: as `Listeners.acquire`.
    """
    with driver.binding:
        try:
            listener = listeners.acquire(host, port or driver.bound_port, settings)
        except ConnectError as error:
            error.url = str(driver.target)
            raise
        if not port:
            driver.bound_port = listener.port
        return listener


def check(listener: _Addressed | None, driver: LinkDriver) -> None:
    """Tell a receiver that its listener has ended by itself.

    Raises:
        ReceiveError: it has.
    """
    if listener is not None and listener.error is not None:
        raise ReceiveError(
            f"the listener at {listener.address} failed: {listener.error!r}",
            url=str(driver.target),
            endpoint=listener.address,
        ) from listener.error


class ReaderReceiver(ReceiverDriver):
    """Reads from a hub of this process."""

    _reader: Reader | None = None

    @abstractmethod
    def _check(self) -> None:
        """Raises ReceiveError when nothing will come any more."""

    def receive(self, limit: int, timeout: float) -> Sequence[Incoming]:
        self._check()
        assert self._reader is not None
        return self._reader.receive(limit, timeout)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        if self._reader is not None:
            self._reader.settle(settlements)

    def wake(self) -> None:
        reader = self._reader
        if reader is not None:
            reader.wake()

    def reserve(self, count: int) -> None:
        assert self._reader is not None
        self._reader.capacity = count


class ListenerReceiver(ReaderReceiver, Generic[J]):
    """Listens at one host of the URL, together with the other receivers of this process there."""

    listeners: ClassVar[Listeners[Any, Any]]
    """Those of the transport."""

    def __init__(
        self,
        driver: LinkDriver,
        settings: Any,
        where: tuple[str, int],
        subscription: str | None,
        options: ReceiverOptions,
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._where = where
        self._subscription = subscription
        self._options = options
        self._listener: J | None = None

    def open(self, timeout: float) -> None:
        if self._reader is not None:
            self._check()
            return
        driver = self._driver
        listener: J = acquire(self.listeners, driver, *self._where, self._settings)
        try:
            self._reader = listener.join(
                driver.target.name,
                driver.mode,
                driver.bounds,
                self._subscription,
                capacity=self._options.prefetch,
                overflow=self._options.overflow,
            )
        except BaseException:
            self.listeners.release(listener, 0.0)
            raise
        self._listener = listener

    def _check(self) -> None:
        check(self._listener, self._driver)

    def close(self, timeout: float) -> None:
        reader, listener = self._reader, self._listener
        if reader is None or listener is None:
            return
        self._reader = self._listener = None
        try:
            listener.leave(self._driver.target.name, reader, timeout)
        finally:
            self.listeners.release(listener, timeout)

    @property
    def address(self) -> str | None:
        return None if self._listener is None else self._listener.address

    def stats(self) -> Mapping[str, Any]:
        return {} if self._listener is None else self._listener.stats(self._driver.target.name)

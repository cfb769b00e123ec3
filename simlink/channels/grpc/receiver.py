"""The receiving end of grpc://: a reader of the listener's hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Incoming, ReceiverDriver, ReceiverOptions, Settlement
from simlink.channels.grpc.listener import Listener
from simlink.channels.grpc.settings import Settings
from simlink.channels.hub import Reader
from simlink.channels.link.listeners import Listeners
from simlink.channels.tcp.settings import resolve
from simlink.errors import ConnectError, ReceiveError

if TYPE_CHECKING:
    from simlink.channels.grpc.driver import GrpcDriver

__all__ = ["GrpcReceiver"]

_listeners: Listeners[Listener, Settings] = Listeners(
    Listener, lambda host, port: str(resolve(host, port, passive=True)[0][1][0])
)


class GrpcReceiver(ReceiverDriver):
    """Serves at one host of the URL, together with the other receivers of this process there."""

    def __init__(
        self, driver: GrpcDriver, host: str, port: int, subscription: str | None, options: ReceiverOptions
    ) -> None:
        self._driver = driver
        self._host = host
        self._port = port
        self._subscription = subscription
        self._options = options
        self._listener: Listener | None = None
        self._reader: Reader | None = None

    def open(self, timeout: float) -> None:
        if self._reader is not None:
            self._check()
            return
        driver = self._driver
        with driver.binding:
            # Port 0 is chosen once for a channel: its receivers share it, and its sender finds them there.
            port = self._port or driver.bound_port
            try:
                listener = _listeners.acquire(self._host, port, driver.settings)
            except ConnectError as error:
                error.url = str(driver.target)
                raise
            if not self._port:
                driver.bound_port = listener.port
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
            _listeners.release(listener, 0.0)
            raise
        self._listener = listener

    def _check(self) -> None:
        if self._listener is not None and self._listener.error is not None:
            raise ReceiveError(
                f"the listener at {self._listener.address} failed: {self._listener.error!r}",
                url=str(self._driver.target),
                endpoint=self._listener.address,
            ) from self._listener.error

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

    def close(self, timeout: float) -> None:
        reader, listener = self._reader, self._listener
        if reader is None or listener is None:
            return
        self._reader = self._listener = None
        try:
            listener.leave(self._driver.target.name, reader, timeout)
        finally:
            _listeners.release(listener, timeout)

    @property
    def address(self) -> str | None:
        return None if self._listener is None else self._listener.address

    @property
    def native(self) -> Any:
        """The `grpc.aio.Server`, which lives in the loop of the thread ``simlink-grpc-HOST:PORT``; or None."""
        return None if self._listener is None else self._listener.server

    def stats(self) -> Mapping[str, Any]:
        return {} if self._listener is None else self._listener.stats(self._driver.target.name)

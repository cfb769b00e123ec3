"""The receiving end of http://: a reader of a gate's hub, behind a server of ours or an application of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Incoming, ReceiverDriver, ReceiverOptions, Settlement
from simlink.channels.http.gate import Gate
from simlink.channels.http.registry import acquire, release
from simlink.channels.hub import Reader
from simlink.errors import ConnectError, ReceiveError

if TYPE_CHECKING:
    from simlink.channels.http.driver import HttpDriver
    from simlink.channels.http.server import Server

__all__ = ["HttpReceiver"]


class HttpReceiver(ReceiverDriver):
    """Serves one host of the URL, together with the other receivers of this process there; or joins an app."""

    def __init__(
        self, driver: HttpDriver, host: str, port: int, subscription: str | None, options: ReceiverOptions
    ) -> None:
        self._driver = driver
        self._host = host
        self._port = port
        self._subscription = subscription
        self._options = options
        self._server: Server | None = None
        self._gate: Gate | None = None
        self._reader: Reader | None = None

    def open(self, timeout: float) -> None:
        if self._reader is not None:
            self._check()
            return
        driver = self._driver
        settings = driver.server_settings()
        if driver.app is not None:
            gate = driver.app.gate
            gate.adopt(settings)
        else:
            with driver.binding:
                # Port 0 is chosen once for a channel: its receivers share it, and its sender finds them there.
                port = self._port or driver.bound_port
                try:
                    server = acquire(self._host, port, settings)
                except ConnectError as error:
                    error.url = str(driver.target)
                    raise
                if not self._port:
                    driver.bound_port = server.port
            self._server = server
            gate = server.app.gate
        try:
            self._reader = gate.join(
                driver.destination,
                driver.mode,
                driver.bounds,
                self._subscription,
                capacity=self._options.prefetch,
                overflow=self._options.overflow,
            )
        except BaseException:
            self._let_go(0.0)
            raise
        self._gate = gate

    def _let_go(self, timeout: float) -> None:
        server, self._server = self._server, None
        if server is not None:
            release(server, timeout)

    def _check(self) -> None:
        if self._server is not None and self._server.error is not None:
            raise ReceiveError(
                f"the server at {self._server.address} failed: {self._server.error!r}",
                url=str(self._driver.target),
                endpoint=self._server.address,
            ) from self._server.error

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
        reader, gate = self._reader, self._gate
        if reader is None or gate is None:
            return
        self._reader = self._gate = None
        try:
            gate.leave(self._driver.destination, reader, timeout)
        finally:
            self._let_go(timeout)

    @property
    def address(self) -> str | None:
        return None if self._server is None else self._server.address

    @property
    def native(self) -> Any:
        """The ASGI application."""
        return self._driver.app if self._server is None else self._server.app

    def stats(self) -> Mapping[str, Any]:
        if self._gate is None:
            return {}
        served = {} if self._server is None else self._server.stats()
        return {**self._gate.stats(self._driver.destination), **served}

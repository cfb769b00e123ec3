"""The receiving end of http://: a reader of a gate's hub, behind a server of ours or an application of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import ReceiverOptions
from simlink.channels.http.gate import Gate
from simlink.channels.http.settings import Settings
from simlink.channels.link.listeners import Listeners
from simlink.channels.link.listening import ReaderReceiver, acquire, check
from simlink.channels.tcp.settings import numeric

if TYPE_CHECKING:
    from simlink.channels.http.driver import HttpDriver
    from simlink.channels.http.server import Server

__all__ = ["HttpReceiver"]


def _serve(host: str, port: int, settings: Settings) -> Server:
    from simlink.channels.http.server import Server

    return Server(host, port, settings)


_servers: Listeners[Server, Settings] = Listeners(_serve, numeric)


class HttpReceiver(ReaderReceiver):
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
            self._server = acquire(_servers, driver, self._host, self._port, settings)
            gate = self._server.app.gate
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
            _servers.release(server, timeout)

    def _check(self) -> None:
        check(self._server, self._driver)

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

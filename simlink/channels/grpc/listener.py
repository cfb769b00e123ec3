"""The receiving process' gRPC server at one address: it reads, keeps and answers in the loop of `loop`."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from simlink.channels.driver import Mode
from simlink.channels.grpc import loop
from simlink.channels.grpc.guard import TokenCheck, server_credentials
from simlink.channels.grpc.patience import Patience
from simlink.channels.grpc.services import add_services
from simlink.channels.grpc.settings import Settings, server_arguments, shown
from simlink.channels.hub import Reader
from simlink.channels.link.reception import Bounds, Reception
from simlink.channels.tcp.settings import numeric
from simlink.errors import ConnectError

__all__ = ["Listener"]

log = logging.getLogger("simlink")

_QUIET = 0.001
"""Seconds that settlements may gather before they are told."""
_LAST_WORDS = 0.2
"""Seconds that calls other than links have left when all was said; a watcher of the health would stay for ever."""
_LONGEST = 3600.0
"""Seconds: in effect until it is said otherwise."""


class Listener:
    """An address that is served, and everything that is received there.

    Args:
        host, port: what to bind; port 0 takes a free one.
        settings: deadlines and limits.

    Attributes:
        port: the one that was really bound.
        users: how many receivers share it; kept by the registry.
        error: why its thread has ended by itself, or None.
        server: gRPC's own.

    Raises:
        ConnectError: the address is in use, or not of this machine.
        ConfigError: the certificate, or its key, cannot be used.
    """

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.host = host
        self.port = port
        self.settings = settings
        self.users = 0
        self.error: Exception | None = None
        self.server: grpc.aio.Server | None = None
        self.address = shown(host, port)
        self._credentials = None if settings.tls is None else server_credentials(settings.tls)
        self._where = numeric(host, port)
        self._started = threading.Event()
        self._unlistened = threading.Event()
        self._ended = threading.Event()
        self._refused: Exception | None = None
        self._armed = False
        self._pump_due = False
        self._pumped = 0.0
        self._loop = loop.enter()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failure: Exception | None = None
        self._next_tick: asyncio.TimerHandle | None = None
        self.reception = Reception(
            self.address,
            settings.manners(),
            post=self._post,
            soon=self._soon,
            notify=self._notify,
            hasten=self._hasten,
        )
        loop.submit(self._run())
        self._started.wait()
        if self._refused is not None:
            self._ended.wait()
            loop.leave()
            raise self._refused

    # --- for receivers, from any thread -------------------------------------------------------------------------

    def join(
        self, name: str, mode: Mode, bounds: Bounds, subscription: str | None, *, capacity: int, overflow: str
    ) -> Reader:
        """A new reader of a destination; see `Reception.join`."""
        return self.reception.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def leave(self, name: str, reader: Reader, timeout: float) -> None:
        """A reader goes; see `Reception.leave`."""
        self.reception.leave(name, reader, timeout, alive=lambda: not self._ended.is_set())

    def unlisten(self) -> None:
        """Let nobody else in, and free the address; calls that are under way go on until `stop`."""
        self._post(self._stopping.set)
        self._unlistened.wait(5.0)

    def stop(self, timeout: float) -> None:
        """Let what is to be said go out, for at most ``timeout`` seconds; then end everything."""
        self._post(self._stopping.set)
        if not self._ended.wait(timeout):
            self._post(self._hurry.set)
            self._ended.wait(5.0)
        loop.leave()

    def stats(self, name: str | None = None) -> dict[str, Any]:
        """Counts of the listener, and of one destination."""
        return self.reception.stats(name)

    def _post(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)

    def _soon(self, function: Callable[[], None]) -> None:
        self._loop.call_soon(function)

    def _notify(self) -> None:
        # One-shot: the loop arms it when it has told everything, and looks again after it has armed it.
        if self._armed:
            self._armed = False
            self._post(self._settled)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _settled(self) -> None:
        """Something was settled: tell it, but not more often than every `_QUIET` seconds."""
        if self._pump_due:
            return
        self._pump_due = True
        self._loop.call_later(max(0.0, self._pumped + _QUIET - self._loop.time()), self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        self._pumped = self._loop.time()
        try:
            self.reception.pump()
        except Exception as error:
            self._fail(error)
            return
        self._armed = True
        if self.reception.has_settled:
            self._armed = False
            self._settled()

    def _tick(self) -> None:
        if not self._stopping.is_set():
            try:
                self._next_tick = None
                self._hasten(self.reception.tick())
            except Exception as error:
                self._fail(error)

    def _hasten(self, seconds: float) -> None:
        """Tick within so many seconds."""
        planned = self._next_tick
        if planned is not None:
            if planned.when() <= self._loop.time() + seconds:
                return
            planned.cancel()
        self._next_tick = self._loop.call_later(seconds, self._tick)

    def _fail(self, error: Exception) -> None:
        """A defect of ours must reach the readers, not end in a log."""
        self._failure = error
        self._stopping.set()

    async def _run(self) -> None:
        try:
            await self._serve()
        except Exception as error:
            if not self._started.is_set():
                self._refused = error
                return
            # The readers are told at their next call; see GrpcReceiver.
            self.error = error
            log.exception("the listener at %s failed", self.address)
        finally:
            # gRPC's own threads end when the last server is forgotten, and with it the last credentials.
            self.server = self._credentials = None
            self._started.set()
            self._unlistened.set()
            self._ended.set()
            self.reception.wake_readers()

    async def _serve(self) -> None:
        token = self.settings.token
        server = grpc.aio.server(
            interceptors=(
                *(() if token is None else (TokenCheck(token.secret),)),
                Patience(self.settings.frame_timeout),
            ),
            options=server_arguments(self.settings),
            # Streams are counted by the reception, which says why it refuses; this bounds all the other calls.
            maximum_concurrent_rpcs=2 * self.settings.max_connections,
        )
        health, links = add_services(server, self.reception)
        try:
            self.port = _bind(server, self._where, self.port, self._credentials)
            await server.start()
        except ConnectError as error:
            self._refused = error
            await server.stop(None)
            return
        self.server = server
        self.address = self.reception.address = shown(self.host, self.port)
        self._armed = True
        self._started.set()
        self._tick()
        try:
            await self._stopping.wait()
        finally:
            # Whoever asks for the health hears of it; then the address is free, while calls go on.
            await health.enter_graceful_shutdown()
            stopping = asyncio.create_task(server.stop(_LONGEST))
            await asyncio.sleep(0)
            self._unlistened.set()
            self.reception.close()
            waits = {asyncio.create_task(event.wait()) for event in (links.idle, self._hurry)}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            await server.stop(_LAST_WORDS)
            await stopping
            if self._next_tick is not None:
                # The loop stays, and would keep this listener until the tick's time.
                self._next_tick.cancel()
        if self._failure is not None:
            raise self._failure


def _bind(server: grpc.aio.Server, host: str, port: int, credentials: Any) -> int:
    """Bind a numeric address.

    Raises:
        ConnectError: with the operating system's reason.
    """
    try:
        where = shown(host, port)
        bound: int = (
            server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
        )
    except RuntimeError as error:
        raise _reason(host, port) from error
    if not bound:
        raise _reason(host, port)
    return bound


def _reason(host: str, port: int) -> ConnectError:
    """Why an address cannot be bound: gRPC does not say, so it is tried."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
            why = "gRPC gives no reason"
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
    return ConnectError(f"cannot listen at {shown(host, port)}: {why}", endpoint=shown(host, port))

"""The receiving process' gRPC server at one address: one thread with an event loop that reads, keeps and answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from simlink.channels.driver import Mode
from simlink.channels.grpc.services import add_services
from simlink.channels.grpc.settings import Settings, server_arguments, shown
from simlink.channels.hub import Reader
from simlink.channels.link.reception import Bounds, Reception
from simlink.channels.tcp.settings import resolve
from simlink.errors import ConnectError

__all__ = ["Listener"]

log = logging.getLogger("simlink")

_QUIET = 0.001
"""Seconds that settlements may gather before they are told."""
_LAST_WORDS = 0.5
"""Seconds that senders have to end their calls when all was said."""
_START = 30.0


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
    """

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.host = host
        self.port = port
        self.settings = settings
        self.users = 0
        self.error: Exception | None = None
        self.server: grpc.aio.Server | None = None
        self.address = shown(host, port)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._refused: Exception | None = None
        self._unlistened = threading.Event()
        self._stopping = asyncio.Event()
        self._stop_at = 0.0
        self._armed = False
        self._pump_due = False
        self._pumped = 0.0
        # The real port is known only when it is bound, and stands in the reception's messages.
        self.reception = Reception(
            self.address, settings.manners(), post=self._post, soon=self._soon, notify=self._notify
        )
        self._thread = threading.Thread(target=self._run, name=f"simlink-grpc-{self.address}", daemon=True)
        self._thread.start()
        self._started.wait(_START)
        if self._refused is not None:
            self._thread.join(_START)
            raise self._refused

    # --- for receivers, from any thread -------------------------------------------------------------------------

    def join(
        self, name: str, mode: Mode, bounds: Bounds, subscription: str | None, *, capacity: int, overflow: str
    ) -> Reader:
        """A new reader of a destination; see `Reception.join`."""
        return self.reception.join(name, mode, bounds, subscription, capacity=capacity, overflow=overflow)

    def leave(self, name: str, reader: Reader, timeout: float) -> None:
        """A reader goes; see `Reception.leave`."""
        self.reception.leave(name, reader, timeout, alive=self._thread.is_alive)

    def unlisten(self) -> None:
        """Let nobody else in, and free the address; calls that are under way go on until `stop`."""
        self._post(self._stopping.set)
        if self._thread.is_alive():
            self._unlistened.wait(2.0)

    def stop(self, timeout: float) -> None:
        """Let what is to be said go out, for at most ``timeout`` seconds; then end everything, and the thread."""

        def begin() -> None:
            self._stop_at = time.monotonic() + timeout
            self._stopping.set()

        self._post(begin)
        self._thread.join(timeout + 5.0)

    def stats(self, name: str | None = None) -> dict[str, Any]:
        """Counts of the listener, and of one destination."""
        return self.reception.stats(name)

    def _post(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: its thread has ended
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
        self.reception.pump()
        self._armed = True
        if self.reception.has_settled:
            self._armed = False
            self._settled()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception as error:
            # The readers are told at their next call; see GrpcReceiver.
            self.error = error
            log.exception("the listener at %s failed", self.address)
        finally:
            self._started.set()
            self._unlistened.set()
            self.reception.wake_readers()

    async def _serve(self) -> None:
        server = grpc.aio.server(
            options=server_arguments(self.settings),
            # Streams are counted by the reception, which says why it refuses; this bounds all the other calls.
            maximum_concurrent_rpcs=2 * self.settings.max_connections,
        )
        health = add_services(server, self.reception)
        try:
            self.port = _bind(server, self.host, self.port)
            await server.start()
        except ConnectError as error:
            self._refused = error
            await server.stop(None)
            return
        self.server = server
        self.address = self.reception.address = shown(self.host, self.port)
        self._armed = True
        self._started.set()
        ticking = asyncio.create_task(self._tick())
        ticking.add_done_callback(lambda _: self._stopping.set())
        try:
            await self._stopping.wait()
        finally:
            ticking.cancel()
            await health.enter_graceful_shutdown()
            self.reception.close()
            # Frees the address at once, and waits for the calls.
            grace = max(_LAST_WORDS, self._stop_at - time.monotonic())
            stopping = asyncio.create_task(server.stop(min(grace, _LAST_WORDS)))
            await asyncio.sleep(0)
            self._unlistened.set()
            await stopping
        if not ticking.cancelled() and ticking.done() and (error := ticking.exception()) is not None:
            raise error

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.reception.tick())


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    """Bind the first address of a name.

    Raises:
        ConnectError: with the operating system's reason.
    """
    where = shown(resolve(host, port, passive=True)[0][1][0], port)
    try:
        bound: int = server.add_insecure_port(where)
    except RuntimeError as error:
        raise _reason(host, port) from error
    if not bound:
        raise _reason(host, port)
    return bound


def _reason(host: str, port: int) -> ConnectError:
    """Why an address cannot be bound: gRPC does not say, so it is tried."""
    family, address = resolve(host, port, passive=True)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            why = "gRPC gives no reason"
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
    return ConnectError(f"cannot listen at {shown(host, port)}: {why}", endpoint=shown(host, port))

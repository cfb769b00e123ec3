"""A server on one address: uvicorn's HTTP over asyncio, in a thread of its own, behind our own deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from simlink.channels import tls
from simlink.channels.http.app import HttpApp
from simlink.channels.http.guard import Guard, GuardedProtocol
from simlink.channels.http.settings import Settings
from simlink.channels.tcp.settings import resolve, shown
from simlink.errors import ConnectError

__all__ = ["Server"]

log = logging.getLogger("simlink")

_GRACE = 0.5
"""Seconds that requests which are being answered have at the end."""


class _Answering(ssl.SSLObject):
    """Tells a client why its certificate is not taken. For TLS 1.3 the handshake is over at the client's side by then;
    asyncio would close the connection with the alert still unsent, and the client would see a server that hangs up."""

    refusal: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.refusal = error
            # "More to read" has asyncio write out what there is: the alert. It comes again when the client has answered
            # or gone; and if it does neither, the time for the handshake ends.
            raise ssl.SSLWantReadError(*error.args) from error


class Server:
    """An address that is listened on, and the application behind it.

    Args:
        host, port: what to bind; port 0 takes a free one.
        settings: deadlines and limits.

    Attributes:
        port: the one that was really bound.
        users: how many receivers share it; kept by the registry.
        error: why its thread has ended by itself, or None.

    Raises:
        ConnectError: the address is in use, or not of this machine.
        ConfigError: a certificate's file is not what it should be.
    """

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.settings = settings
        # First of all: what is wrong with a file is said before anything is bound.
        self._context = None if settings.tls is None else tls.server_context(settings.tls)
        self.guard = Guard(settings)
        if self._context is not None and self.guard.wants_certificate:
            # One that is shown must still be good. That none is shown is told in words; see Guard.
            self._context.verify_mode = ssl.CERT_OPTIONAL
            self._context.sslobject_class = _Answering
        self.users = 0
        self.error: Exception | None = None
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.address = shown(host, self.port)
        self.app = HttpApp(self.address)
        self.app.gate.adopt(settings)
        self._state = ServerState()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._closed = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"simlink-http-{self.address}", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self.error is not None:
            self._thread.join()
            raise ConnectError(f"cannot serve {self.address}: {self.error}", endpoint=self.address) from self.error

    def unlisten(self) -> None:
        """Let nobody else in, and free the address; those who are connected stay."""
        loop = self._loop
        if loop is not None and self._thread.is_alive():
            closed = threading.Event()

            def close() -> None:
                self._listener.close()
                self._socket.close()
                closed.set()

            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(close)
                closed.wait(1.0)

    def stop(self, timeout: float) -> None:
        """End everything, within about ``timeout`` seconds."""
        self.unlisten()
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stopping.set)
        self._thread.join(timeout + 5.0)

    def stats(self) -> dict[str, Any]:
        return {"connections": len(self._state.connections), **self.guard.counts}

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except Exception as error:
            # The readers are told at their next call; see HttpReceiver.
            self.error = error
            log.exception("the server at %s failed", self.address)
        finally:
            self._socket.close()
            self._ready.set()
            self._closed.set()

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        config = uvicorn.Config(
            self.app,
            lifespan="off",
            ws="none",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=max(1, round(self.settings.idle_timeout)),
        )
        config.load()

        def protocol() -> GuardedProtocol:
            return GuardedProtocol(config, self._state, self.guard)

        # TLS has its own deadlines: a handshake that drips, and a peer that does not say goodbye.
        encrypted = self._context is not None
        self._listener = await loop.create_server(
            protocol,
            sock=self._socket,
            ssl=self._context,
            backlog=1024,
            ssl_handshake_timeout=self.settings.header_timeout if encrypted else None,
            ssl_shutdown_timeout=_GRACE if encrypted else None,
        )
        self.app.gate.serve()
        self._ready.set()
        try:
            while not self._stopping.is_set():
                self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
                wait = self.guard.sweep(time.monotonic())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._stopping.wait()
        finally:
            self._listener.close()
            self.app.gate.stop()
            await self._finish()

    async def _finish(self) -> None:
        """Let what is being answered end, then cut the rest."""
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=_GRACE)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.sleep(0)


def _bind(host: str, port: int) -> socket.socket:
    family, address = resolve(host, port, passive=True)[0]
    # With the protocol named asyncio switches Nagle's delay off; without, each reply would wait 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
        sock.setblocking(False)
    except (OSError, OverflowError) as error:
        sock.close()
        raise ConnectError(
            f"cannot listen at {shown(host, port)}: {getattr(error, 'strerror', None) or error}",
            endpoint=shown(host, port),
        ) from error
    return sock

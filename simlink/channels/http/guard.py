"""Deadlines and limits below ASGI: what a peer may do before, between and around its requests.

uvicorn closes a connection that is idle after a reply, and nothing else: neither one that never says anything, nor one
that drips its headers, nor one that does not read. Bodies have their deadline in the application.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simlink.channels import tls
from simlink.channels.http.problem import CONTENT_TYPE, Problem
from simlink.channels.http.settings import Settings

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["Guard", "GuardedProtocol"]

_MAX_HEAD_BYTES = 64 * 1024
_LINGER = 1.0
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_LOG = logging.getLogger("simlink.http")


class Guard:
    """The connections of a server, as far as they are a burden.

    Attributes:
        counts: opened, evicted, cut connections.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter(opened=0, evicted=0, turned_away=0, cut=0)
        self.wants_certificate = settings.tls is not None and settings.tls.ca is not None
        """A client must show a certificate. Which ones are good is TLS' to say; that there is one is said here, because
        asyncio closes a handshake that has failed without telling the client why."""
        self._connections: set[GuardedProtocol] = set()
        self._unproven: OrderedDict[GuardedProtocol, None] = OrderedDict()

    def enter(self, connection: GuardedProtocol) -> bool:
        """A connection came; whether it may stay. Where there are too many, the oldest that has not got a reply yet
        makes room: whoever sends a whole request soon is let in even while others hold all the places."""
        self.counts["opened"] += 1
        if len(self._connections) >= self.settings.max_connections:
            if not self._unproven:
                self.counts["turned_away"] += 1
                return False
            oldest = next(iter(self._unproven))
            self.counts["evicted"] += 1
            self.leave(oldest)
            oldest.transport.abort()
        self._connections.add(connection)
        self._unproven[connection] = None
        return True

    def prove(self, connection: GuardedProtocol) -> None:
        self._unproven.pop(connection, None)

    def leave(self, connection: GuardedProtocol) -> None:
        self._connections.discard(connection)
        self._unproven.pop(connection, None)

    def sweep(self, now: float) -> float:
        """Cut what is over its time; seconds until the next look."""
        settings = self.settings
        for connection in list(self._connections):
            if connection.closing_since is not None:
                if now - connection.closing_since > _LINGER:
                    connection.transport.abort()
            elif connection.head_since is not None and now - connection.head_since > settings.header_timeout:
                self.counts["cut"] += 1
                connection.cut(408, "too-slow", f"no complete request within {settings.header_timeout:g} s")
            elif connection.transport.get_write_buffer_size():
                connection.unread_since = connection.unread_since or now
                if now - connection.unread_since > settings.body_timeout:
                    self.counts["cut"] += 1
                    connection.transport.abort()
            else:
                connection.unread_since = 0.0
        return min(0.5, settings.header_timeout / 4, settings.body_timeout / 4)


class _Corked:
    """A transport that writes once where its user writes head and body of a reply: each write is a system call here,
    and wakes the client there."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)

    def flush(self) -> None:
        """Write what is held; by the end of this turn of the loop it happens anyway."""
        if self._held:
            data = b"".join(self._held) if len(self._held) > 1 else self._held[0]
            self._held.clear()
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        head_since: when it began to wait for the headers of a request, or None within a request and between two.
        closing_since: when it was told to go, or None.
        unread_since: since when something written to it was not taken; 0 where nothing is.
    """

    transport: asyncio.Transport

    def __init__(self, config: Config, state: ServerState, guard: Guard) -> None:
        super().__init__(config, state, {})
        self.logger = _LOG
        self.access_log = False
        self.guard = guard
        self.head_since: float | None = None
        self.closing_since: float | None = None
        self.unread_since = 0.0
        self._peer = b""
        self._head_bytes = 0
        self._tail = b""
        self._resuming = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = _Corked(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._corked))
        if self.guard.wants_certificate:
            self._peer = tls.certificate_identity(transport.get_extra_info("peercert"))
            if not self._peer:
                self.app = _no_certificate
        self.head_since = self.loop.time()
        if not self.guard.enter(self):
            self.head_since = None
            self.cut(503, "busy", "too many connections", (("retry-after", "1"),))

    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.closing_since is not None:
            return
        if self.head_since is None and (self.cycle is None or self.cycle.response_complete):
            self.head_since = self.loop.time()
        if self.head_since is not None:
            # Counted before it is parsed: the parser keeps whatever headers come.
            before = self._head_bytes
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES and not self._head_ends_in(data, before):
                self.guard.counts["cut"] += 1
                self.cut(431, "headers", f"the headers have more than {_MAX_HEAD_BYTES} bytes")
                return
            self._tail = data[-3:]
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.logger.warning("what came from %s is not HTTP", self.client)
            self.send_400_response("this cannot be read as an HTTP/1.1 request")

    def _parse(self, data: bytes) -> None:
        """Feed the parser. An offered upgrade is declined by going on without it (RFC 9110, 7.8): Java's own client and
        ``curl --http2`` make one with each request. httptools stops there and drops the body, so the rest of such a
        request is given to a parser that was told of a body only."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
            framing = [(name, value) for name, value in self.headers if name in _FRAMING]
            self.parser = httptools.HttpRequestParser(self)
            if not framing:
                continue
            self.headers = []  # those of the request are the scope's, and stay
            self._resuming = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % pair for pair in framing))
            self._resuming = False

    def _head_ends_in(self, data: bytes, before: int) -> bool:
        """Whether the limit is passed by what stands behind the headers."""
        at = (self._tail + data).find(b"\r\n\r\n")
        return at >= 0 and before + at <= _MAX_HEAD_BYTES

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        super().on_message_begin()
        self.scope["simlink.keep"] = self._keep  # type: ignore[typeddict-unknown-key]
        self.scope["simlink.peer"] = self._peer  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self.head_since = None
        self._head_bytes = 0
        self._tail = b""
        if not self._resuming:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        # With an offered upgrade the parser says so at the end of the headers; the body is still to come.
        if not (self.parser.should_upgrade() and any(name in _FRAMING for name, _ in self.headers)):
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._corked.flush()
        self.guard.prove(self)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self.guard.counts["garbage"] += 1
        self.cut(400, "http", msg)

    def _keep(self) -> None:
        self.guard.prove(self)

    def cut(self, status: int, kind: str, detail: str, more: tuple[tuple[str, str], ...] = ()) -> None:
        """Say why, and close; a peer that does not close as well is cut a second later."""
        if self.closing_since is not None:
            return
        self.closing_since = self.loop.time()
        self.head_since = None
        problem = Problem(status, kind, detail)
        body = problem.body()
        headers: list[tuple[str, Any]] = [
            ("content-type", CONTENT_TYPE),
            ("content-length", len(body)),
            ("connection", "close"),
            *more,
        ]
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in headers), "", ""]
        if not self.transport.is_closing():
            self.transport.write("\r\n".join(lines).encode() + body)
            self.transport.close()


async def _no_certificate(_scope: Any, _receive: Any, send: Any) -> None:
    body = Problem(403, "certificate", "a client certificate is needed here; give one with cert= and key=").body()
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _phrase(status: int) -> str:
    from http import HTTPStatus

    return HTTPStatus(status).phrase

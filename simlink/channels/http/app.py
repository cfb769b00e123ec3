"""The receiving end as an ASGI application: requests in, replies out. What they mean is the gate's.

It is served by simlink's own server on the address of a URL, or mounted in an application of the user's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from simlink.channels.driver import Mode
from simlink.channels.http.gate import RETRY_AFTER, Gate
from simlink.channels.http.plain import header_map, read_post
from simlink.channels.http.problem import CONTENT_TYPE, Problem
from simlink.channels.http.sessions import Session
from simlink.channels.http.settings import FRAMES, PRODUCER, SESSION, SETTLED, Settings
from simlink.channels.peers import plain_scope
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import Code, ErrorFrame, FrameError, Hello
from simlink.channels.wire.framing import read_frames

__all__ = ["HttpApp", "asgi_app"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_READING = 64 * 1024 * 1024
"""Bytes of bodies that are being read at one time, of all requests together."""
_SMALL = 64 * 1024
"""A body up to here is read even if others bring too much: it cannot hurt, and somebody waits for it."""
_MAX_DISCARDED = 64 * 1024 * 1024
_DISCARDING = 2.0
"""So many bytes, and seconds, of a body that is too large are thrown away before that is said: a client that is still
sending when the connection is closed may lose the answer."""
_LINGER = 1.0
"""Seconds that the reader of an ended stream has to read the rest of it."""
_STATUS = {
    Code.NO_RECEIVER: 404,
    Code.MODE: 409,
    Code.TOO_LARGE: 413,
    Code.VERSION: 400,
    Code.TIMEOUT: 408,
    Code.BUSY: 429,
}


def asgi_app() -> HttpApp:
    """An ASGI application that receives simlink's messages, to be mounted in one of your own.

    Give it to the channels that receive through it, as ``simlink.queue(url, app=app)``: their receivers listen nowhere
    then, and take what comes to ``POST …/NAME`` below the path at which the app is mounted. Limits and credentials are
    those of the channels. Your server's own deadlines protect the headers of requests; bodies have the app's.
    """
    return HttpApp()


class HttpApp:
    """ASGI 3, without a lifespan of its own. One event loop serves it at a time.

    Attributes:
        gate: what is received through it.
    """

    def __init__(self, where: str = "this application") -> None:
        self.gate = Gate(where)
        self._reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        try:
            await self._request(scope, receive, send)
        except Problem as problem:
            self.gate.counts["refused"] += 1
            headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers]
            await _reply(send, problem.status, CONTENT_TYPE, problem.body(), headers)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self.gate
        gate.serve()
        settings = gate.settings
        if settings is None:
            raise Problem(404, "no-receiver", f"nobody receives anything at {gate.where}")
        headers = header_map(scope["headers"])
        method: str = scope["method"]
        allowed = _check_origin(settings, headers)
        if method == "OPTIONS" and allowed is not None:
            await _preflight(send, allowed)
            return
        _check_credentials(settings, headers)
        name, settled = _route(scope)
        if settled:
            if method != "GET":
                raise Problem(405, "method", "settlements are read by GET", headers=(("allow", "GET"),))
            await self._stream(self._hello(name, scope), scope, receive, send)
            return
        if method != "POST":
            raise Problem(405, "method", "messages are sent by POST", headers=(("allow", "POST"),))
        if (
            kind := headers.get(b"content-encoding", b"identity").strip().lower()
        ) != b"identity":  # nothing is unpacked: what is small on the wire shall be small here
            raise Problem(
                415,
                "content-encoding",
                f"a body packed by {kind.decode('latin-1')!r} is not taken; send it as it is",
                headers=(("accept-encoding", "identity"),),
            )
        if not _fits(headers, settings):
            if b"expect" not in headers:  # who expects to be told first is not sending yet
                await _discard(receive)
            raise _too_large(settings)
        if headers.get(b"content-type", b"").partition(b";")[0].strip() == FRAMES.encode():
            await self._frames(name, headers, settings, receive, send)
        else:
            await self._plain(name, headers, settings, receive, send, allowed, _who(scope, headers))

    # --- posts --------------------------------------------------------------------------------------------------

    async def _body(self, receive: Receive, settings: Settings, session: Session | None) -> bytes:
        """The whole body of a request, within its bounds.

        Raises:
            Problem: too large, too slow, or more than all requests together may bring at a time.
        """
        size = 0
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(settings.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    chunk: bytes = message.get("body", b"")
                    # What really came is counted, and not what was announced: announcing costs a client nothing.
                    size += len(chunk)
                    self._reading += len(chunk)
                    if size > settings.max_body_bytes:
                        chunks.clear()
                        await _discard(receive)
                        raise _too_large(settings)
                    if self._reading > _MAX_READING and size > _SMALL:
                        raise _busy("too many large bodies are being read")
                    if session is not None:
                        session.destination.heard(session.link)
                    if not message.get("more_body"):
                        return b"".join([*chunks, chunk]) if chunks else chunk
                    chunks.append(chunk)
        except TimeoutError:
            self.gate.counts["timed_out"] += 1
            raise Problem(
                408,
                "too-slow",
                f"the body was not complete after {settings.body_timeout:g} s",
                headers=(("connection", "close"),),
            ) from None
        finally:
            self._reading -= size

    async def _frames(
        self,
        name: str,
        headers: Mapping[bytes, bytes],
        settings: Settings,
        receive: Receive,
        send: Send,
    ) -> None:
        token = headers.get(SESSION.encode(), b"").decode("latin-1")
        session = self.gate.sessions.get(token)
        if session is None or session.name != name:
            raise Problem(409, "session", f"the stream of settlements of this post has ended, or never was ({SESSION})")
        try:
            body = _whole(headers, await self._body(receive, settings, session))
        except _Gone:
            return
        if session.ended:
            raise Problem(409, "session", "the stream of settlements of this post has ended")
        self.gate.counts["posts"] += 1
        try:
            frames = read_frames(body, settings.max_body_bytes)
        except FrameError as error:
            self.gate.counts["garbage"] += 1
            self.gate.end(session, ErrorFrame(error.code, str(error)))
            raise Problem(_STATUS.get(error.code, 400), "frames", str(error)) from error
        try:
            replies = self.gate.take(session, frames)
        except FrameError as error:
            raise Problem(_STATUS.get(error.code, 400), "frames", str(error)) from error
        await _reply(send, 202, FRAMES, b"".join(map(encode, replies)))
        session.destination.announce()

    async def _plain(
        self,
        name: str,
        headers: Mapping[bytes, bytes],
        settings: Settings,
        receive: Receive,
        send: Send,
        allowed: str | None,
        peer: bytes,
    ) -> None:
        gate = self.gate
        if gate.mode(name) is None:
            raise Problem(404, "no-receiver", f"nobody receives {name!r} at {gate.where}")
        try:
            body = _whole(headers, await self._body(receive, settings, None))
        except _Gone:
            return
        posted = read_post(headers, body, key_scope=b"\0".join((name.encode(), peer)))
        accepted, duplicates = gate.offer(name, posted, peer)
        more = [] if allowed is None else [(b"access-control-allow-origin", allowed.encode()), (b"vary", b"origin")]
        said = msgspec.json.encode({"destination": name, "accepted": accepted, "duplicates": duplicates})
        await _reply(send, 202, "application/json", said, more)
        gate.announce(name)

    # --- streams ------------------------------------------------------------------------------------------------

    def _hello(self, name: str, scope: Scope) -> Session:
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        try:
            sender = bytes.fromhex(given.get(PRODUCER, ""))
            hello = Hello(
                sender,
                name,
                Mode(given["mode"]) if "mode" in given else self.gate.mode(name) or Mode.QUEUE,
                given.get("subscription", ""),
                bytes.fromhex(given.get("incarnation", "")),
                _number(given.get("after", "0")),
                _number(given.get("next") or given.get("after", "0")),
                _number(given.get("heartbeat_ms", "1000")),
                lease_ms=_number(given.get("lease_ms", "0")),
            )
            if len(sender) != 16:
                raise ValueError(f"{PRODUCER} is 16 bytes in hexadecimal digits")
        except ValueError as error:
            raise Problem(400, "hello", f"the query of a stream cannot be read: {error}") from error
        try:
            return self.gate.hello(name, hello, scope.get("simlink.peer", b""))
        except FrameError as error:
            kind = "no-receiver" if error.code is Code.NO_RECEIVER else "hello"
            raise Problem(_STATUS.get(error.code, 400), kind, str(error)) from error

    async def _stream(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what is put into a session until it has ended, or its reader has gone."""
        woken = asyncio.Event()
        session.wake = woken.set
        gone = asyncio.create_task(_until_gone(receive, woken))
        # Told to our own server, which else may take this for a connection that does nothing.
        scope.get("simlink.keep", lambda: None)()
        try:
            headers = [
                (b"content-type", FRAMES.encode()),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
                (SESSION.encode(), session.token.encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while not gone.done():
                woken.clear()
                if session.out:
                    data = bytes(session.out)
                    session.out.clear()
                    if session.ended:
                        # Whoever does not read its last words is not waited for.
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LINGER):
                                await send({"type": "http.response.body", "body": data, "more_body": True})
                    else:
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                elif session.ended:
                    break
                else:
                    await woken.wait()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.gate.lost(session)
            session.ended = True
            session.wake = lambda: None
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone


def _who(scope: Scope, headers: Mapping[bytes, bytes]) -> bytes:
    """Who posts; see `plain_scope`."""
    client = scope.get("client")
    return plain_scope(
        scope.get("simlink.peer", b""), headers.get(b"authorization", b""), client[0] if client is not None else ""
    )


class _Gone(Exception):
    """The client has closed the connection; nobody is there to tell."""


async def _until_gone(receive: Receive, woken: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    woken.set()


async def _discard(receive: Receive) -> None:
    left = _MAX_DISCARDED
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARDING):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _reply(
    send: Send, status: int, content_type: str, body: bytes, more: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _preflight(send: Send, allowed: str) -> None:
    headers = [
        (b"access-control-allow-origin", allowed.encode()),
        (b"access-control-allow-methods", b"POST"),
        (b"access-control-allow-headers", b"authorization, content-type, idempotency-key, simlink-key"),
        (b"access-control-max-age", b"600"),
        (b"vary", b"origin"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _check_origin(settings: Settings, headers: Mapping[bytes, bytes]) -> str | None:
    """The origin to allow in the reply; None where no web page asks, or one of this host.

    A page from anywhere can make a browser post to an address on its user's machine, so pages are refused unless they
    are named (CSRF, and DNS rebinding where the receiver listens on loopback).
    """
    raw = headers.get(b"origin")
    if raw is None:
        return None
    origin = raw.decode("latin-1")
    if origin in settings.origins or "*" in settings.origins:
        return origin
    if origin.partition("://")[2] == headers.get(b"host", b"").decode("latin-1") != "":
        return None
    raise Problem(403, "origin", f"pages of {origin!r} may not post here (origins=)")


def _check_credentials(settings: Settings, headers: Mapping[bytes, bytes]) -> None:
    if settings.authorization is None:
        return
    given = headers.get(b"authorization", b"")
    scheme = settings.authorization.partition(" ")[0]
    kind, _, secret = given.partition(b" ")
    # The scheme is case-insensitive; the rest is compared in constant time.
    if kind.lower() != scheme.lower().encode() or not hmac.compare_digest(
        secret.strip(), settings.authorization.partition(" ")[2].encode()
    ):
        what = "are missing" if not given else "are wrong"
        raise Problem(
            401, "credentials", f"the credentials {what}", headers=(("www-authenticate", f'{scheme} realm="simlink"'),)
        )


def _route(scope: Scope) -> tuple[str, bool]:
    """The destination, and whether its settlements are asked for."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root):
        path = path[len(root) :]
    name, slash, last = path.strip("/").rpartition("/")
    if slash and last == SETTLED:
        return name, True
    return path.strip("/"), False


def _fits(headers: Mapping[bytes, bytes], settings: Settings) -> bool:
    """Whether the length that a request announces, if it does, is within the bound."""
    value = headers.get(b"content-length", b"0")
    if not value.isdigit():
        raise Problem(400, "header", "Content-Length is a number")
    return len(value) <= 18 and int(value) <= settings.max_body_bytes


def _whole(headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """The body, if it is all of what was announced: a server of the user's may drop one (uvicorn with httptools does,
    where a client offers an upgrade), and an empty message is not what was posted."""
    if len(body) < int(headers.get(b"content-length", b"0")):
        raise Problem(400, "body", f"{len(body)} of the {headers[b'content-length'].decode()} bytes of the body came")
    return body


def _too_large(settings: Settings) -> Problem:
    return Problem(
        413,
        "too-large",
        f"the body has more than {settings.max_body_bytes} bytes, the limit here",
        # What is still on its way would be read as the next request.
        headers=(("connection", "close"),),
        limit=settings.max_body_bytes,
    )


def _busy(what: str) -> Problem:
    return Problem(429, "busy", what, headers=(("retry-after", str(RETRY_AFTER)), ("connection", "close")))


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError(f"{number} is not a position")
    return number

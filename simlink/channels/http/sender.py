"""The sending end of http:// to a receiver of simlink's: a link over posts and one stream of settlements.

The stream is the connection: it is opened first, and says with its Welcome what the receiver knows. Each post brings
the frames that were queued while the one before it was under way. Whatever goes wrong with either ends both; what
became of the messages is told by the next Welcome. The caller's thread does the I/O; there is no other.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from simlink.channels.driver import Outcome
from simlink.channels.http.client import BadReply, Connection, Reply
from simlink.channels.http.endpoint import Endpoint, Waiter
from simlink.channels.http.requests import head, request_path
from simlink.channels.http.settings import FRAMES, PRODUCER, SESSION, SETTLED
from simlink.channels.link.sender import SenderLink
from simlink.channels.link.sending import LinkSender
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import (
    Accept,
    Bye,
    Code,
    ErrorFrame,
    Frame,
    FrameError,
    Heartbeat,
    Returned,
    Settle,
    Subscribed,
    Welcome,
)
from simlink.channels.wire.framing import FrameReader, read_frames
from simlink.errors import ConnectError, ConnectTimeout
from simlink.message import Batch

if TYPE_CHECKING:
    from simlink.channels.http.driver import HttpDriver

__all__ = ["HttpSender"]

_POST_BYTES = 256 * 1024
"""A post takes frames until it has so much."""
_MORE_BYTES = 64 * 1024
"""Another connection is used beside one that is busy when so much waits."""
_LAST_WORDS = 1.0
"""Seconds that a closing sender listens for what it has not heard yet."""


class HttpSender(LinkSender):
    """One stream at a time from the one receiver of the URL."""

    def __init__(self, driver: HttpDriver) -> None:
        self._driver = driver
        self._endpoint = Endpoint(driver)
        self._waiter = Waiter()
        settings = driver.settings
        self._link = SenderLink(
            os.urandom(16),
            driver.destination,
            driver.mode,
            heartbeat_ms=round(settings.heartbeat * 1000),
            max_frame_bytes=settings.max_body_bytes,
            option="max_body_bytes",
        )
        self._path = request_path([*driver.target.path, driver.target.name])
        self._stream: Connection | None = None
        self._posts: list[Connection] = []
        self._reader = FrameReader(settings.max_body_bytes)
        self._head = b""
        self._done: list[Outcome] = []
        self._error: ConnectError | None = None
        self._posted = 0.0
        self._heard = 0.0
        self._beat = settings.heartbeat
        self._closed = False
        self._over = False
        self._opened = 0
        self._bad = 0
        self._requests = 0
        self._signs = 0
        self._beats = 0

    # --- connecting ---------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._drop()
        self._endpoint.find()
        self._endpoint.wait_until_allowed(deadline)
        self._error = None
        self._over = False
        try:
            self._introduce(deadline)
            self._posts.append(self._endpoint.connect(deadline))
        except BaseException:
            self._drop()
            raise
        self._opened += 1

    def _common(self) -> list[tuple[str, str]]:
        driver = self._driver
        credentials = driver.authorization()
        return [
            ("host", driver.host_header(self._endpoint.host, self._endpoint.port)),
            *([] if credentials is None else [("authorization", credentials)]),
        ]

    def _introduce(self, deadline: float) -> None:
        """Ask for the stream, and wait for its Welcome."""
        hello = self._link.hello()
        query = urlencode(
            {
                PRODUCER: hello.sender.hex(),
                "after": hello.low,
                "next": hello.next,
                "incarnation": hello.incarnation.hex(),
                "mode": hello.mode.value,
                "heartbeat_ms": hello.heartbeat_ms,
                **({"lease_ms": hello.lease_ms} if hello.lease_ms else {}),
            }
        )
        common = self._common()
        self._reader = FrameReader(self._driver.settings.max_body_bytes)
        self._stream = stream = self._endpoint.connect(deadline)
        stream.stream = self._reader.feed
        stream.request(head("GET", f"{self._path}/{SETTLED}?{query}", [*common, ("accept", FRAMES)]) + b"\r\n")
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._endpoint.problem(ConnectTimeout, "does not answer")
            self._waiter.wait([stream], left)
            stream.flush()
            try:
                alive = stream.receive()
                frame = self._reader.next_frame()
            except (BadReply, FrameError) as error:
                self._bad += 1
                raise self._endpoint.problem(ConnectError, f"is not a receiver: {error}", retryable=False) from error
            reply = stream.started or (stream.replies[0] if stream.replies else None)
            if reply is not None and reply.status != 200:
                if stream.replies:
                    raise self._refused(reply)
            elif reply is not None and reply.content_type != FRAMES:
                raise self._endpoint.problem(
                    ConnectError, f"is not a receiver: it streams {reply.content_type!r}", retryable=False
                )
            elif frame is not None and reply is not None:
                self._welcome(frame, reply, common)
                return
            if not alive:
                hint = " after TLS was agreed; it may not trust our certificate" if self._driver.secure else ""
                raise self._endpoint.untrusted(stream.error) or self._endpoint.problem(
                    ConnectError, f"closed the connection{hint}"
                )

    def _welcome(self, frame: Frame, reply: Reply, common: list[tuple[str, str]]) -> None:
        session = reply.headers.get(SESSION, "")
        if not isinstance(frame, Welcome) or not session.isalnum():
            self._bad += 1
            raise self._endpoint.problem(ConnectError, "is not a receiver: no Welcome", retryable=False)
        try:
            self._done += self._link.welcome(frame)
        except FrameError as error:
            self._bad += 1
            raise self._endpoint.problem(ConnectError, f"makes no sense: {error}", retryable=False) from error
        self._beat = max(0.01, min(self._driver.settings.heartbeat, frame.heartbeat_ms / 1000))
        self._heard = time.monotonic()
        headers = [*common, ("content-type", FRAMES), (SESSION, session)]
        self._head = head("POST", self._path, headers) + b"content-length: %d\r\n\r\n"

    def _refused(self, reply: Reply) -> ConnectError:
        asked = self._endpoint.hold_off(reply)
        later = asked or reply.status in {404, 408, 429} or reply.status >= 500
        return self._endpoint.refused(reply, "refuses a stream", retryable=later)

    def _drop(self) -> None:
        """Close the connections; what was in flight is the next Welcome's to tell."""
        self._link.lost()
        for connection in self._connections():
            connection.close()
        self._stream = None
        self._posts = []

    def _connections(self) -> list[Connection]:
        return [*self._posts] if self._stream is None else [self._stream, *self._posts]

    def _lost(self, error: ConnectError, cause: Exception | None = None) -> None:
        self._drop()
        if self._error is None:
            self._error = error
            self._error.__cause__ = cause

    def _raise_lost(self) -> None:
        if self._error is not None:
            error = self._error
            raise ConnectError(
                str(error), url=error.url, endpoint=error.endpoint, retryable=error.retryable
            ) from error.__cause__
        if self._stream is None:
            raise self._endpoint.problem(ConnectError, "is not connected")

    # --- sending ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, position: int) -> None:
        self._link.submit(batch, position)
        if self._stream is None:
            self._raise_lost()
        if not any(connection.idle for connection in self._posts):
            self._read()
        self._post()

    def _post(self) -> None:
        """Post what is queued, as far as credit and connections go."""
        link = self._link
        while link.sendable():
            connection = self._idle_connection()
            if connection is None:
                return
            data = link.produce(self._done)
            if data is None:
                return
            parts = [data]
            size = len(data)
            while size < _POST_BYTES and (more := link.produce(self._done)) is not None:
                parts.append(more)
                size += len(more)
            self._send(connection, b"".join(parts))

    def _idle_connection(self) -> Connection | None:
        for connection in self._posts:
            if connection.idle:
                return connection
        self._posts = [connection for connection in self._posts if not connection.closed]
        if self._posts and (len(self._posts) >= self._driver.connections or self._link.queued_bytes < _MORE_BYTES):
            return None
        try:
            connection = self._endpoint.connect(time.monotonic() + self._driver.settings.dead)
        except ConnectError as error:
            self._lost(error, error)
            return None
        self._posts.append(connection)
        return connection

    def _send(self, connection: Connection, data: bytes) -> None:
        self._posted = time.monotonic()
        self._requests += 1
        connection.request(self._head % len(data) + data)
        if connection.closed:
            self._over_with(connection)

    # --- hearing ------------------------------------------------------------------------------------------------

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        if not self._done:
            if self._closed:
                return ()
            self._raise_lost()
            self._post()
        wait = timeout if timeout > 0 and not self._done else 0.0
        if self._stream is not None:
            # No longer than until the next heartbeat is due.
            self._read(min(wait, max(self._posted + self._beat - time.monotonic(), 0.001)))
        if self._stream is not None:
            self._post()
            self._tend()
        done, self._done = self._done, []
        if not done and not self._closed:
            self._raise_lost()
        return done

    def _read(self, timeout: float = 0.0) -> None:
        """Take in what has come, waiting for it up to ``timeout`` seconds."""
        self._waiter.wait(self._connections(), timeout)
        self._read_posts()
        stream = self._stream
        if stream is not None and stream.ready:
            self._read_stream()

    def _read_posts(self) -> None:
        for connection in list(self._posts):
            if not connection.ready:
                continue
            connection.flush()
            try:
                connection.receive()
                while connection.replies:
                    self._take_reply(connection.replies.popleft())
            except (BadReply, FrameError) as error:
                self._bad += 1
                self._lost(self._endpoint.problem(ConnectError, f"sent what cannot be understood: {error}"), error)
            if self._stream is None:
                return
            if connection.closed:
                self._over_with(connection)

    def _over_with(self, connection: Connection) -> None:
        """A connection for posts has ended. Between two requests that costs nothing."""
        if connection.waiting:
            # What the receiver said before it closed is worth hearing: it may say that, and what, it gave back.
            self._read_stream()
            self._lost(self._endpoint.problem(ConnectError, "broke the connection"), connection.error)
        elif connection in self._posts:
            connection.close()
            self._posts.remove(connection)

    def _take_reply(self, reply: Reply) -> None:
        if reply.status != 202 or reply.content_type != FRAMES:
            # Before the session was ended its stream has said why, and what was given back.
            self._read_stream()
            if self._stream is not None:
                self._lost(self._refused_post(reply))
            return
        for frame in read_frames(bytes(reply.body), self._driver.settings.max_body_bytes):
            self._take(frame)

    def _refused_post(self, reply: Reply) -> ConnectError:
        asked = self._endpoint.hold_off(reply)
        later = asked or reply.status in {404, 408, 409, 429} or reply.status >= 500
        return self._endpoint.refused(reply, "refuses a post", retryable=later)

    def _read_stream(self) -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            alive = stream.receive()
            while (frame := self._reader.next_frame()) is not None:
                self._heard = time.monotonic()
                self._take(frame)
                if self._stream is None:
                    return
        except (BadReply, FrameError) as error:
            self._bad += 1
            self._lost(self._endpoint.problem(ConnectError, f"sent what cannot be understood: {error}"), error)
            return
        if not alive or stream.replies:
            self._lost(self._endpoint.problem(ConnectError, "ended the stream of settlements"), stream.error)

    def _take(self, frame: Frame) -> None:
        self._signs += 1
        if isinstance(frame, Settle | Returned):
            # It comes by another way than the acceptance of the same positions, which it may overtake, and implies.
            stop = _highest(frame)
            if stop:
                self._done += self._link.receive(Accept(stop, 0, 0))
            self._done += self._link.receive(frame)
        elif isinstance(frame, Accept | Subscribed):
            self._done += self._link.receive(frame)
        elif isinstance(frame, ErrorFrame):
            if frame.code is Code.CLOSING:
                self._done += self._link.closing()
            retryable = frame.retryable or frame.code is Code.TIMEOUT
            self._lost(self._endpoint.problem(ConnectError, f"ended the link: {frame.message}", retryable=retryable))
        elif isinstance(frame, Heartbeat):
            self._beats += 1
        else:
            raise FrameError(f"a {type(frame).__name__} is not for a receiver to say now")

    def _tend(self) -> None:
        """Heartbeats, and silence."""
        if self._stream is None:
            return
        now = time.monotonic()
        if now - self._posted >= self._beat:
            connection = self._idle_connection()
            if connection is not None:
                self._send(connection, encode(self._link.heartbeat()))
        if self._stream is None:
            return
        # What had come was read just before, so this is not our own pause.
        settings = self._driver.settings
        if now - self._heard > settings.dead:
            self._lost(self._endpoint.problem(ConnectError, f"was silent for {settings.dead:g} s"))
        elif any(c.waiting and now - c.asked > self._driver.request_timeout for c in self._posts):
            what = f"did not answer a post within {self._driver.request_timeout:g} s"
            self._lost(self._endpoint.problem(ConnectError, what))

    def wake(self) -> None:
        self._waiter.wake()

    @property
    def idle_interval(self) -> float:
        return min(0.25, self._beat / 3)

    # --- in a pool ----------------------------------------------------------------------------------------------

    def waits_for(self) -> Sequence[tuple[int, int]]:
        return [
            (c.sock.fileno(), select.POLLIN | (select.POLLOUT if c.out else 0))
            for c in self._connections()
            if not c.closed
        ]

    def rest(self) -> float:
        return max(self._posted + self._beat - time.monotonic(), 0.005)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._finish(time.monotonic() + timeout)
        finally:
            self._drop()
            self._waiter.close()

    def _finish(self, deadline: float) -> None:
        """Send the rest, say goodbye, and listen for the last settlements until the stream ends."""
        link = self._link
        left = 0.0
        while self._stream is not None:
            self._read(min(left, 0.1))
            if self._stream is not None:
                self._post()
            left = deadline - time.monotonic()
            if left <= 0 or not (link.sendable() or any(c.waiting for c in self._posts)):
                break
        connection = None if self._stream is None else self._idle_connection()
        if connection is None:
            return
        self._send(connection, encode(Bye()))
        until = min(deadline, time.monotonic() + _LAST_WORDS)
        while self._stream is not None and (left := until - time.monotonic()) > 0:
            self._read(left)

    @property
    def native(self) -> Any:
        """The socket of the stream, or None."""
        return None if self._stream is None else self._stream.sock

    def stats(self) -> Mapping[str, Any]:
        link = self._link
        return {
            "endpoint": self._endpoint.shown,
            "queued": link.queued,
            "queued_bytes": link.queued_bytes,
            "unaccepted": link.next - link.accepted,
            "posts": self._requests,
            "connections": len(self._posts),
            "connects": self._opened,
            "bad_frames": self._bad,
        }


def _highest(frame: Settle | Returned) -> int:
    """One above the highest link position that a frame speaks of."""
    if isinstance(frame, Settle):
        return max([frame.below, *(stop for _, stop in frame.settled), *(stop for _, stop in frame.rejected)])
    return max([stop for _, stop in (*frame.fresh, *frame.handed)], default=0)

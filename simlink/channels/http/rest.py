"""Plain REST: one request a record, to any endpoint. Replies are outcomes; nothing is received or settled.

What surely was not done comes back to be sent again: a connection that failed before anything was written, 429, and
503 with Retry-After. What may have been done is of unknown fate, unless ``retry="always"`` asks to send it again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

from simlink.channels.driver import Outcome, OutcomeKind, SenderDriver
from simlink.channels.http.client import BadReply, Connection, Reply
from simlink.channels.http.endpoint import Endpoint, Waiter
from simlink.channels.http.problem import read_problem
from simlink.channels.http.requests import checked_header, head, request_path
from simlink.channels.http.settings import KEY
from simlink.channels.identity import format_identities
from simlink.errors import ConnectError, SendError
from simlink.message import EMPTY_HEADERS, Batch, Same

if TYPE_CHECKING:
    from simlink.channels.http.driver import HttpDriver

__all__ = ["RestSender"]

_TURN = 0.002
"""Seconds that a look for outcomes may go on while records wait: else each would wait for the next look."""
_PAUSE = 1.0
"""Seconds until a server that says "too many" and not for how long is asked again."""


class _Waiting:
    """A submitted batch, as far as it was not written yet."""

    __slots__ = ("batch", "ids", "position", "row")

    def __init__(self, batch: Batch, position: int, ids: Sequence[bytes | None]) -> None:
        self.batch = batch
        self.position = position
        self.ids = ids
        self.row = 0


class RestSender(SenderDriver):
    """Some connections to the one endpoint of the URL, each with one request under way at a time."""

    def __init__(self, driver: HttpDriver) -> None:
        self._driver = driver
        self._endpoint = Endpoint(driver)
        self._waiter = Waiter()
        self._target = driver.path or request_path([*driver.target.path, driver.target.name])
        self._connections: dict[Connection, int] = {}  # → the position that is under way, or -1
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._done: list[Outcome] = []
        self._error: ConnectError | None = None
        self._prefix = b""
        self._fixed: frozenset[str] = frozenset()
        self._closed = False
        self._requests = 0
        self._statuses: dict[str, int] = {}

    # --- connecting ---------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._endpoint.find()
        self._error = None
        driver = self._driver
        given = {name.lower() for name, _ in driver.headers}
        credentials = None if "authorization" in given else driver.authorization()
        headers = [
            ("host", driver.host_header(self._endpoint.host, self._endpoint.port)),
            *([] if credentials is None else [("authorization", credentials)]),
            *([] if "user-agent" in given else [("user-agent", "simlink")]),
            *([] if "accept" in given else [("accept", "*/*")]),
            *driver.headers,
        ]
        self._prefix = head(driver.method, self._target, headers)
        self._fixed = frozenset({name.lower() for name, _ in headers} | {"content-type", "idempotency-key"})
        self._typed = "content-type" in given
        if not self._connections:
            self._connections[self._endpoint.connect(deadline)] = -1

    _typed = False

    def _lost(self, error: ConnectError) -> None:
        """Nobody can be reached: what was not written comes back."""
        self._error = error
        self._give_back()

    def _give_back(self) -> None:
        for waiting in self._queue:
            first, stop = waiting.position + waiting.row, waiting.position + len(waiting.batch)
            self._report(OutcomeKind.RETURNED, first, stop)
        self._queue.clear()
        self._queued = 0

    def _raise_lost(self) -> None:
        if self._error is not None:
            error = self._error
            raise ConnectError(
                str(error), url=error.url, endpoint=error.endpoint, retryable=error.retryable
            ) from error.__cause__

    def _report(
        self, kind: OutcomeKind, first: int, stop: int, *, ambiguous: bool = False, error: Exception | None = None
    ) -> None:
        if error is None and self._done:
            last = self._done[-1]
            if last.kind is kind and last.stop == first and last.ambiguous is ambiguous and last.error is None:
                self._done[-1] = Outcome(kind, last.first, stop, ambiguous=ambiguous)
                return
        self._done.append(Outcome(kind, first, stop, ambiguous=ambiguous, error=error))

    # --- sending ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, position: int) -> None:
        n = len(batch)
        ids: Sequence[bytes | None] = Same(None, n)
        if self._driver.identity:
            ids = format_identities(batch.producers, batch.sequences, batch.timestamps)
        self._queue.append(_Waiting(batch, position, ids))
        self._queued += n
        if self._error is not None:
            self._lost(self._error)
            self._raise_lost()
        self._write()

    def _write(self) -> None:
        """Begin a request on every connection that is free."""
        while self._queue and self._error is None and time.monotonic() >= self._endpoint.not_before:
            connection = self._free()
            if connection is None:
                return
            waiting = self._queue[0]
            row = waiting.row
            position = waiting.position + row
            waiting.row += 1
            self._queued -= 1
            if waiting.row == len(waiting.batch):
                self._queue.popleft()
            try:
                data = self._compose(waiting, row)
            except ValueError as error:
                self._report(
                    OutcomeKind.FAILED,
                    position,
                    position + 1,
                    error=SendError(f"a message cannot be sent over HTTP: {error}"),
                )
                continue
            self._requests += 1
            self._connections[connection] = position
            connection.request(data)
            if connection.closed:
                self._broke(connection)

    def _free(self) -> Connection | None:
        for connection, position in list(self._connections.items()):
            if position >= 0:
                continue
            # A server closes what is idle; written to, such a connection would leave the record's fate open.
            try:
                connection.receive()
            except BadReply:
                connection.close()
            if not connection.closed:
                return connection
            self._drop(connection)
        if len(self._connections) >= self._driver.connections:
            return None
        try:
            connection = self._endpoint.connect(time.monotonic() + self._driver.request_timeout)
        except ConnectError as error:
            if not self._connections:
                self._lost(error)
            return None
        self._connections[connection] = -1
        return connection

    def _compose(self, waiting: _Waiting, row: int) -> bytes:
        batch = waiting.batch
        parts = [self._prefix]
        content_type = batch.content_types[row]
        if content_type and not self._typed:
            parts.append(b"content-type: %b\r\n" % content_type.encode())
        name = waiting.ids[row]
        if name is not None:
            parts.append(b'idempotency-key: "%b"\r\n' % name)
        key = batch.keys[row]
        if key is not None:
            parts.append(f"{KEY}: {quote_from_bytes(key)}\r\n".encode())
        headers = batch.headers[row]
        if headers is not EMPTY_HEADERS:
            for given, value in headers.items():
                checked_header(given, value)
                if given.lower() in self._fixed:
                    raise ValueError(f"the header {given!r} is set for all messages")
                parts.append(f"{given}: {value}\r\n".encode())
        body = batch.bodies[row]
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
        return b"".join(parts)

    # --- hearing ------------------------------------------------------------------------------------------------

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        if self._closed:
            return self._take()
        started = time.monotonic()
        until = started + max(timeout, 0.0)
        while True:
            self._look()
            self._write()
            now = time.monotonic()
            if self._done and (not self._queue or now - started >= _TURN):
                break
            if not self._done and self._error is not None:
                break
            left = until - now
            if self._queue:
                left = max(left, started + _TURN - now)
            if left <= 0 or not (self._queue or self._under_way()):
                if timeout > 0 and left > 0:
                    self._waiter.wait(self._connections, left)
                    self._look()
                break
            held_off = self._endpoint.not_before - now
            if self._queue and held_off > 0:
                left = min(left, held_off)
            if self._waiter.wait(self._connections, left):
                self._look()
                break
        done = self._take()
        if not done:
            self._raise_lost()
        return done

    def _take(self) -> list[Outcome]:
        done, self._done = self._done, []
        return done

    def _under_way(self) -> bool:
        return any(position >= 0 for position in self._connections.values())

    def _look(self) -> None:
        now = time.monotonic()
        for connection, position in list(self._connections.items()):
            if position < 0:
                continue
            connection.flush()
            try:
                connection.receive()
            except BadReply as error:
                self._broke(connection, error)
                continue
            if connection.replies:
                reply = connection.replies.popleft()
                self._connections[connection] = -1
                self._judge(reply, position)
                if not reply.keep or connection.closed:
                    self._drop(connection)
            elif connection.closed:
                self._broke(connection)
            elif now - connection.asked > self._driver.request_timeout:
                self._broke(connection, TimeoutError(f"no reply within {self._driver.request_timeout:g} s"))

    def _judge(self, reply: Reply, position: int) -> None:
        """What a reply says of its record (RFC 9110, 15)."""
        status = reply.status
        self._statuses[f"{status // 100}xx"] = self._statuses.get(f"{status // 100}xx", 0) + 1
        if 200 <= status < 300:
            self._report(OutcomeKind.CONFIRMED, position, position + 1)
            return
        if status == 429 or (status == 503 and "retry-after" in reply.headers):
            self._endpoint.hold_off(reply, _PAUSE)
            self._report(OutcomeKind.RETURNED, position, position + 1)
            # With what waits behind it: the layer above sends it all again in its order.
            self._give_back()
            return
        said = read_problem(reply.content_type, bytes(reply.body))
        where = reply.headers.get("location")
        said = said or (f"it is at {where!r}; redirections are not followed" if where and status < 400 else "")
        text = f"{self._driver.method} {self._endpoint.shown}{self._target} was answered by {status}"
        error = SendError(text + (f": {said}" if said else ""), endpoint=self._endpoint.shown)
        if status >= 500:
            self._doubt(position, error)
        else:
            self._report(OutcomeKind.FAILED, position, position + 1, error=error)

    def _doubt(self, position: int, error: Exception) -> None:
        """Whether the record was taken, nobody knows."""
        if self._driver.retry_always:
            self._endpoint.not_before = max(self._endpoint.not_before, time.monotonic() + _PAUSE)
            self._report(OutcomeKind.RETURNED, position, position + 1, ambiguous=True)
        else:
            self._report(OutcomeKind.UNKNOWN, position, position + 1, error=error)

    def _broke(self, connection: Connection, cause: Exception | None = None) -> None:
        """A connection ended with a request under way."""
        position = self._connections[connection]
        written = connection.written
        cause = cause or connection.error
        self._drop(connection)
        if position < 0:
            return
        if not written:
            self._report(OutcomeKind.RETURNED, position, position + 1)
            return
        error = SendError(
            f"{self._endpoint.shown} broke the connection before it answered" + (f": {cause}" if cause else ""),
            endpoint=self._endpoint.shown,
        )
        error.__cause__ = cause
        self._doubt(position, error)

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        connection.close()

    def wake(self) -> None:
        self._waiter.wake()

    def withdraw(self) -> Sequence[Outcome]:
        """What no request was begun for goes elsewhere; of the others nobody knows whether they were taken."""
        self._look()
        for connection in list(self._connections):
            self._broke(connection, TimeoutError("it was silent for too long"))
        self._give_back()
        return self._take()

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        deadline = time.monotonic() + timeout
        try:
            while (self._queue or self._under_way()) and self._error is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._look()
                self._write()
                if self._under_way() or self._queue:
                    self._waiter.wait(self._connections, min(left, 0.1))
        finally:
            self._closed = True
            for connection in list(self._connections):
                self._drop(connection)
            self._waiter.close()

    @property
    def native(self) -> Any:
        """The sockets of its connections."""
        return [connection.sock for connection in self._connections]

    def stats(self) -> Mapping[str, Any]:
        return {
            "endpoint": self._endpoint.shown,
            "queued": self._queued,
            "requests": self._requests,
            "connections": len(self._connections),
            "connects": self._endpoint.connects,
            "replies": dict(self._statuses),
            "held_off": max(0.0, self._endpoint.not_before - time.monotonic()),
        }

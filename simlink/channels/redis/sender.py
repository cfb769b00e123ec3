"""The sending end: batches in, one script call each, ranges of confirmed positions out.

A call is idempotent. Beside the streams stands a record of this sender: the epoch of its connection and the last
position that was appended. After a connection broke, the next one takes the record over with a new epoch: from that
moment a call which the old connection left somewhere on the way is refused, so what the record says of the calls in
flight is final. Nothing is appended twice, and nothing is unknown, unless the server lost the record itself.

Two calls are on the way at a time. What is submitted meanwhile waits, and single messages leave together.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from simlink.channels.driver import Outcome, OutcomeKind, SenderDriver
from simlink.channels.redis.failures import Lost, Refusal, connect_failure, is_transient, send_failure
from simlink.channels.redis.layout import check_streams
from simlink.channels.redis.packing import MOST_HEADERS, RECORD_LIFE, append_command
from simlink.channels.redis.scripts import APPEND, FENCE
from simlink.channels.redis.settings import Address, Settings
from simlink.channels.redis.wire import NOTHING, Waker, Wire, connect
from simlink.errors import SendError, StateError
from simlink.message import Batch, Same

__all__ = ["RedisSender"]

ROWS = 1000
"""The most rows of one call: the server does nothing else meanwhile (2 ms)."""
BYTES = 1_048_576
"""The same in bytes, but for a single larger message."""
DEPTH = 2
"""Calls on the way at once: one is worked on while the other is made or read."""


class RedisSender(SenderDriver):
    """Made by `RedisDriver.sender`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._record = settings.companion("sender", secrets.token_hex(16)).encode()
        self._keys = [key.encode() for key in settings.keys]
        self._waker = Waker()
        self._wire: Wire | None = None
        self._epoch = 0
        self._flying: deque[tuple[int, int, float]] = deque()  # (first, stop, since when) of each call on the way
        self._waiting: deque[tuple[int, Batch]] = deque()
        self._ready: list[Outcome] = []
        self._broken: SendError | None = None
        self._calls = 0
        self._reopened = 0
        self._closed = False

    # --- SenderDriver -------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._drop()
        wire = connect(self._settings.address, timeout)
        epoch = self._epoch + 1
        try:
            left = max(0.05, deadline - time.monotonic())
            if epoch == 1:
                check_streams(wire, self._settings, left)
            there, last = wire.call_many(
                [
                    ("SCRIPT", "LOAD", APPEND.source),
                    ("EVAL", FENCE.source, 1, self._record, epoch, RECORD_LIFE),
                ],
                timeout=left,
            )[1]
        except (Lost, Refusal, OSError) as error:
            wire.close()
            raise connect_failure(error, url=self._settings.url, endpoint=wire.endpoint) from error
        except BaseException:
            wire.close()
            raise
        self._sort_out(known=bool(there), last=int(last))
        self._wire, self._epoch, self._broken = wire, epoch, None
        self._reopened += epoch > 1

    def submit(self, batch: Batch, position: int) -> None:
        if self._closed or (self._wire is None and self._broken is None):
            raise StateError("this Redis sender is not open")
        self._admit(batch, position)
        if self._broken is None and len(self._flying) >= DEPTH:
            self._look()  # an answer that is here makes room for the next call
        if self._broken is not None:
            raise self._broken
        self._feed()

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        deadline = time.monotonic() + timeout
        if timeout <= 0 and self._wire is not None and self._broken is None:
            self._look()  # nothing is waited for below, and nothing would be read
        while True:
            self._read()
            if self._ready:
                out, self._ready = self._ready, []
                return out
            if self._broken is not None:
                raise self._broken
            left = deadline - time.monotonic()
            if left <= 0 or self._waker.clear():
                return []
            wire = self._wire
            if wire is None:
                self._waker.wait(left)
                continue
            try:
                wire.wait(left, self._waker)
            except Lost as error:
                self._break(error)

    def wake(self) -> None:
        self._waker.set()

    @property
    def idle_interval(self) -> float:
        return float("inf")  # nothing is to be kept alive; a lost connection is noticed by the next call

    def waits_for(self) -> Sequence[tuple[int, int]]:
        wire = self._wire
        return () if wire is None or self._broken is not None else (wire.waits_for(),)

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        wire = self._wire
        try:
            while wire is not None and self._broken is None and (self._flying or self._waiting):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                wire.wait(left)
                self._read()
            if wire is not None and self._broken is None and not self._flying:
                wire.call("DEL", self._record, timeout=max(0.05, min(1.0, deadline - time.monotonic())))
        except (Lost, Refusal):
            pass  # the record expires by itself
        finally:
            self._drop()
            self._waker.close()

    @property
    def native(self) -> Any:
        return native_client(self._settings.address)

    def stats(self) -> Mapping[str, Any]:
        return {
            "calls": self._calls,
            "in_flight": sum(stop - first for first, stop, _ in self._flying),
            "waiting": sum(len(batch) for _, batch in self._waiting),
            "reopened": self._reopened,
        }

    # --- the inside ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read what came, without waiting."""
        assert self._wire is not None
        try:
            self._wire.wait(0.0)
        except Lost as error:
            self._break(error)
        else:
            self._read()

    def _admit(self, batch: Batch, position: int) -> None:
        """Queue what a script can append, and refuse the rest."""
        headers = batch.headers
        if isinstance(headers, Same):
            bad = list(range(len(batch))) if len(headers.value) > MOST_HEADERS else []
        else:
            bad = [row for row, own in enumerate(headers) if len(own) > MOST_HEADERS]
        start = 0
        for row in bad:
            error = SendError(
                f"{self._settings.url}: a message has {len(headers[row])} headers, the limit is {MOST_HEADERS}",
                url=self._settings.url,
            )
            self._ready.append(Outcome(OutcomeKind.FAILED, position + row, position + row + 1, error=error))
            if row > start:
                self._waiting.append((position + start, batch[start:row]))
            start = row + 1
        if start < len(batch):
            self._waiting.append((position + start, batch[start:] if start else batch))

    def _feed(self) -> None:
        """Make calls of what waits, as many as may be on the way."""
        wire = self._wire
        assert wire is not None
        try:
            while self._waiting and len(self._flying) < DEPTH:
                first, batch = self._next()
                command = append_command(
                    batch,
                    first,
                    record=self._record,
                    keys=self._keys,
                    epoch=b"%d" % self._epoch,
                    retention=self._settings.retention,
                    identity=self._settings.identity,
                )
                self._flying.append((first, first + len(batch), time.monotonic()))
                self._calls += 1
                wire.send(command)
        except Lost as error:
            self._break(error)
            assert self._broken is not None
            raise self._broken from error

    def _next(self) -> tuple[int, Batch]:
        """The rows of the next call: a part of what waits first, or several that are small together."""
        waiting = self._waiting
        first, batch = waiting.popleft()
        if len(batch) > ROWS or (batch.nbytes > BYTES and len(batch) > 1):
            rows = min(ROWS, max(1, len(batch) * BYTES // max(1, batch.nbytes)), len(batch) - 1)
            waiting.appendleft((first + rows, batch[rows:]))
            return first, batch[:rows]
        if not waiting:
            return first, batch
        parts, rows, size = [batch], len(batch), batch.nbytes
        while waiting:
            position, more = waiting[0]
            if position != first + rows or rows + len(more) > ROWS or size + more.nbytes > BYTES:
                break
            waiting.popleft()
            parts.append(more)
            rows, size = rows + len(more), size + more.nbytes
        return first, Batch.concat(parts)

    def _read(self) -> None:
        wire = self._wire
        if wire is None:
            return
        try:
            while self._flying:
                reply = wire.next()
                if reply is NOTHING:
                    since = self._flying[0][2]
                    if time.monotonic() - since > self._settings.address.request_timeout:
                        raise Lost(f"{wire.endpoint} did not answer for {time.monotonic() - since:.1f} s")
                    break
                first, stop, _ = self._flying.popleft()
                if isinstance(reply, Refusal):
                    self._refused(reply, first, stop)
                    return
                self._ready.append(Outcome(OutcomeKind.CONFIRMED, first, stop))
            if self._waiting and len(self._flying) < DEPTH:
                self._feed()
        except Lost as error:
            self._break(error)
        except SendError:
            pass  # noted by _break, told by the next call

    def _refused(self, reply: Refusal, first: int, stop: int) -> None:
        """An error reply. Whatever it is, the record is asked before anything else is sent."""
        text = str(reply)
        if reply.code == "SIMLINKROW":
            _, row, text = text.split(" ", 2)
            refusal = Refusal(text)
            if first < first + int(row):
                self._ready.append(Outcome(OutcomeKind.CONFIRMED, first, first + int(row)))
                first += int(row)
        else:
            refusal = reply
        if is_transient(refusal) or reply.code == "SIMLINKSTOPPED":
            self._flying.appendleft((first, stop, time.monotonic()))
        else:
            error = send_failure(refusal, url=self._settings.url)
            self._ready.append(Outcome(OutcomeKind.FAILED, first, stop, error=error))
        self._break(refusal)

    def _break(self, cause: Exception) -> None:
        self._broken = send_failure(cause, url=self._settings.url, retryable=True)

    def _sort_out(self, *, known: bool, last: int) -> None:
        """What was in flight when the connection broke, by what the server has of it."""
        for first, stop, _ in self._flying:
            done = min(max(first, last + 1), stop)
            if done > first:
                self._ready.append(Outcome(OutcomeKind.CONFIRMED, first, done))
            if done < stop:
                # Without its record the server cannot say.
                self._ready.append(Outcome(OutcomeKind.RETURNED, done, stop, ambiguous=not known))
        self._flying.clear()
        for position, batch in self._waiting:
            self._ready.append(Outcome(OutcomeKind.RETURNED, position, position + len(batch)))
        self._waiting.clear()

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


def native_client(address: Address) -> Any:
    """A redis-py client of the same server, for what simlink does not cover. It belongs to the caller."""
    from redis import Redis

    host, port = address.hosts[0]
    user, password = address.login.get() or (None, None)
    more: dict[str, Any] = {}
    if address.tls is not None:
        more = {
            "ssl": True,
            "ssl_ca_certs": address.tls.ca,
            "ssl_certfile": address.tls.cert,
            "ssl_keyfile": address.tls.key,
        }
    return Redis(host=host, port=port, db=address.database, username=user, password=password, **more)

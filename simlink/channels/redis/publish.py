"""Publishing: PUBLISH for every message, packed by template, two batches of answers on the way at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from simlink.channels.driver import Outcome, OutcomeKind, SenderDriver
from simlink.channels.redis.failures import Lost, Refusal, is_transient, send_failure
from simlink.channels.redis.sender import native_client
from simlink.channels.redis.settings import Address
from simlink.channels.redis.wire import NOTHING, Waker, Wire, connect
from simlink.errors import SendError, StateError
from simlink.message import Batch

__all__ = ["Publisher", "publish_command"]


def publish_command(channel: bytes, bodies: Sequence[bytes]) -> bytes:
    """The packed PUBLISH of every body."""
    head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n" % (len(channel), channel)
    # A percent sign in the name would be one of the template's.
    template = head.replace(b"%", b"%%") + b"$%d\r\n%b\r\n"
    return b"".join([template % (len(body), body) for body in bodies])


class Publisher(SenderDriver):
    """Made by `RedisPubSubDriver.sender`.

    What was on the way when a connection broke may have been published or not. It is reported as unknown and never sent
    again: at most once.
    """

    def __init__(self, address: Address, channel: str) -> None:
        self._address = address
        self._channel = channel.encode()
        self._waker = Waker()
        self._wire: Wire | None = None
        self._flying: deque[tuple[int, int, float]] = deque()  # (next answer's position, stop, since when)
        self._ready: list[Outcome] = []
        self._broken: SendError | None = None
        self._receivers = 0
        self._unrouted = 0
        self._closed = False

    def open(self, timeout: float) -> None:
        self._drop()
        self._wire = connect(self._address, timeout)
        for first, stop, _ in self._flying:
            self._ready.append(Outcome(OutcomeKind.UNKNOWN, first, stop, error=self._broken))
        self._flying.clear()
        self._broken = None

    def submit(self, batch: Batch, position: int) -> None:
        if self._closed or (self._wire is None and self._broken is None):
            raise StateError("this Redis publisher is not open")
        if self._broken is not None:
            self._ready.append(Outcome(OutcomeKind.RETURNED, position, position + len(batch)))
            raise self._broken
        assert self._wire is not None
        self._flying.append((position, position + len(batch), time.monotonic()))
        try:
            self._wire.send(publish_command(self._channel, batch.bodies))
        except Lost as error:
            self._broken = send_failure(error, url=self._address.url, retryable=True)
            raise self._broken from error

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        deadline = time.monotonic() + timeout
        if timeout <= 0:
            self._look()  # nothing is waited for below, and nothing would be read
        while True:
            self._read()
            if self._ready:
                out, self._ready = self._ready, []
                return out
            if self._broken is not None:
                raise self._broken
            left = deadline - time.monotonic()
            if left <= 0 or self._waker.clear() or self._wire is None:
                return []
            try:
                self._wire.wait(left, self._waker)
            except Lost as error:
                self._broken = send_failure(error, url=self._address.url, retryable=True)

    def _look(self) -> None:
        if self._wire is not None and self._broken is None:
            try:
                self._wire.wait(0.0)
            except Lost as error:
                self._broken = send_failure(error, url=self._address.url, retryable=True)

    def withdraw(self) -> Sequence[Outcome]:
        """Whether it was published, nobody knows: it is not published elsewhere."""
        self._drop()
        error = self._broken or SendError(
            f"{self._address.url} was silent for too long; what was on its way may have been published",
            url=self._address.url,
        )
        self._broken = None
        out, self._ready = self._ready, []
        out += [Outcome(OutcomeKind.UNKNOWN, first, stop, error=error) for first, stop, _ in self._flying]
        self._flying.clear()
        return out

    def waits_for(self) -> Sequence[tuple[int, int]]:
        return () if self._wire is None or self._broken is not None else (self._wire.waits_for(),)

    def wake(self) -> None:
        self._waker.set()

    @property
    def idle_interval(self) -> float:
        return float("inf")  # nothing is to be kept alive

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        try:
            while self._wire is not None and self._flying and self._broken is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._wire.wait(left)
                self._read()
        except Lost:
            pass  # what was on the way stays unreported
        finally:
            self._drop()
            self._waker.close()

    @property
    def native(self) -> Any:
        return native_client(self._address)

    def stats(self) -> Mapping[str, Any]:
        in_flight = sum(stop - first for first, stop, _ in self._flying)
        return {"in_flight": in_flight, "receivers": self._receivers, "unrouted": self._unrouted}

    def _read(self) -> None:
        """Take the answers: each is how many receivers a message had."""
        wire, flying = self._wire, self._flying
        if wire is None:
            return
        following = wire.next
        try:
            while flying:
                first, stop, since = flying[0]
                at = first
                while at < stop:
                    reply = following()
                    if reply is NOTHING:
                        break
                    if isinstance(reply, Refusal):
                        self._confirm(first, at)
                        flying[0] = (at + 1, stop, since)
                        self._refused(reply, at)
                        return
                    if not reply:
                        self._unrouted += 1
                    self._receivers = reply
                    at += 1
                self._confirm(first, at)
                if at < stop:
                    flying[0] = (at, stop, since if at == first else time.monotonic())
                    if at == first and time.monotonic() - since > self._address.request_timeout:
                        raise Lost(f"{wire.endpoint} did not answer for {time.monotonic() - since:.1f} s")
                    return
                flying.popleft()
        except Lost as error:
            self._broken = send_failure(error, url=self._address.url, retryable=True)

    def _confirm(self, first: int, stop: int) -> None:
        if stop > first:
            self._ready.append(Outcome(OutcomeKind.CONFIRMED, first, stop))

    def _refused(self, reply: Refusal, at: int) -> None:
        error = send_failure(reply, url=self._address.url)
        self._ready.append(Outcome(OutcomeKind.FAILED, at, at + 1, error=error))
        first, stop, _ = self._flying[0]
        if first == stop:
            self._flying.popleft()
        if is_transient(reply):
            self._broken = send_failure(reply, url=self._address.url, retryable=True)

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

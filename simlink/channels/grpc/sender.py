"""The sending end of grpc://: a link over one stream. The caller's thread encodes and decides; gRPC's threads carry."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from simlink.channels.driver import Outcome
from simlink.channels.grpc.failures import connect_error
from simlink.channels.grpc.guard import client_credentials, token_metadata
from simlink.channels.grpc.settings import FRAME_BYTES, FRAME_MESSAGES, client_arguments, shown
from simlink.channels.grpc.stream import HUNGRY, WOKEN, Ended, Stream
from simlink.channels.link.sender import SenderLink
from simlink.channels.link.sending import LinkSender
from simlink.channels.wire.codec import decode, encode_payload
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
from simlink.errors import ConnectError, ConnectTimeout
from simlink.message import Batch

if TYPE_CHECKING:
    from simlink.channels.grpc.driver import GrpcDriver

__all__ = ["GrpcSender"]

_AHEAD = 2
"""Frames that wait for gRPC to take them; what comes meanwhile gathers in the link, and goes out joined."""
_LAST_WORDS = 1.0
"""Seconds that a closing sender listens for what it has not heard yet."""


class GrpcSender(LinkSender):
    """One stream at a time to the one receiver of the URL."""

    def __init__(self, driver: GrpcDriver) -> None:
        self._driver = driver
        self._settings = driver.settings
        self._url = str(driver.target)
        self._link = SenderLink(
            os.urandom(16),
            driver.target.name,
            driver.mode,
            heartbeat_ms=round(driver.settings.heartbeat * 1000),
            max_frame_bytes=driver.settings.max_frame_bytes,
            frame_messages=FRAME_MESSAGES,
            frame_bytes=FRAME_BYTES,
            headed=False,
        )
        self._stream: Stream | None = None
        self._endpoint = str(driver.target.hosts[0])
        self._done: list[Outcome] = []
        self._error: ConnectError | None = None
        self._wrote = 0.0
        self._beat = driver.settings.heartbeat
        self._closed = False
        self._connects = 0
        self._bad_frames = 0
        self._signs = 0
        self._beats = 0
        self._notify: Callable[[], None] | None = None

    # --- connecting ---------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._drop()
        host, port = self._driver.endpoint()
        self._endpoint = shown(host, port)
        self._error = None
        metadata = token_metadata(self._driver.token, self._url)
        self._stream = Stream(self._dial(), metadata, f"simlink-grpc-read-{self._endpoint}", self._notify)
        try:
            self._introduce(self._stream, deadline)
        except BaseException:
            self._drop()
            raise
        self._connects += 1

    def _dial(self) -> grpc.Channel:
        # One for every call: gRPC's own channel has a back-off of its own, and that belongs to the layer above.
        where, arguments = f"dns:///{self._endpoint}", client_arguments(self._settings)
        tls = self._driver.tls
        if tls is None:
            return grpc.insecure_channel(where, options=arguments)
        return grpc.secure_channel(where, client_credentials(tls), options=arguments)

    def _failed(self, error: grpc.RpcError) -> ConnectError:
        tls = self._driver.tls
        shown = tls is not None and tls.cert is not None
        return connect_error(error, self._endpoint, self._url, secure=tls is not None, shown=shown)

    def _introduce(self, stream: Stream, deadline: float) -> None:
        """HELLO, and wait for the answer."""
        self._put(self._link.hello())
        while True:
            left = deadline - time.monotonic()
            item = stream.get(left) if left > 0 else None
            if item is None:
                raise self._problem(ConnectTimeout, "does not answer a Hello")
            if item is HUNGRY or item is WOKEN:
                continue
            if isinstance(item, Ended):
                if item.error is None:
                    raise self._problem(ConnectError, "closed the stream")
                raise self._failed(item.error) from item.error
            try:
                frame = decode(item)
            except FrameError as error:
                self._bad_frames += 1
                raise self._problem(ConnectError, f"is not a receiver: {error}", retryable=False) from error
            if isinstance(frame, Welcome):
                try:
                    self._done += self._link.welcome(frame)
                except FrameError as error:
                    self._bad_frames += 1
                    raise self._problem(ConnectError, f"makes no sense: {error}", retryable=False) from error
                self._beat = max(0.01, min(self._settings.heartbeat, frame.heartbeat_ms / 1000))
                return
            if isinstance(frame, ErrorFrame):
                raise self._problem(ConnectError, f"refuses: {frame.message}", retryable=frame.retryable)
            if frame is not None:
                raise self._problem(ConnectError, f"answers a Hello with {type(frame).__name__}", retryable=False)

    def _problem(self, kind: type[ConnectError], what: str, *, retryable: bool = True) -> ConnectError:
        return kind(f"{self._endpoint} {what}", url=self._url, endpoint=self._endpoint, retryable=retryable)

    def _drop(self) -> None:
        """Close the stream; what was in flight is the next one's to find out."""
        self._link.lost()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _lost(self, error: ConnectError) -> None:
        self._drop()
        if self._error is None:
            self._error = error

    def _raise_lost(self) -> None:
        if self._error is not None:
            error = self._error
            raise ConnectError(
                str(error), url=error.url, endpoint=error.endpoint, retryable=error.retryable
            ) from error.__cause__
        if self._stream is None:
            raise self._problem(ConnectError, "is not connected")

    # --- sending ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, position: int) -> None:
        self._link.submit(batch, position)
        if self._stream is None:
            self._raise_lost()
        self._flush()

    def _flush(self) -> None:
        """Give gRPC what the credit allows: at once when it waits for something, ahead of that only whole frames."""
        stream, link = self._stream, self._link
        if stream is None:
            return
        while link.sendable():
            unsent = stream.unsent
            full = link.queued >= link.frame_messages or link.queued_bytes >= link.frame_bytes
            if unsent and (unsent >= _AHEAD or not full):
                stream.tell_when_hungry()
                return
            data = link.produce(self._done)
            if data is None:
                return
            stream.write(data)
            self._wrote = time.monotonic()

    def _put(self, frame: Frame) -> None:
        if self._stream is not None:
            self._stream.write(encode_payload(frame))
            self._wrote = time.monotonic()

    # --- hearing ------------------------------------------------------------------------------------------------

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        if not self._done:
            if self._closed:
                return ()
            self._raise_lost()
            self._flush()
            if timeout > 0 and not self._done:
                self._wait(timeout)
        if self._stream is not None:
            self._read()
            self._flush()
            self._tend()
        done, self._done = self._done, []
        if not done and not self._closed:
            self._raise_lost()
        return done

    def _wait(self, timeout: float) -> None:
        """Until something came, `wake` is called, or a heartbeat is due."""
        stream = self._stream
        if stream is None:
            return
        due = min(timeout, max(self._wrote + self._beat - time.monotonic(), 0.0))
        item = stream.get(due)
        if item is not None:
            self._take(item)

    def _read(self) -> None:
        """Take in what is there, without waiting."""
        while self._stream is not None and (item := self._stream.get(0.0)) is not None:
            self._take(item)

    def _take(self, item: Any) -> None:
        if item is HUNGRY:
            self._flush()
        elif isinstance(item, Ended):
            if item.error is None:
                self._lost(self._problem(ConnectError, "closed the stream"))
            else:
                self._lost(self._failed(item.error))
        elif item is not WOKEN:
            try:
                self._hear(decode(item))
            except FrameError as error:
                self._bad_frames += 1
                problem = self._problem(ConnectError, f"sent what cannot be understood: {error}")
                problem.__cause__ = error
                self._lost(problem)

    def _hear(self, frame: Frame | None) -> None:
        self._signs += 1
        if isinstance(frame, Accept | Settle | Returned | Subscribed):
            self._done += self._link.receive(frame)
        elif isinstance(frame, ErrorFrame):
            if frame.code is Code.CLOSING:
                self._done += self._link.closing()
            retryable = frame.retryable or frame.code is Code.TIMEOUT
            self._lost(self._problem(ConnectError, f"ended the link: {frame.message}", retryable=retryable))
        elif isinstance(frame, Heartbeat):
            self._beats += 1
        elif frame is not None:
            raise FrameError(f"a {type(frame).__name__} is not for a receiver to say now")

    def _tend(self) -> None:
        """Heartbeats, and silence."""
        stream = self._stream
        if stream is None:
            return
        now = time.monotonic()
        # While something waits for gRPC to take it, a heartbeat would only queue up behind it.
        if now - self._wrote >= self._beat and not stream.unsent:
            self._put(self._link.heartbeat())
        if now - stream.heard > self._settings.dead:
            self._lost(self._problem(ConnectError, f"was silent for {self._settings.dead:g} s"))

    def wake(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.inbox.put(WOKEN)

    @property
    def idle_interval(self) -> float:
        return min(0.25, self._beat / 3)

    # --- in a pool ----------------------------------------------------------------------------------------------

    def listen(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def waits_for(self) -> Sequence[tuple[int, int]]:
        # What comes is put into the inbox by a thread, which tells so.
        return ()

    def rest(self) -> float:
        return max(self._wrote + self._beat - time.monotonic(), 0.005)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._finish(time.monotonic() + timeout)
        finally:
            self._drop()

    def _finish(self, deadline: float) -> None:
        """Send the rest, say goodbye, and listen for the last settlements until the receiver ends the call."""
        while self._stream is not None:
            self._read()
            self._flush()
            left = deadline - time.monotonic()
            if not self._link.sendable() or left <= 0:
                break
            self._wait(min(left, 0.1))
        if self._stream is None or self._link.sendable():
            return
        self._put(Bye())
        self._stream.finish()
        until = min(deadline, time.monotonic() + _LAST_WORDS)
        while self._stream is not None and (left := until - time.monotonic()) > 0:
            item = self._stream.get(left)
            if item is not None:
                self._take(item)

    @property
    def native(self) -> Any:
        """The `grpc.Channel`, or None."""
        return None if self._stream is None else self._stream.channel

    def stats(self) -> Mapping[str, Any]:
        link = self._link
        return {
            "endpoint": self._endpoint,
            "queued": link.queued,
            "queued_bytes": link.queued_bytes,
            "unsent_frames": 0 if self._stream is None else self._stream.unsent,
            "unaccepted": link.next - link.accepted,
            "connects": self._connects,
            "bad_frames": self._bad_frames,
        }

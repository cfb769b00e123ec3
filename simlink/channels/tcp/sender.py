"""The sending end of tcp://: a link over one socket. The caller's thread does the I/O; there is no other."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels import tls
from simlink.channels.driver import Outcome
from simlink.channels.link import proof
from simlink.channels.link.sender import SenderLink
from simlink.channels.link.sending import LinkSender
from simlink.channels.peeking import Peeker
from simlink.channels.tcp.secure import SecureSocket
from simlink.channels.tcp.settings import resolve, shown
from simlink.channels.wire.codec import decode, encode
from simlink.channels.wire.frames import (
    Accept,
    Bye,
    Challenge,
    Code,
    ErrorFrame,
    Frame,
    FrameError,
    Heartbeat,
    Proof,
    Returned,
    Settle,
    Subscribed,
    Welcome,
)
from simlink.channels.wire.framing import FrameReader
from simlink.errors import ConnectError, ConnectTimeout
from simlink.message import Batch

if TYPE_CHECKING:
    from simlink.channels.tcp.driver import TcpDriver

__all__ = ["TcpSender"]

_GATHER = 0.0002
"""Seconds after a write in which small submits gather for the next one."""
_GATHER_MESSAGES = 500
_GATHER_BYTES = 64 * 1024
_NEWS = (Accept, Settle, Returned, Subscribed)  # a tuple is asked twice as fast as a union
_EARLY, _LATE = 0.7, 1.25
"""One of many, which is called when its peer's beat comes, says its own then if the last is so many beats ago; by
itself it does when so many have gone by."""
_BEAT = encode(Heartbeat())
"""What a receiver says who has nothing to say."""
_SHORT = 4096
"""Bytes that are read at once where little is expected."""
_LAST_WORDS = 1.0
"""Seconds that a closing sender listens for what it has not heard yet."""


class TcpSender(LinkSender):
    """One connection at a time to the one receiver of the URL."""

    def __init__(self, driver: TcpDriver) -> None:
        self._driver = driver
        self._settings = driver.settings
        self._url = str(driver.target)
        self._link = SenderLink(
            os.urandom(16),
            driver.target.name,
            driver.mode,
            heartbeat_ms=round(driver.settings.heartbeat * 1000),
            max_frame_bytes=driver.settings.max_frame_bytes,
        )
        self._sock: socket.socket | SecureSocket | None = None
        self._plain: socket.socket | None = None  # the same, where it is no secure one
        self._reads: tuple[tuple[int, int], ...] = ()
        self._endpoint: str | None = None
        self._reader = FrameReader(driver.settings.max_frame_bytes)
        self._poll = select.poll()
        self._watching_writes = False
        self._out: bytes | memoryview = b""
        self._done: list[Outcome] = []
        self._error: ConnectError | None = None
        self._broken: OSError | None = None
        self._wrote = 0.0
        self._heard = 0.0
        self._beat = driver.settings.heartbeat
        self._closed = False
        self._peeker = Peeker()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._wake_fd = self._wake_out.fileno()
        self._poll.register(self._wake_out, select.POLLIN)
        self._connects = 0
        self._bad_frames = 0
        self._signs = 0
        self._beats = 0
        self._pooled = False

    # --- connecting ---------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._drop()
        host, port = self._driver.endpoint()
        self._endpoint = shown(host, port)
        self._error = self._broken = None
        self._connect(host, port, deadline)
        try:
            self._introduce(deadline)
        except BaseException:
            self._drop()
            raise
        self._connects += 1

    def _connect(self, host: str, port: int, deadline: float) -> None:
        last: Exception | None = None
        context = None if self._settings.tls is None else tls.client_context(self._settings.tls)
        for family, address in resolve(host, port, passive=False):
            channel: socket.socket | SecureSocket
            channel = sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(address)
                # With nobody listening on it, a free local port can be connected to itself.
                if sock.getsockname() == sock.getpeername():
                    raise ConnectionRefusedError("nobody listens there")
                sock.setblocking(False)
                if context is not None:
                    channel = SecureSocket(sock, context, server_hostname=host)
                    channel.shake(deadline)
            except OSError as error:
                sock.close()
                last = error
                continue
            except BaseException:
                sock.close()
                raise
            self._sock = channel
            self._plain = channel if isinstance(channel, socket.socket) else None
            self._reads = ((sock.fileno(), select.POLLIN),)
            self._poll.register(sock, select.POLLIN)
            self._watching_writes = False
            return
        if isinstance(last, TimeoutError):
            raise self._problem(ConnectTimeout, "does not answer") from last
        self._refuse_distrust(last)
        reason = "nobody listens there" if isinstance(last, ConnectionRefusedError) else str(last)
        raise self._problem(ConnectError, f"cannot be reached: {reason}") from last

    def _introduce(self, deadline: float) -> None:
        """HELLO, and wait for the answer."""
        self._reader = FrameReader(self._settings.max_frame_bytes)
        self._heard = time.monotonic()
        hello, secret = self._link.hello(), self._settings.secret.get()
        key = None if secret is None else proof.checked(secret, self._url)
        if key is not None:
            hello.nonce = proof.fresh()
        proven = key is None
        self._put(encode(hello))
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._problem(ConnectTimeout, "does not answer a Hello")
            self._wait(left)
            if self._out:
                self._flush_out()
            ended = not self._receive()
            try:
                frame = self._reader.next_frame()
            except FrameError as error:
                self._bad_frames += 1
                raise self._problem(ConnectError, f"is not a receiver: {error}", retryable=False) from error
            if isinstance(frame, Challenge) and key is not None and not proven:
                if not proof.same(frame.proof, proof.of_receiver(key, hello, frame.nonce)):
                    self._tell(ErrorFrame(Code.SECRET, "the shared secrets differ"))
                    raise self._problem(ConnectError, "does not know the shared secret", retryable=False)
                proven = True
                self._tell(Proof(proof.of_sender(key, hello, frame.nonce)))
                continue
            if isinstance(frame, Welcome) and not proven:
                what = "does not ask for the shared secret: it was given none, or is too old to know of it"
                raise self._problem(ConnectError, what, retryable=False)
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
            if ended:
                self._refuse_distrust(self._broken)
                raise self._problem(ConnectError, "closed the connection")

    def _refuse_distrust(self, error: Exception | None) -> None:
        """Raise what TLS has to say about an error, if that is what it is."""
        if error is not None:
            refusal = tls.refusal(error, endpoint=str(self._endpoint), url=self._url, tls=self._settings.tls)
            if refusal is not None:
                raise refusal

    def _problem(self, kind: type[ConnectError], what: str, *, retryable: bool = True) -> ConnectError:
        return kind(f"{self._endpoint} {what}", url=self._url, endpoint=self._endpoint, retryable=retryable)

    def _drop(self) -> None:
        """Close the connection; what was in flight is the next one's to find out."""
        self._link.lost()
        self._out = b""
        if self._sock is not None:
            self._poll.unregister(self._sock)
            self._sock.close()
            self._sock = self._plain = None
            self._reads = ()

    def _lost(self, what: str, *, retryable: bool = True, cause: Exception | None = None) -> None:
        self._drop()
        if self._error is None:
            self._error = self._problem(ConnectError, what, retryable=retryable)
            self._error.__cause__ = cause

    def _raise_lost(self) -> None:
        if self._error is not None:
            error = self._error
            raise ConnectError(
                str(error), url=error.url, endpoint=error.endpoint, retryable=error.retryable
            ) from error.__cause__
        if self._sock is None:
            raise self._problem(ConnectError, "is not connected")

    # --- sending ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, position: int) -> None:
        link = self._link
        link.submit(batch, position)
        if self._sock is None:
            self._raise_lost()
        if (
            link.queued >= _GATHER_MESSAGES
            or link.queued_bytes >= _GATHER_BYTES
            or time.monotonic() - self._wrote >= _GATHER
        ):
            self._flush()

    def _flush(self) -> None:
        """Write what the credit and the socket take."""
        link = self._link
        while self._sock is not None:
            if self._out and not self._flush_out():
                return
            if not link.waiting and link.telling is None:
                return
            data = link.produce(self._done)
            if data is None:
                return
            self._put(data)

    def _put(self, data: bytes) -> None:
        assert not self._out
        self._out = data
        self._flush_out()

    def _flush_out(self) -> bool:
        """Whether everything is written."""
        sock = self._sock
        if sock is None:
            return False
        try:
            count = sock.send(self._out)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # What the peer said before it closed is worth hearing: it may say that, and what, it gave back.
            self._read()
            self._lost(f"broke the connection: {error.strerror or error}", cause=error)
            return False
        self._wrote = time.monotonic()
        if count == len(self._out):
            self._out = b""
            return True
        self._out = memoryview(self._out)[count:]
        return False

    # --- hearing ------------------------------------------------------------------------------------------------

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        if not self._done:
            if self._closed:
                return ()
            if self._sock is None:
                self._raise_lost()
            if self._out or self._link.waiting or self._link.telling is not None:
                self._flush()
            if timeout > 0 and not self._done:
                self._wait(timeout)
        if self._sock is not None:
            self._read()
            if self._out or self._link.waiting or self._link.telling is not None:
                self._flush()
            self._tend()
        if self._done:
            done, self._done = self._done, []
            return done
        if self._sock is None and not self._closed:
            self._raise_lost()
        return ()

    def _wait(self, timeout: float) -> None:
        """Until the socket has something, takes something, `wake` is called, or a heartbeat is due."""
        if self._sock is None:
            return
        if self._out:
            if not self._watching_writes:
                self._watching_writes = True
                self._poll.modify(self._sock, select.POLLIN | select.POLLOUT)
        else:
            if self._watching_writes:
                self._watching_writes = False
                self._poll.modify(self._sock, select.POLLIN)
            if self._link.connected:
                timeout = min(timeout, max(self._wrote + self._beat - time.monotonic(), 0.0))
        ready = self._peek(timeout) if self.in_haste else []
        for fd, _ in ready or self._poll.poll(timeout * 1000):
            if fd == self._wake_fd:
                with contextlib.suppress(OSError):
                    self._wake_out.recv(4096)

    def _peek(self, timeout: float) -> list[tuple[int, int]]:
        """Look for the answer to one message without sleeping: what is ready, or nothing."""
        link = self._link
        if link.next - link.accepted != 1 or self._out:
            return []
        return self._peeker(self._poll.poll, timeout)

    def _receive(self) -> bool:
        """Read what is there into the reader; False when the peer has closed or the connection is broken."""
        while self._sock is not None:
            with self._reader.buffer() as room:
                size = len(room)
                try:
                    count = self._sock.recv_into(room)
                except (BlockingIOError, InterruptedError):
                    return True
                except OSError as error:
                    self._broken = error
                    return False
            if not count:
                return False
            self._reader.received(count)
            self._heard = time.monotonic()
            if count < size:
                return True
        return False

    def _read(self) -> None:
        if self._plain is not None and not self._reader.pending:
            # As a rule little comes, and as often as not it is a beat: that needs neither the buffer nor a frame.
            payloads: Sequence[bytes]
            try:
                data = self._plain.recv(_SHORT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lost("closed the connection", cause=error)
                return
            self._heard = time.monotonic()
            if data == _BEAT:
                self._signs += 1
                self._beats += 1
                return
            payloads = self._reader.payloads(data)
            open_ = self._receive() if len(data) == _SHORT else bool(data)
        else:
            payloads = ()
            open_ = self._receive()
        try:
            for payload in payloads:
                if (frame := decode(payload)) is not None:
                    self._take(frame)
            if self._reader.pending:
                while (frame := self._reader.next_frame()) is not None:
                    self._take(frame)
        except FrameError as error:
            self._bad_frames += 1
            self._tell(ErrorFrame(error.code, str(error)))
            self._lost(f"sent what cannot be understood: {error}", cause=error)
        if not open_ and self._sock is not None:
            self._lost("closed the connection")

    def _take(self, frame: Frame) -> None:
        self._signs += 1
        if isinstance(frame, _NEWS):
            self._done += self._link.receive(frame)
        elif isinstance(frame, ErrorFrame):
            if frame.code is Code.CLOSING:
                self._done += self._link.closing()
            self._lost(f"ended the link: {frame.message}", retryable=frame.retryable or frame.code is Code.TIMEOUT)
        elif isinstance(frame, Heartbeat):
            self._beats += 1
        else:
            raise FrameError(f"a {type(frame).__name__} is not for a receiver to say now")

    def _tell(self, frame: Frame) -> None:
        """Say something if it can be said now."""
        if self._sock is not None and not self._out:
            self._put(encode(frame))

    def _tend(self) -> None:
        """Heartbeats, and silence."""
        if self._sock is None:
            return
        now = time.monotonic()
        if now - self._wrote >= (self._beat * _EARLY if self._pooled else self._beat) and not self._out:
            self._put(encode(self._link.heartbeat()))
        # What had come was read just before, so this is not our own pause.
        if now - self._heard > self._settings.dead:
            self._lost(f"was silent for {self._settings.dead:g} s")

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_in.send(b"\0")

    @property
    def idle_interval(self) -> float:
        return min(0.5 if self._pooled else 0.25, self._beat / 3)

    # --- in a pool ----------------------------------------------------------------------------------------------

    def waits_for(self) -> Sequence[tuple[int, int]]:
        if not self._out or self._sock is None:
            return self._reads
        return ((self._sock.fileno(), select.POLLIN | select.POLLOUT),)

    def rest(self) -> float:
        # Called when the peer's beat comes, it answers with its own, so that once is enough for both; see `_tend`.
        return max(self._wrote + self._beat * _LATE - time.monotonic(), 0.005)

    def lease(self, seconds: float) -> None:
        self._pooled = True
        super().lease(seconds)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._finish(time.monotonic() + timeout)
        finally:
            self._drop()
            self._wake_in.close()
            self._wake_out.close()

    def _finish(self, deadline: float) -> None:
        """Send the rest, say goodbye, and listen for the last settlements until the peer closes as well."""
        while self._sock is not None:
            self._read()
            self._flush()
            left = deadline - time.monotonic()
            if (not self._out and not self._link.sendable()) or left <= 0:
                break
            self._wait(min(left, 0.1))
        if self._sock is None or self._out:
            return
        self._tell(Bye())
        if self._sock is None or self._out:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        until = min(deadline, time.monotonic() + _LAST_WORDS)
        while self._sock is not None and (left := until - time.monotonic()) > 0:
            self._wait(left)
            self._read()

    @property
    def native(self) -> Any:
        """The socket, or None."""
        return self._sock

    def stats(self) -> Mapping[str, Any]:
        link = self._link
        return {
            "endpoint": self._endpoint,
            "queued": link.queued,
            "queued_bytes": link.queued_bytes,
            "unwritten_bytes": len(self._out),
            "unaccepted": link.next - link.accepted,
            "connects": self._connects,
            "bad_frames": self._bad_frames,
        }

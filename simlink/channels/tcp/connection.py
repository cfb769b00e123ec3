"""One connection as the listener has it: bytes in, bytes out, deadlines. What the frames mean is the listener's."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from simlink.channels.tcp.secure import SecureSocket
from simlink.channels.tcp.unread import Unread
from simlink.channels.wire.codec import decode, encode
from simlink.channels.wire.frames import Code, ErrorFrame, Frame, Hello
from simlink.channels.wire.framing import FrameReader

if TYPE_CHECKING:
    from simlink.channels.link.destination import Destination
    from simlink.channels.link.receiver import ReceiverLink

__all__ = ["Connection"]

_MAX_OUT = 4 * 1024 * 1024
"""A peer that leaves this much unread is not reading at all: what it is told is absolute, and small."""
_STRANGER = 64 * 1024
"""The longest frame of a peer that is not let in yet: it makes us hold no more than this."""
_BRIEF = 4096
"""Bytes that are read at once from whoever said less than that the last time."""
_LINGER = 1.0
"""Seconds that a peer which is cut off has to read why."""


class Connection:
    """A peer of the listener.

    Attributes:
        link, destination: set by its Hello.
        heard: when bytes last came. sent: when bytes last went.
        waiting_since: when the first byte of an incomplete frame came, or None.
        closing_at: when it will be closed whatever happens; nothing it says counts any more. None while it is up.
        distrust: why TLS was refused, or None.
        asked: its Hello and the nonce that its Proof must be of, while that is awaited.
    """

    def __init__(
        self,
        sock: socket.socket | SecureSocket,
        peer: str,
        now: float,
        max_frame_bytes: int,
        unread: Unread[Connection],
    ) -> None:
        self.sock = sock
        self.peer = peer
        self.reader = FrameReader(min(max_frame_bytes, _STRANGER), managed=True)
        self._unread = unread
        self._brief = False
        self._payloads: list[bytes] = []  # whole frames that came beside the reader, the last one first
        self.link: ReceiverLink | None = None
        self.destination: Destination | None = None
        self.opened = now
        self.heard = now
        self.sent = now
        self.beat = 0.0
        self.waiting_since: float | None = None
        self.closing_at: float | None = None
        self.out = bytearray()
        self.secure = isinstance(sock, SecureSocket)
        self.distrust: ssl.SSLError | None = None
        self.asked: tuple[Hello, bytes] | None = None

    def receive(self, now: float) -> bool:
        """Read what is there, as far as there is room; False when the peer has closed, or the connection is broken."""
        if self._brief and not self.reader.pending:
            # A message that somebody waits for, or a beat: neither needs the buffer.
            try:
                data = self.sock.recv(_BRIEF)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                return False
            if not data:
                return False
            self.heard = now
            self._payloads = self.reader.payloads(data)[::-1]
            if len(data) < _BRIEF:
                return True
            self._brief = False
        return self._fill(now)

    def _fill(self, now: float) -> bool:
        while self._unread.grow(self):
            with self.reader.buffer() as room:
                size = len(room)
                try:
                    count = self.sock.recv_into(room)
                except (BlockingIOError, InterruptedError):
                    return True
                except ssl.SSLError as error:
                    self.distrust = error
                    return False
                except OSError:
                    return False
            if not count:
                return False
            self.reader.received(count)
            self.heard = now
            self._unread.read_ahead(self)
            # What TLS has deciphered is behind the selector, which would not tell of it.
            if not self.secure:
                self._brief = count < _BRIEF
                break
            if count < size:
                break
        return True

    def next_frame(self) -> Frame | None:
        """The next frame of what was read, None if there is none yet.

        Raises:
            FrameError: as `FrameReader.next_frame`.
        """
        while self._payloads:
            frame = decode(self._payloads.pop())
            if frame is not None:
                return frame
        return self.reader.next_frame()

    @property
    def pending(self) -> bool:
        """Whether anything that was read has not been taken yet."""
        return bool(self._payloads) or self.reader.pending > 0

    def noted(self, now: float, frames: int) -> None:
        """After reading: remember since when a frame is incomplete."""
        if frames:
            self._unread.progressed(self)
        if not self.reader.pending:
            self.waiting_since = None
        elif frames or self.waiting_since is None:
            self.waiting_since = now

    def excuse(self, now: float) -> None:
        """It is not the peer that is slow, or silent: it is not read."""
        self.heard = now
        if self.waiting_since is not None:
            self.waiting_since = now

    def send(self, frame: Frame, now: float) -> bool:
        """Send or queue a frame; False when the connection is broken, or the peer does not read."""
        return self.send_bytes(encode(frame), now)

    def send_bytes(self, data: bytes, now: float) -> bool:
        self.sent = now
        if not self.out:
            try:
                count = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                count = 0
            except OSError:
                return False
            if count == len(data):
                return True
            data = data[count:]
        self.out += data
        return len(self.out) <= _MAX_OUT

    @property
    def identity(self) -> bytes:
        """Who the peer is, where its certificate proves it."""
        return self.sock.peer() if isinstance(self.sock, SecureSocket) else b""

    @property
    def unsent(self) -> bool:
        """Whether anything waits for the socket to take it."""
        return bool(self.out) or (isinstance(self.sock, SecureSocket) and self.sock.unsent)

    def flush(self) -> bool:
        """Send what is queued; False when the connection is broken."""
        try:
            if isinstance(self.sock, SecureSocket):
                self.sock.flush()
            while self.out:
                del self.out[: self.sock.send(self.out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return False
        return True

    def say_goodbye(self, code: Code | None, message: str, now: float, *, retryable: bool = False) -> None:
        """Say why, end our half, and leave the peer a moment to read it: closing at once would discard it."""
        if code is not None and self.send(ErrorFrame(code, message, retryable), now):
            self.flush()
        self.closing_at = now + _LINGER
        self.reader.discard()
        self._payloads.clear()
        try:
            if not self.out:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.closing_at = now

    def discard(self) -> bool:
        """While closing: throw away what comes; False when the peer has closed as well."""
        try:
            return bool(self.sock.recv(65536))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False

"""TLS over a non-blocking socket, behind the few methods of a socket that both ends of tcp:// use.

The records are made and read in memory (`ssl.SSLObject` over two `ssl.MemoryBIO`), so this keeps the socket's own
bytes in its hands: many records a system call, an alert that can be sent before the end, and a look at what a peer
says that speaks no TLS at all. What OpenSSL has deciphered is always read to its last byte, so nothing waits in here
while the socket is silent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

from simlink.channels import tls

__all__ = ["SecureSocket"]

_RECEIVE = 64 * 1024
_WRITE = 256 * 1024
"""How much is encrypted at once: what the socket does not take of it is held here."""
_HANDSHAKE = 0x16
"""The type of a TLS record that begins a handshake; the first byte of every connection."""
_local = threading.local()


class SecureSocket:
    """A connected, non-blocking socket with TLS. It owns the socket.

    The handshake is done on the way, by `recv_into`, or by `shake` where one may wait. An `ssl.SSLError` that is not
    about waiting means that the other side is not trusted, or does not trust us: an alert was sent if it can be.

    The end of a link is said by its frames, which are authentic; a connection that ends without TLS's own goodbye is
    a broken connection as any other.

    Attributes:
        established: the handshake is done.
        plain: the peer's first byte shows that it does not speak TLS.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        self._sock = sock
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=server_hostname is None, server_hostname=server_hostname
        )
        # With a buffer it returns how many bytes came, which its stub does not know.
        self._read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]
        self._unsent: bytes | memoryview = b""
        self._owed = 0
        """Plain bytes that are encrypted and not yet reported as sent, because the socket has not taken them."""
        self._first = True
        self.established = False
        self.plain = False

    # --- a socket's methods -------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv_into(self, room: memoryview) -> int:
        """As a socket's; fewer bytes than there is room for only if nothing more is here. At least 1 byte of room.

        Raises:
            BlockingIOError: nothing now.
            ssl.SSLError: this connection is not to be trusted.
        """
        got = 0
        while got < len(room):
            try:
                if not self.established:
                    self._shake()
                count = self._read(len(room) - got, room[got:])
            except ssl.SSLWantReadError:
                if got:
                    break
                if not self._fill():
                    return 0
                continue
            except ssl.SSLZeroReturnError:
                count = 0
            if not count:
                break
            got += count
        return got

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """As a socket's, but after a BlockingIOError the next call must bring the same bytes again, or more.

        Raises:
            BlockingIOError: nothing was taken.
        """
        if not self.established or not self.flush():
            raise BlockingIOError
        if not self._owed:
            with memoryview(data)[:_WRITE] as part:
                while self._owed < len(part):
                    self._owed += self._tls.write(part[self._owed :])
            if not self.flush():
                raise BlockingIOError
        sent, self._owed = self._owed, 0
        return sent

    def recv(self, size: int) -> bytes:
        """What comes, undeciphered: for a connection that is only waited on to end."""
        return self._sock.recv(size)

    def shutdown(self, how: int) -> None:
        """Say that nothing more will come, in TLS's words and in TCP's; what the peer sends can still be read."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self.flush()
        self._sock.shutdown(how)

    def unwrapped(self) -> socket.socket:
        """The socket itself, for a peer that does not speak TLS."""
        return self._sock

    def close(self) -> None:
        self._sock.close()

    # --- the rest -----------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> bool:
        """Encrypted bytes wait for the socket: `flush` when it takes some."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Hand what is encrypted to the socket; whether it took everything."""
        if not self._unsent:
            self._unsent = self._out.read()
        while self._unsent:
            try:
                count = self._sock.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return False
            self._unsent = memoryview(self._unsent)[count:] if count < len(self._unsent) else self._out.read()
        return True

    def shake(self, deadline: float) -> None:
        """Wait for the end of the handshake.

        Args:
            deadline: by the monotonic clock.

        Raises:
            ssl.SSLError: refused. TimeoutError. ConnectionError: the peer went away.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while not self.established:
            try:
                self._shake()
            except ssl.SSLWantReadError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the TLS handshake took too long") from None
                poll.modify(self._sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
                poll.poll(left * 1000)
                with contextlib.suppress(BlockingIOError):
                    if not self._fill():
                        raise ConnectionResetError("it closed the connection in the TLS handshake") from None

    def peer(self) -> bytes:
        """Who the peer is by its certificate: 16 bytes from subject and names, which a renewed one keeps; else b""."""
        return tls.certificate_identity(self._tls.getpeercert())

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            raise
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                self.flush()  # the alert that tells the peer why
            raise
        self.established = True
        self.flush()

    def _fill(self) -> bool:
        """Take in what the socket has; False when the peer has closed. Raises BlockingIOError: nothing now."""
        buffer = getattr(_local, "buffer", None)
        if buffer is None:
            buffer = _local.buffer = memoryview(bytearray(_RECEIVE))
        count = self._sock.recv_into(buffer)
        if count and self._first:
            self._first = False
            self.plain = buffer[0] != _HANDSHAKE
        self._in.write(buffer[:count])
        return count > 0

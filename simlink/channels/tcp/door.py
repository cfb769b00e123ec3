"""The way into a listener: its socket, TLS around what comes, and the shared secret asked of whoever says Hello."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from simlink.channels import tls
from simlink.channels.link import proof
from simlink.channels.tcp.secure import SecureSocket
from simlink.channels.tcp.settings import Settings, resolve, shown
from simlink.channels.wire.frames import Challenge, Code, ErrorFrame, FrameError, Hello, Proof
from simlink.errors import ConnectError

if TYPE_CHECKING:
    from simlink.channels.tcp.connection import Connection

__all__ = ["Door", "bind"]


class Door:
    """Who may in. Made once for a listener, before it binds.

    Attributes:
        address: what strangers are told that this is.

    Raises:
        ConfigError: TLS without a certificate, or with files that are not what they should be; a secret too short.
        ConnectError: the function that was given for the secret failed.
    """

    def __init__(self, settings: Settings, address: str) -> None:
        self.address = address
        self._context = None if settings.tls is None else tls.server_context(settings.tls)
        secret = settings.secret.get()
        self._secret = None if secret is None else proof.checked(secret, address)

    def wrap(self, sock: socket.socket) -> socket.socket | SecureSocket:
        """What a connection is read from and written to."""
        return sock if self._context is None else SecureSocket(sock, self._context)

    def answer(self, connection: Connection, frame: Hello | Proof) -> Hello | Challenge | ErrorFrame:
        """A stranger introduces itself. Its Hello if it is let in; else what it is told.

        Where a secret is shared it learns nothing, not even what is received here, before it has shown that it knows.

        Raises:
            FrameError: out of turn.
        """
        asked = connection.asked
        if isinstance(frame, Proof):
            if self._secret is None or asked is None:
                raise FrameError("the first frame is a Proof, and must be a Hello")
            if proof.same(frame.proof, proof.of_sender(self._secret, *asked)):
                return asked[0]
            return ErrorFrame(Code.SECRET, "the shared secrets differ")
        if asked is not None:
            raise FrameError("a second Hello came, and must be a Proof")
        if self._secret is None:
            return frame
        if len(frame.nonce) != proof.NONCE:
            return ErrorFrame(Code.SECRET, f"a shared secret is needed at {self.address}: give it with secret=")
        connection.asked = frame, proof.fresh()
        return Challenge(connection.asked[1], proof.of_receiver(self._secret, *connection.asked))

    def distrust(self, connection: Connection) -> tuple[str, ErrorFrame | None]:
        """TLS was refused, by either side: why, and a frame for a peer that can read one because it knows no TLS."""
        error = connection.distrust
        assert error is not None
        if isinstance(connection.sock, SecureSocket) and connection.sock.plain:
            connection.sock, connection.secure = connection.sock.unwrapped(), False
            return "it does not speak TLS", ErrorFrame(
                Code.PROTOCOL, f"only TLS is spoken at {self.address}: use tcps://"
            )
        return tls.explain(error) or str(error.reason or error), None


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Port 0 takes a free one.

    Raises:
        ConnectError: the address is in use, or not of this machine.
    """
    family, address = resolve(host, port, passive=True)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
        sock.setblocking(False)
    except (OSError, OverflowError) as error:
        sock.close()
        raise ConnectError(
            f"cannot listen at {shown(host, port)}: {getattr(error, 'strerror', None) or error}",
            endpoint=shown(host, port),
        ) from error
    return sock

"""What can be set on tcp://, and the small things both of its ends need."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from simlink.channels.credentials import Secret
from simlink.channels.tls import Tls
from simlink.channels.url import Host
from simlink.errors import ConnectError

__all__ = ["Settings", "numeric", "resolve", "shown"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a connection; the receivers that share a listener must agree on them. Times are in seconds."""

    heartbeat: float = 1.0
    dead: float = 5.0
    orphan_after: float = 10.0
    hello_timeout: float = 5.0
    frame_timeout: float = 30.0
    max_frame_bytes: int = 8 * 1024 * 1024
    max_connections: int = 1024
    unread_bytes: int = 64 * 1024 * 1024
    tls: Tls | None = None
    secret: Secret = field(default_factory=lambda: Secret("secret"))


def shown(host: str, port: int) -> str:
    """``host:port`` as it stands in a URL."""
    return str(Host(host, port))


def resolve(host: str, port: int, *, passive: bool) -> list[tuple[socket.AddressFamily, Any]]:
    """The socket addresses behind a name.

    Raises:
        ConnectError: there are none.
    """
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        again = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        raise ConnectError(
            f"the host name {host!r} cannot be resolved: {getattr(error, 'strerror', None) or error}",
            endpoint=shown(host, port),
            retryable=again,
        ) from error
    return [(family, address) for family, _, _, _, address in found]


def numeric(host: str, port: int) -> str:
    """The numeric address that a receiver binds, which is the same whatever name it was given.

    Raises:
        ConnectError: there is none.
    """
    return str(resolve(host, port, passive=True)[0][1][0])

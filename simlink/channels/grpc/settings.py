"""What can be set on grpc://, and what both of its ends tell gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simlink.channels.credentials import Secret
from simlink.channels.link.reception import Manners
from simlink.channels.tls import Tls
from simlink.channels.url import Host
from simlink.channels.wire.codec import HEAD

__all__ = [
    "FRAME_BYTES",
    "FRAME_MESSAGES",
    "LINK",
    "PUBLISH",
    "SERVICE",
    "Settings",
    "Token",
    "client_arguments",
    "server_arguments",
    "shown",
]

SERVICE = "simlink.v1.Receiver"
LINK = f"/{SERVICE}/Link"
PUBLISH = f"/{SERVICE}/Publish"

FRAME_MESSAGES = 1_024
"""What the writer joins into one message of the stream: a message costs gRPC about half a millisecond, whatever is in
it, so batches of 100 are five times slower than batches of 1,000."""
FRAME_BYTES = 256 * 1024
"""So long a message is done within the time that a peer may be silent, down to 50 KiB/s."""

_ROOM = 64 * 1024
"""What gRPC may read beyond our own limit, so that it is our limit that speaks, and says its number."""


class Token:
    """A bearer token that is equal to another with the same text. Its repr does not show it."""

    __slots__ = ("secret",)

    def __init__(self, secret: Secret) -> None:
        self.secret = secret

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.secret.get() == other.secret.get()

    __hash__ = None  # type: ignore[assignment]  # it may change

    def __repr__(self) -> str:
        return repr(self.secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a connection; the receivers that share a listener must agree on them. Times are in seconds."""

    heartbeat: float = 1.0
    dead: float = 5.0
    orphan_after: float = 10.0
    hello_timeout: float = 5.0
    frame_timeout: float = 30.0
    keepalive: float = 10.0
    max_frame_bytes: int = 8 * 1024 * 1024
    max_connections: int = 1024
    tls: Tls | None = None
    token: Token | None = None

    def manners(self) -> Manners:
        return Manners(
            self.heartbeat,
            self.dead,
            self.orphan_after,
            self.hello_timeout,
            max(self.frame_timeout, self.dead),
            self.max_frame_bytes,
            self.max_connections,
        )


def shown(host: str, port: int) -> str:
    """``host:port`` as it stands in a URL, and as gRPC reads it."""
    return str(Host(host, port))


def _common(settings: Settings) -> list[tuple[str, Any]]:
    longest = settings.max_frame_bytes + HEAD.size + _ROOM
    return [
        ("grpc.max_receive_message_length", longest),
        ("grpc.max_send_message_length", longest),
        ("grpc.keepalive_time_ms", round(settings.keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", round(settings.dead * 1000)),
        # Sending again is decided above the drivers, where it is counted.
        ("grpc.enable_retries", 0),
    ]


def client_arguments(settings: Settings) -> list[tuple[str, Any]]:
    """The channel arguments of a sender."""
    return [
        *_common(settings),
        # A connection of our own: a shared one would carry another channel's back-off, and its deaths.
        ("grpc.use_local_subchannel_pool", 1),
        # The address in the URL is the receiver's own.
        ("grpc.enable_http_proxy", 0),
    ]


def server_arguments(settings: Settings) -> list[tuple[str, Any]]:
    """The server arguments of a receiver."""
    return [
        *_common(settings),
        # Two listeners on one port would share its senders without knowing of each other.
        ("grpc.so_reuseport", 0),
        # Nothing is unpacked that came packed: a small message could become a huge one.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.server_handshake_timeout_ms", round(settings.hello_timeout * 1000)),
        ("grpc.max_connection_idle_ms", round(max(settings.hello_timeout, settings.frame_timeout) * 1000)),
        ("grpc.max_allowed_incoming_connections", 2 * settings.max_connections),
        # Clients of other makes keep their connections alive as they are used to.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
    ]

"""What can be set on http://, and the names that stand in requests and replies."""

from __future__ import annotations

from dataclasses import dataclass

from simlink.channels.tls import Tls

__all__ = ["FRAMES", "KEY", "PRODUCER", "SESSION", "SETTLED", "Settings"]

FRAMES = "application/vnd.simlink.frames"
"""The media type of a body that is frames of wire.proto, each with its head of five bytes."""
SESSION = "simlink-session"
"""The header that says which stream of settlements a post of frames belongs to."""
KEY = "simlink-key"
"""The header of a plain request that has the message's key, percent-encoded."""
SETTLED = "~settled"
"""The last segment of the path at which settlements are streamed."""
PRODUCER = "producer"


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a server; the receivers that share an address, or an app, must agree on them. Times are in seconds.

    Attributes:
        heartbeat: a silent end is heard anyway after so long.
        dead: a stream whose sender was not heard for so long is ended.
        orphan_after: what a lost sender left is handed out again after so long.
        header_timeout: from the first byte of a request, or from connecting, to the end of its headers.
        body_timeout: from there to the end of its body; also for a peer that does not read what it is told.
        idle_timeout: between two requests on one connection.
        max_body_bytes: of one request.
        max_connections: of one server.
        origins: web pages of these origins may post, besides those of this very host; ``*`` for all.
        authorization: what the header ``Authorization`` must be, or None.
        tls: of https://.
    """

    heartbeat: float = 1.0
    dead: float = 5.0
    orphan_after: float = 10.0
    header_timeout: float = 5.0
    body_timeout: float = 30.0
    idle_timeout: float = 15.0
    max_body_bytes: int = 8 * 1024 * 1024
    max_connections: int = 512
    origins: frozenset[str] = frozenset()
    authorization: str | None = None
    tls: Tls | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__ if name != "authorization")
        return f"Settings({shown}, authorization={'None' if self.authorization is None else '**'})"

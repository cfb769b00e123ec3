"""grpc:// as a driver: its options, and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import ClassVar

from simlink.channels import credentials, tls
from simlink.channels.credentials import Secret
from simlink.channels.driver import Capabilities, Mode, ReceiverDriver, ReceiverOptions, SenderDriver
from simlink.channels.grpc.settings import Settings, Token
from simlink.channels.link.driver import BUFFERS, LinkDriver, times
from simlink.channels.tls import Tls
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, InvalidURL, MissingExtra, NotSupported

__all__ = ["GrpcDriver"]

_PACKAGES = {"grpc": "grpcio", "grpc_health": "grpcio-health-checking", "grpc_reflection": "grpcio-reflection"}


class GrpcDriver(LinkDriver):
    """Queues and topics over gRPC: the receiver serves at the address of the URL, the sender calls.

    A port of 0 binds a free one, which this driver's own sender then finds.
    """

    schemes: ClassVar[tuple[str, ...]] = ("grpc", "grpcs")
    several: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Option]] = {
        **times("receiver"),
        "hello_timeout": Option(float, 5.0, "seconds that a new stream has to introduce itself", minimum=0.01),
        "frame_timeout": Option(
            float, 30.0, "seconds without a whole frame after which a receiver gives a stream up", minimum=0.01
        ),
        "keepalive": Option(
            float, 10.0, "seconds without traffic after which HTTP/2 asks for a sign of life", minimum=0.01
        ),
        "max_frame_bytes": Option(
            int, 8 * 1024 * 1024, "the longest message of the stream, and so about the longest body", minimum=1024
        ),
        "max_connections": Option(int, 1024, "how many streams a receiver lets in", minimum=1),
        **BUFFERS,
        **tls.OPTIONS,
        **credentials.TOKEN,
    }

    def __init__(
        self,
        target: Target,
        *,
        mode: Mode,
        heartbeat: float = 1.0,
        dead: float = 5.0,
        orphan_after: float = 10.0,
        hello_timeout: float = 5.0,
        frame_timeout: float = 30.0,
        keepalive: float = 10.0,
        max_frame_bytes: int = 8 * 1024 * 1024,
        max_connections: int = 1024,
        buffer_messages: int = 65_536,
        buffer_bytes: int = 16 * 1024 * 1024,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        tls_min: str | None = None,
        token: str | Callable[[], str] | None = None,
    ) -> None:
        super().__init__(
            target,
            mode=mode,
            heartbeat=heartbeat,
            dead=dead,
            orphan_after=orphan_after,
            buffer_messages=buffer_messages,
            buffer_bytes=buffer_bytes,
        )
        for module, package in _PACKAGES.items():
            if find_spec(module) is None:
                raise MissingExtra(f"{target.scheme}://", "grpc", package=package)
        if target.path:
            raise InvalidURL(f"{target}: grpc:// has one name behind the address, as in grpc://127.0.0.1:7001/orders")
        if target.user is not None:
            raise InvalidURL(f"{target}: grpc:// knows no user names")
        if not target.hosts:
            raise InvalidURL(f"{target}: grpc:// needs an address, as in grpc://127.0.0.1:7001/{target.name}")
        for host in target.hosts:
            target.address(host)
        if frame_timeout < dead:
            raise ConfigError(f"{target}: frame_timeout={frame_timeout:g} must not be shorter than dead={dead:g}")
        where = str(target)
        files = {"ca": ca, "cert": cert, "key": key, "tls_min": tls_min}
        self.tls = Tls.of(files, secure=target.scheme == "grpcs", where=where)
        if self.tls is not None and self.tls.minimum != "1.2":
            raise NotSupported(f"{where}: gRPC cannot be told a lowest TLS version; it takes 1.2 and 1.3")
        self.token = Secret.of(target, "token", token, family="grpc")
        self.settings = Settings(
            heartbeat,
            dead,
            orphan_after,
            hello_timeout,
            frame_timeout,
            keepalive,
            max_frame_bytes,
            max_connections,
            # Receivers of different names at one address share its certificate.
            tls=None if self.tls is None else replace(self.tls, where=f"{target.scheme}://{target.hosts[0]}"),
            token=Token(self.token) if self.token.given else None,
        )

    def capabilities(self) -> Capabilities:
        """The same as those of every transport that keeps links itself."""
        return self._link_capabilities(self.settings.dead, self.settings.max_frame_bytes)

    def sender(self) -> SenderDriver:
        from simlink.channels.grpc.sender import GrpcSender

        if len(self.target.hosts) > 1:
            raise NotSupported(
                f"{self.target}: this is the driver of one endpoint; for several endpoints simlink.queue makes a pool"
            )
        return GrpcSender(self)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        from simlink.channels.grpc.receiver import GrpcReceiver

        where = self._to_bind(subscription, options)
        return GrpcReceiver(self, self.settings, where, subscription, options)

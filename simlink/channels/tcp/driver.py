"""tcp:// as a driver: its options, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from simlink.channels import credentials, tls
from simlink.channels.driver import Capabilities, Mode, ReceiverDriver, ReceiverOptions, SenderDriver
from simlink.channels.link import proof
from simlink.channels.link.driver import BUFFERS, LinkDriver, times
from simlink.channels.tcp.receiver import TcpReceiver
from simlink.channels.tcp.sender import TcpSender
from simlink.channels.tcp.settings import Settings
from simlink.channels.url import Option, Target
from simlink.errors import InvalidURL, NotSupported

__all__ = ["TcpDriver"]


class TcpDriver(LinkDriver):
    """Queues and topics over TCP, plain (``tcp``) or with TLS (``tcps``): the receiver listens at the address of the
    URL, the sender connects.

    A port of 0 binds a free one, which this driver's own sender then finds.
    """

    schemes: ClassVar[tuple[str, ...]] = ("tcp", "tcps")
    several: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Option]] = {
        **times("connection"),
        "hello_timeout": Option(float, 5.0, "seconds that a new connection has to introduce itself", minimum=0.01),
        "frame_timeout": Option(float, 30.0, "seconds that a begun frame has to be completed", minimum=0.01),
        "max_frame_bytes": Option(
            int, 8 * 1024 * 1024, "the longest frame, and so about the longest body", minimum=1024
        ),
        "max_connections": Option(int, 1024, "how many senders a listener lets in", minimum=1),
        "unread_bytes": Option(
            int,
            64 * 1024 * 1024,
            "what a listener holds of incomplete frames, over all connections; beyond it they are not read",
            minimum=1,
        ),
        **BUFFERS,
        **tls.OPTIONS,
        **credentials.SECRET,
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
        max_frame_bytes: int = 8 * 1024 * 1024,
        max_connections: int = 1024,
        unread_bytes: int = 64 * 1024 * 1024,
        buffer_messages: int = 65_536,
        buffer_bytes: int = 16 * 1024 * 1024,
        **security: Any,
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
        scheme = target.scheme
        if target.path:
            raise InvalidURL(f"{target}: {scheme}:// has one name behind the address, as in {scheme}://h:7001/orders")
        if target.user is not None:
            raise InvalidURL(f"{target}: {scheme}:// knows no user names")
        if not target.hosts:
            raise InvalidURL(f"{target}: {scheme}:// needs an address, as in {scheme}://127.0.0.1:7001/{target.name}")
        for host in target.hosts:
            target.address(host)
        self.settings = Settings(
            heartbeat,
            dead,
            orphan_after,
            hello_timeout,
            frame_timeout,
            max_frame_bytes,
            max_connections,
            unread_bytes,
            tls.Tls.of(security, secure=scheme == "tcps", where=str(target)),
            credentials.Secret.of(target, "secret", security.get("secret"), family="tcp"),
        )
        if isinstance(security.get("secret"), str):
            proof.checked(security["secret"], str(target))

    def capabilities(self) -> Capabilities:
        """The same as those of every transport that keeps links itself."""
        return self._link_capabilities(self.settings.dead, self.settings.max_frame_bytes)

    def sender(self) -> SenderDriver:
        if len(self.target.hosts) > 1:
            raise NotSupported(
                f"{self.target}: this is the driver of one endpoint; for several endpoints simlink.queue makes a pool"
            )
        return TcpSender(self)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        where = self._to_bind(subscription, options)
        return TcpReceiver(self, self.settings, where, subscription, options)

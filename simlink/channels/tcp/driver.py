"""tcp:// as a driver: its options, and what it promises."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from simlink.channels import credentials, tls
from simlink.channels.driver import (
    Capabilities,
    Driver,
    Kept,
    Mode,
    Nack,
    Order,
    ReceiverDriver,
    ReceiverOptions,
    SenderDriver,
)
from simlink.channels.link import proof
from simlink.channels.tcp.receiver import TcpReceiver
from simlink.channels.tcp.sender import TcpSender
from simlink.channels.tcp.settings import Bounds, Settings
from simlink.channels.url import Host, Option, Target
from simlink.errors import ConfigError, ConnectError, InvalidURL, NotSupported

__all__ = ["TcpDriver"]

_HEAD_ROOM = 512
"""Bytes of a frame that are not the body of its one message: positions, identity, a content type."""


class TcpDriver(Driver):
    """Queues and topics over TCP, plain (``tcp``) or with TLS (``tcps``): the receiver listens at the address of the
    URL, the sender connects.

    A port of 0 binds a free one, which this driver's own sender then finds.
    """

    schemes: ClassVar[tuple[str, ...]] = ("tcp", "tcps")
    several: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Option]] = {
        "heartbeat": Option(float, 1.0, "seconds after which a silent end is heard anyway", minimum=0.01),
        "dead": Option(float, 5.0, "seconds of silence after which a connection is given up", minimum=0.02),
        "orphan_after": Option(
            float, 10.0, "seconds of silence after which a lost sender's messages are handed out again", minimum=0.02
        ),
        "hello_timeout": Option(float, 5.0, "seconds that a new connection has to introduce itself", minimum=0.01),
        "frame_timeout": Option(float, 30.0, "seconds that a begun frame has to be completed", minimum=0.01),
        "max_frame_bytes": Option(
            int, 8 * 1024 * 1024, "the longest frame, and so about the longest body", minimum=1024
        ),
        "max_connections": Option(int, 1024, "how many senders a listener lets in", minimum=1),
        "buffer_messages": Option(int, 65_536, "bound of each subscription's buffer, in messages", minimum=1),
        "buffer_bytes": Option(int, 16 * 1024 * 1024, "the same in bytes", minimum=1),
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
        buffer_messages: int = 65_536,
        buffer_bytes: int = 16 * 1024 * 1024,
        **security: Any,
    ) -> None:
        super().__init__(target, mode=mode)
        scheme = target.scheme
        if target.path:
            raise InvalidURL(f"{target}: {scheme}:// has one name behind the address, as in {scheme}://h:7001/orders")
        if target.user is not None:
            raise InvalidURL(f"{target}: {scheme}:// knows no user names")
        if not target.hosts:
            raise InvalidURL(f"{target}: {scheme}:// needs an address, as in {scheme}://127.0.0.1:7001/{target.name}")
        for host in target.hosts:
            target.address(host)
        if dead <= heartbeat:
            raise ConfigError(f"{target}: dead={dead:g} must be longer than heartbeat={heartbeat:g}")
        if orphan_after < dead:
            raise ConfigError(f"{target}: orphan_after={orphan_after:g} must not be shorter than dead={dead:g}")
        self.settings = Settings(
            heartbeat,
            dead,
            orphan_after,
            hello_timeout,
            frame_timeout,
            max_frame_bytes,
            max_connections,
            tls.Tls.of(security, secure=scheme == "tcps", where=str(target)),
            credentials.Secret.of(target, "secret", security.get("secret"), family="tcp"),
        )
        if isinstance(security.get("secret"), str):
            proof.checked(security["secret"], str(target))
        self.bounds = Bounds(buffer_messages, buffer_bytes)
        self.binding = threading.Lock()
        self.bound_port = 0
        """What port 0 became, once a receiver of this driver was opened."""

    def capabilities(self) -> Capabilities:
        """One endpoint: order is exclusive per key. A named subscription is remembered while something of its
        destination is received in its process, which is no promise, so ``subscriptions`` is false."""
        return Capabilities(
            kept=Kept.NO,
            order=Order.EXCLUSIVE,
            nack=Nack.EMULATED,
            brokerless=True,
            subscriptions=False,
            takeover=self.settings.dead,
            max_message_bytes=self.settings.max_frame_bytes - _HEAD_ROOM,
        )

    def sender(self) -> SenderDriver:
        if len(self.target.hosts) > 1:
            raise NotSupported(
                f"{self.target}: sending to several endpoints is not supported by {self.target.scheme}:// yet; name one"
            )
        return TcpSender(self)

    def endpoint(self) -> tuple[str, int]:
        """Where to connect.

        Raises:
            ConnectError: the port is 0, and no receiver of this channel has bound one.
        """
        host, port = self.target.address(self.target.hosts[0])
        if not port:
            port = self.bound_port
        if not port:
            raise ConnectError(
                f"{self.target}: port 0 becomes a port when a receiver of this channel is entered, and none was",
                url=str(self.target),
                retryable=True,
            )
        return host, port

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        where = str(self.target)
        if options.start not in {None, "new"} or (options.start == "new" and self.mode is Mode.QUEUE):
            raise NotSupported(f"{where}: start={options.start!r} needs a broker that keeps what was sent")
        if options.exclusive:
            raise NotSupported(f"{where}: exclusive=True is for brokers; here one process receives at an address")
        if options.extra:
            raise ConfigError(f"{where}: unknown receiver option {next(iter(options.extra))!r}")
        if subscription is not None and self.mode is Mode.QUEUE:
            raise ConfigError(f"{where}: a queue has no subscriptions")
        host = self._host_to_bind(options.at)
        name, port = self.target.address(host)
        return TcpReceiver(self, name, port, subscription, options)

    def _host_to_bind(self, at: str | None) -> Host:
        hosts = self.target.hosts
        if at is None:
            if len(hosts) > 1:
                raise ConfigError(f"{self.target}: several hosts; say which one this receiver binds with at=")
            return hosts[0]
        for host in hosts:
            if at in {str(host), host.name}:
                return host
        raise ConfigError(f"{self.target}: at={at!r} is none of its hosts")

"""What the drivers have in common whose receivers listen themselves: tcp, http and grpc."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import ClassVar

from simlink.channels.driver import Capabilities, Driver, Kept, Mode, Nack, Order, ReceiverOptions
from simlink.channels.link.reception import Bounds
from simlink.channels.url import Host, Option, Target
from simlink.errors import ConfigError, ConnectError, NotSupported

__all__ = ["BUFFERS", "LinkDriver", "times"]

_HEAD_ROOM = 512
"""Bytes of a frame that are not the body of its one message: positions, identity, a content type."""
BUFFERS: Mapping[str, Option] = {
    "buffer_messages": Option(int, 65_536, "bound of each subscription's buffer, in messages", minimum=1),
    "buffer_bytes": Option(int, 16 * 1024 * 1024, "the same in bytes", minimum=1),
}


def times(dead: str) -> dict[str, Option]:
    """The options that say when somebody is given up; ``dead`` is what happens then."""
    return {
        "heartbeat": Option(float, 1.0, "seconds after which a silent end is heard anyway", minimum=0.01),
        "dead": Option(float, 5.0, f"seconds of silence after which a {dead} is given up", minimum=0.02),
        "orphan_after": Option(
            float, 10.0, "seconds of silence after which a lost sender's messages are handed out again", minimum=0.02
        ),
    }


class LinkDriver(Driver):
    """A driver whose receivers listen at an address of its URL.

    Args:
        target, mode: as in Driver.
        heartbeat, dead, orphan_after: seconds; see `times`.
        buffer_messages, buffer_bytes: see `BUFFERS`.

    Attributes:
        bounds: of a destination's buffer.
        binding: held while a receiver binds.
        bound_port: what port 0 became, once a receiver of this driver was opened.

    Raises:
        ConfigError: the times do not go together.
    """

    default_ports: ClassVar[Mapping[str, int]] = {}
    """By scheme: what a URL without a port means, if anything."""

    def __init__(
        self,
        target: Target,
        *,
        mode: Mode,
        heartbeat: float,
        dead: float,
        orphan_after: float,
        buffer_messages: int,
        buffer_bytes: int,
    ) -> None:
        super().__init__(target, mode=mode)
        if dead <= heartbeat:
            raise ConfigError(f"{target}: dead={dead:g} must be longer than heartbeat={heartbeat:g}")
        if orphan_after < dead:
            raise ConfigError(f"{target}: orphan_after={orphan_after:g} must not be shorter than dead={dead:g}")
        self.bounds = Bounds(buffer_messages, buffer_bytes)
        self.binding = threading.Lock()
        self.bound_port = 0

    def _link_capabilities(self, dead: float, max_frame_bytes: int) -> Capabilities:
        """One endpoint: order is exclusive per key. A named subscription is remembered while something of its
        destination is received in its process, which is no promise, so ``subscriptions`` is false."""
        return Capabilities(
            kept=Kept.NO,
            order=Order.EXCLUSIVE,
            nack=Nack.EMULATED,
            brokerless=True,
            subscriptions=False,
            takeover=dead,
            max_message_bytes=max_frame_bytes - _HEAD_ROOM,
        )

    def _address(self, host: Host) -> tuple[str, int]:
        return self.target.address(host, self.default_ports.get(self.target.scheme))

    def endpoint(self) -> tuple[str, int]:
        """Where to connect.

        Raises:
            ConnectError: the port is 0, and no receiver of this channel has bound one.
        """
        host, port = self._address(self.target.hosts[0])
        if not port:
            port = self.bound_port
        if not port:
            raise ConnectError(
                f"{self.target}: port 0 becomes a port when a receiver of this channel is entered, and none was",
                url=str(self.target),
                retryable=True,
            )
        return host, port

    def _to_bind(self, subscription: str | None, options: ReceiverOptions) -> tuple[str, int]:
        """Where a receiver listens.

        Raises:
            NotSupported: it asks for what only a broker has. ConfigError: it asks for what makes no sense.
        """
        where = str(self.target)
        if options.start not in {None, "new"} or (options.start == "new" and self.mode is Mode.QUEUE):
            raise NotSupported(f"{where}: start={options.start!r} needs a broker that keeps what was sent")
        if options.exclusive:
            raise NotSupported(f"{where}: exclusive=True is for brokers; here one process receives at an address")
        if options.extra:
            raise ConfigError(f"{where}: unknown receiver option {next(iter(options.extra))!r}")
        if subscription is not None and self.mode is Mode.QUEUE:
            raise ConfigError(f"{where}: a queue has no subscriptions")
        return self._address(self._host_to_bind(options.at))

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

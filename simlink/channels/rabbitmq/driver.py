"""The RabbitMQ transport: what it promises, and its two ends."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

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
from simlink.channels.rabbitmq.settings import MAX_MESSAGE_BYTES, MAX_NAME_BYTES, OPTIONS, Settings
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, MissingExtra, NotSupported

__all__ = ["RabbitMQDriver"]

MISSED_BEATS = 3
"""A server looks for signs of life once a heartbeat, and gives a peer up when it saw none twice: after two to three."""


class RabbitMQDriver(Driver):
    """``amqp://[user:password@]host[:5672][,host…][/vhost]/name``, with pika; ``amqps://`` with TLS, on port 5671.

    A queue is the durable queue NAME, reached through the default exchange. A topic is the durable exchange NAME with
    a durable queue NAME.SUBSCRIPTION for each named subscription and an expiring one for an unnamed.
    """

    schemes: ClassVar[tuple[str, ...]] = ("amqp", "amqps")
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(self, target: Target, *, mode: Mode, **options: Any) -> None:
        super().__init__(target, mode=mode)
        if find_spec("pika") is None:
            raise MissingExtra(f"{target.scheme}://", "rabbitmq", package="pika")
        self.settings = Settings.of(target, mode, options)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kept=Kept.DURABLE,
            order=Order.DISPATCH,
            nack=Nack.NATIVE,
            identity=self.settings.identity,
            takeover=float(self.settings.heartbeat * MISSED_BEATS),
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_key_bytes=MAX_NAME_BYTES,
        )

    def sender(self) -> SenderDriver:
        from simlink.channels.rabbitmq.sender import RabbitMQSender

        return RabbitMQSender(self.settings)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        """Raises NotSupported, ConfigError: an option that has no meaning here."""
        from simlink.channels.rabbitmq.receiver import RabbitMQReceiver

        if options.at is not None:
            raise NotSupported(f"at={options.at!r}: a RabbitMQ receiver binds no address")
        if options.overflow != "block":
            raise NotSupported(f"overflow={options.overflow!r}: RabbitMQ keeps what its receivers have not read")
        if options.start is not None or options.reset:
            raise NotSupported("start=: RabbitMQ's queues forget what was acknowledged, so there is nothing to replay")
        if options.exclusive and self.mode is Mode.TOPIC and subscription is None:
            raise NotSupported("exclusive=True: an unnamed subscription has one receiver anyway")
        if options.extra:
            raise ConfigError(f"unknown receiver options for RabbitMQ: {', '.join(sorted(options.extra))}")
        if self.mode is Mode.TOPIC:
            _ = self.settings.bindings  # refuses a direct exchange without one
        return RabbitMQReceiver(self.settings, self.settings.queue_of(subscription), options)

    def purge(self, timeout: float) -> int:
        from simlink.channels.rabbitmq import admin

        if self.mode is Mode.TOPIC:
            raise NotSupported(
                f"purge(): the topic {self.settings.url} holds nothing itself; delete_subscription() drops what a "
                "subscription holds"
            )
        return admin.purge(self.settings, timeout)

    def delete(self, timeout: float) -> None:
        from simlink.channels.rabbitmq import admin

        admin.delete(self.settings, timeout)

    def delete_subscription(self, name: str, timeout: float) -> None:
        from simlink.channels.rabbitmq import admin

        queue = self.settings.queue_of(name)
        assert queue is not None
        admin.delete_queue(self.settings, queue, timeout)

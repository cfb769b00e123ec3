"""The Kafka transport: which client library serves it, what it promises, and its two ends."""

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
from simlink.channels.kafka import admin
from simlink.channels.kafka.clients import Client
from simlink.channels.kafka.settings import OPTIONS, Settings
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, MissingExtra, NotSupported

__all__ = ["KafkaDriver"]


class KafkaDriver(Driver):
    """``kafka://broker[:9092][,broker…]/topic``: confluent-kafka where it is installed, else kafka-python.

    ``kafka+confluent://`` and ``kafka+python://`` force one of them; ``kafkas`` instead of ``kafka`` is TLS. A queue
    is the consumer group NAME; a named subscription of a topic is the group NAME.SUBSCRIPTION; an unnamed one reads
    without a group.
    """

    schemes: ClassVar[tuple[str, ...]] = (
        "kafka",
        "kafka+confluent",
        "kafka+python",
        "kafkas",
        "kafkas+confluent",
        "kafkas+python",
    )
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(self, target: Target, *, mode: Mode, **options: Any) -> None:
        super().__init__(target, mode=mode)
        self.settings = Settings.of(target, mode, options)
        self._client = _client(target.scheme)
        self._client.check(self.settings)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kept=Kept.REPLAYABLE,
            order=Order.EXCLUSIVE,
            nack=Nack.EMULATED,
            identity=self.settings.identity,
            replay=True,
            takeover=self.settings.session_timeout,
            max_message_bytes=self.settings.max_message_bytes,
        )

    def sender(self) -> SenderDriver:
        from simlink.channels.kafka.sender import KafkaSender

        return KafkaSender(self._client, self.settings)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        """Raises NotSupported: an option that has no meaning here."""
        from simlink.channels.kafka.receiver import KafkaReceiver

        if options.at is not None:
            raise NotSupported(f"at={options.at!r}: a Kafka receiver binds no address")
        if options.overflow != "block":
            raise NotSupported(f"overflow={options.overflow!r}: a Kafka topic keeps what its receivers have not read")
        if options.exclusive and (self.settings.partitions != 1 or self.settings.group_of(subscription) is None):
            raise NotSupported(
                "exclusive=True: Kafka keeps each key's order over receivers that share the partitions; for one "
                "receiver at a time give partitions=1 and share a group"
            )
        if options.extra:
            raise ConfigError(f"unknown receiver options for Kafka: {', '.join(sorted(options.extra))}")
        return KafkaReceiver(self._client, self.settings, self.settings.group_of(subscription), options)

    def purge(self, timeout: float) -> int:
        return admin.purge(self._client, self.settings, timeout)

    def delete(self, timeout: float) -> None:
        admin.delete_topic(self._client, self.settings, timeout)

    def delete_subscription(self, name: str, timeout: float) -> None:
        group = self.settings.group_of(name)
        assert group is not None
        admin.delete_group(self._client, self.settings, group, timeout)


def _client(scheme: str) -> Client:
    forced = scheme.partition("+")[2]
    confluent, python = (find_spec(module) is not None for module in ("confluent_kafka", "kafka"))
    if forced == "confluent" and not confluent:
        raise MissingExtra(f"{scheme}://", "confluent", package="confluent-kafka")
    if forced != "confluent" and not python and (forced == "python" or not confluent):
        raise MissingExtra(f"{scheme}://", "kafka", package="kafka-python")
    if forced == "python" or not confluent:
        from simlink.channels.kafka.python import PythonClient

        return PythonClient()
    from simlink.channels.kafka.confluent import ConfluentClient

    return ConfluentClient()

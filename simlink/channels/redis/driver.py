"""The Redis streams transport: what it promises, and its two ends."""

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
from simlink.channels.redis.settings import OPTIONS, Settings
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, MissingExtra, NotSupported

__all__ = ["RedisDriver", "check_client"]

LARGEST = 512 * 1024 * 1024
"""What Redis takes as one text (proto-max-bulk-len)."""


class RedisDriver(Driver):
    """``redis://[user:password@]host[:6379][,host…][/database]/name``, and ``rediss://`` for TLS.

    The destination is the stream NAME. A queue is its consumer group NAME; a named subscription of a topic is the group
    NAME.SUBSCRIPTION; an unnamed one reads without a group.
    """

    schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss")
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(self, target: Target, *, mode: Mode, **options: Any) -> None:
        super().__init__(target, mode=mode)
        check_client(target.scheme)
        self.settings = Settings.of(target, mode, options)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kept=Kept.REPLAYABLE,
            # Each of several streams is read by one receiver at a time, so a key never goes to two at once.
            order=Order.DISPATCH if len(self.settings.keys) == 1 else Order.EXCLUSIVE,
            nack=Nack.EMULATED,
            identity=self.settings.identity,
            replay=True,
            takeover=self.settings.min_idle,
            max_message_bytes=LARGEST,
        )

    def sender(self) -> SenderDriver:
        from simlink.channels.redis.sender import RedisSender

        return RedisSender(self.settings)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        """Raises NotSupported: an option that has no meaning here."""
        if options.at is not None:
            raise NotSupported(f"at={options.at!r}: a Redis receiver binds no address")
        if options.overflow != "block":
            raise NotSupported(f"overflow={options.overflow!r}: a stream keeps what its receivers have not read")
        if options.extra:
            raise ConfigError(f"unknown receiver options for Redis: {', '.join(sorted(options.extra))}")
        from simlink.channels.redis.receiver import RedisReceiver
        from simlink.channels.redis.sources import source_for

        group = self.settings.group_of(subscription)
        if options.exclusive and group is None:
            raise NotSupported("exclusive=True: an unnamed subscription is one receiver's own already")
        return RedisReceiver(self.settings, source_for(self.settings, group, options), options)

    def purge(self, timeout: float) -> int:
        from simlink.channels.redis import admin

        return admin.purge(self.settings, timeout)

    def delete(self, timeout: float) -> None:
        from simlink.channels.redis import admin

        admin.delete(self.settings, timeout)

    def delete_subscription(self, name: str, timeout: float) -> None:
        from simlink.channels.redis import admin

        group = self.settings.group_of(name)
        assert group is not None
        admin.delete_group(self.settings, group, timeout)


def check_client(scheme: str) -> None:
    """Raises MissingExtra: redis-py or hiredis is not installed."""
    for package in ("redis", "hiredis"):
        if find_spec(package) is None:
            raise MissingExtra(f"{scheme}://", "redis", package=package)

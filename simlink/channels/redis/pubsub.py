"""Redis Pub/Sub: the body as it is, to whoever listens at this moment, and to nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from simlink.channels.driver import (
    Capabilities,
    Driver,
    Guarantee,
    Kept,
    Mode,
    Nack,
    Order,
    ReceiverDriver,
    ReceiverOptions,
    SenderDriver,
)
from simlink.channels.redis.driver import LARGEST, check_client
from simlink.channels.redis.settings import COMMON, Address
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, NotSupported

__all__ = ["RedisPubSubDriver"]


class RedisPubSubDriver(Driver):
    """``redis+pubsub://[user:password@]host[:6379][,host…]/name?delivery=at-most-once``: the channel NAME.

    A message is its body and nothing else, so that any client can publish and subscribe: no key, no headers, no
    identity. There are no queues and no named subscriptions. The database of the URL means nothing to Pub/Sub.
    """

    schemes: ClassVar[tuple[str, ...]] = ("redis+pubsub", "rediss+pubsub")
    options: ClassVar[Mapping[str, Option]] = {
        **COMMON,
        "delivery": Option(
            str, None, "must be 'at-most-once', which is what Pub/Sub can promise", choices=("at-most-once",)
        ),
    }

    def __init__(self, target: Target, *, mode: Mode, **options: Any) -> None:
        """Raises NotSupported: a queue, or at-most-once was not asked for."""
        super().__init__(target, mode=mode)
        check_client(target.scheme)
        if mode is Mode.QUEUE:
            raise NotSupported(f"{target}: Pub/Sub has no queues: use redis://, or a topic")
        if options.get("delivery") is None:
            raise NotSupported(
                f"{target}: Pub/Sub drops what nobody listens to: ask for it by delivery='at-most-once', or use redis://"
            )
        self._address = Address.of(target, {name: options.get(name, COMMON[name].default) for name in COMMON})

    def capabilities(self) -> Capabilities:
        return Capabilities(
            guarantee=Guarantee.AT_MOST_ONCE,
            kept=Kept.NO,
            order=Order.DISPATCH,
            nack=Nack.EMULATED,
            keys=False,
            headers=False,
            identity=False,
            subscriptions=False,
            max_message_bytes=LARGEST,
        )

    def sender(self) -> SenderDriver:
        from simlink.channels.redis.publish import Publisher

        return Publisher(self._address, self.target.name)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        """Raises NotSupported: an option that has no meaning here."""
        from simlink.channels.redis.subscribe import Subscriber

        if subscription is not None:
            raise NotSupported(
                f"{self.target}: Pub/Sub remembers no subscription {subscription!r}; use redis://, or an unnamed one"
            )
        if options.exclusive:
            raise NotSupported("exclusive=True: every Pub/Sub receiver gets every message")
        if options.overflow != "block":
            raise NotSupported(f"overflow={options.overflow!r}: Pub/Sub's buffer is the server's own")
        if options.extra:
            raise ConfigError(f"unknown receiver options for Pub/Sub: {', '.join(sorted(options.extra))}")
        return Subscriber(self._address, self.target.name, options)

"""Which driver serves which URL scheme.

The table is text, so that no client library is loaded before a URL asks for it. Other packages add theirs by an entry
point in the group ``simlink.drivers``: the scheme as its name, ``module:Class`` as its value.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from simlink.channels.driver import Driver
from simlink.errors import ConfigError, MissingExtra, UnknownScheme, did_you_mean

__all__ = ["driver_class", "known_schemes"]

_BUILT_IN = {
    "memory": "simlink.channels.memory:MemoryDriver",
    "tcp": "simlink.channels.tcp:TcpDriver",
    "tcps": "simlink.channels.tcp:TcpDriver",
    "http": "simlink.channels.http:HttpDriver",
    "https": "simlink.channels.http:HttpDriver",
    "grpc": "simlink.channels.grpc:GrpcDriver",
    "grpcs": "simlink.channels.grpc:GrpcDriver",
    "kafka": "simlink.channels.kafka:KafkaDriver",
    "kafka+python": "simlink.channels.kafka:KafkaDriver",
    "kafka+confluent": "simlink.channels.kafka:KafkaDriver",
    "kafkas": "simlink.channels.kafka:KafkaDriver",
    "kafkas+python": "simlink.channels.kafka:KafkaDriver",
    "kafkas+confluent": "simlink.channels.kafka:KafkaDriver",
    "amqp": "simlink.channels.rabbitmq:RabbitMQDriver",
    "amqps": "simlink.channels.rabbitmq:RabbitMQDriver",
    "redis": "simlink.channels.redis:RedisDriver",
    "rediss": "simlink.channels.redis:RedisDriver",
    "redis+pubsub": "simlink.channels.redis:RedisPubSubDriver",
    "rediss+pubsub": "simlink.channels.redis:RedisPubSubDriver",
}


@cache
def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group="simlink.drivers")}


def known_schemes() -> list[str]:
    """Every scheme that a URL may have here, built in or installed."""
    return sorted({*_BUILT_IN, *_installed()})


@cache
def driver_class(scheme: str) -> type[Driver]:
    """The driver for a scheme.

    Raises:
        UnknownScheme: nobody serves it; with a did-you-mean.
        ConfigError: the entry point of another package does not lead to a Driver.
        MissingExtra: the driver needs a package that is not installed.
    """
    where = _BUILT_IN.get(scheme) or _installed().get(scheme)
    if where is None:
        # It may have been installed since this process first looked: a notebook should not need a restart.
        _installed.cache_clear()
        where = _installed().get(scheme)
    if where is None:
        raise UnknownScheme(f"no transport for {scheme}://{did_you_mean(scheme, known_schemes())}")
    module, _, name = where.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except MissingExtra:
        raise
    except ImportError as error:
        raise ConfigError(f"{scheme}:// is registered as {where!r}, which cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise ConfigError(f"{scheme}:// is registered as {where!r}, which is not a Driver")
    return found

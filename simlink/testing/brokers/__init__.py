"""Real brokers for tests, without containers: Kafka, RabbitMQ and Redis servers that live as long as a ``with`` block.

::

    with KafkaBroker() as broker:
        channel = simlink.queue(f"{broker.url}/orders")
        broker.stop()  # and start(), kill(), pause(), resume()

Each listens on free ports of 127.0.0.1, keeps its data in a temporary folder, is ready when entered, and dies with
this process however that ends. The environment variables SIMLINK_KAFKA_URL, SIMLINK_AMQP_URL and SIMLINK_REDIS_URL
name servers that are already running, and win.

With ``tls=Certificates(cert, key, ca)`` a server of our own speaks TLS only, with ``user=`` and ``password=`` it lets
nobody else in; ``broker.url`` then has the scheme and the credentials that belong to that.
"""

from __future__ import annotations

from typing import Final

from simlink.testing.brokers.base import Broker, BrokerFailed, BrokerUnavailable
from simlink.testing.brokers.kafka import KafkaBroker
from simlink.testing.brokers.rabbitmq import RabbitMQBroker
from simlink.testing.brokers.redis import RedisBroker
from simlink.testing.brokers.security import Certificates

__all__ = [
    "BROKERS",
    "Broker",
    "BrokerFailed",
    "BrokerUnavailable",
    "Certificates",
    "KafkaBroker",
    "RabbitMQBroker",
    "RedisBroker",
    "available",
]

BROKERS: Final[dict[str, type[Broker]]] = {"kafka": KafkaBroker, "rabbitmq": RabbitMQBroker, "redis": RedisBroker}
"""Every broker by its name."""


def available() -> dict[str, tuple[bool, str]]:
    """Which brokers can be had on this machine; starts and downloads nothing.

    Returns:
        The broker's name → (True, where it comes from) or (False, how to get it, in one line).
    """
    found: dict[str, tuple[bool, str]] = {}
    for name, broker in BROKERS.items():
        try:
            found[name] = (True, broker.source())
        except BrokerUnavailable as error:
            found[name] = (False, str(error))
    return found

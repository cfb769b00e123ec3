"""What is done to a destination from outside, each over a connection of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from simlink.channels.driver import Mode
from simlink.channels.rabbitmq.link import Link, left
from simlink.channels.rabbitmq.settings import Settings
from simlink.channels.rabbitmq.topology import Setup, known_queues

__all__ = ["delete", "delete_queue", "purge"]


@contextmanager
def _setup(settings: Settings, timeout: float) -> Iterator[Setup]:
    deadline = time.monotonic() + timeout
    link = Link(settings, "admin", lambda: None)
    link.open(timeout)
    try:
        yield Setup(link, settings, deadline)
    finally:
        link.close(left(deadline))


def purge(settings: Settings, timeout: float) -> int:
    """Drop what the queue holds and nobody has in hand; how many messages. None are there where it is not."""
    queue = settings.queue_of(None)
    assert queue is not None
    with _setup(settings, timeout) as setup:
        if not setup.queue_exists(queue):
            return 0
        answer = setup.ask(f"purging the queue {queue!r}", lambda c, give: c.queue_purge(queue, callback=give))
        return int(answer.method.message_count)


def delete(settings: Settings, timeout: float) -> None:
    """Remove the queue; or the exchange, and the queues of its subscriptions as far as this process made them."""
    with _setup(settings, timeout) as setup:
        if settings.mode is Mode.QUEUE:
            queues = {settings.queue_of(None)}
        else:
            exchange = settings.topic_exchange
            setup.ask(f"deleting the exchange {exchange!r}", lambda c, give: c.exchange_delete(exchange, callback=give))
            queues = set(known_queues(settings))
        for queue in sorted(filter(None, queues)):
            _delete_queue(setup, settings, queue)


def delete_queue(settings: Settings, queue: str, timeout: float) -> None:
    """Remove a subscription's queue; nothing if it is not there."""
    with _setup(settings, timeout) as setup:
        _delete_queue(setup, settings, queue)


def _delete_queue(setup: Setup, settings: Settings, queue: str) -> None:
    # RabbitMQ answers "deleted" for what is not there as well.
    setup.ask(f"deleting the queue {queue!r}", lambda c, give: c.queue_delete(queue, callback=give))
    if settings.mode is Mode.TOPIC:
        known_queues(settings, drop=queue)

"""Exchanges, queues and bindings: what is missing is declared, what is there is compared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Mode
from simlink.channels.rabbitmq.failures import NOT_FOUND, operation_failure, reply_code
from simlink.channels.rabbitmq.link import Link
from simlink.channels.rabbitmq.settings import PRIVATE_EXPIRES_MS, Settings
from simlink.errors import ConfigError

if TYPE_CHECKING:
    from pika.channel import Channel

__all__ = ["Setup", "known_queues", "prepare_receiver", "prepare_sender"]

_known: dict[tuple[tuple[tuple[str, int], ...], str, str], set[str]] = {}
_known_lock = threading.Lock()


def known_queues(settings: Settings, *, add: str | None = None, drop: str | None = None) -> set[str]:
    """The queues of named subscriptions of this topic that this process declared: AMQP cannot list a topic's queues,
    and deleting a topic should leave nothing of ours behind."""
    key = (settings.hosts, settings.vhost, settings.topic_exchange)
    with _known_lock:
        found = _known.pop(key, set())
        if add is not None:
            found.add(add)
        found.discard(drop or "")
        if found:
            _known[key] = found
        return set(found)


class Setup:
    """Questions to the broker, one after the other, each on a channel that may break over it.

    Raises (all methods):
        ConfigError: what is there was declared otherwise; both sides are shown.
        ConnectError, ConnectTimeout: refused, or the connection broke.
    """

    def __init__(self, link: Link, settings: Settings, deadline: float) -> None:
        self._link = link
        self._settings = settings
        self._deadline = deadline
        self._channel: Channel | None = None

    def ask(self, what: str, start: Callable[[Channel, Callable[..., None]], Any]) -> Any:
        """Do one thing; ``what`` it is, for the error."""
        try:
            return self._ask(start)
        except Exception as error:
            raise operation_failure(error, what, self._settings) from error

    def _ask(self, start: Callable[[Channel, Callable[..., None]], Any]) -> Any:
        channel = self._channel or self._link.channel(self._deadline)
        self._channel = channel
        try:
            return self._link.ask(channel, lambda give: start(channel, give), self._deadline)
        except Exception:
            self._channel = None
            raise

    def exists(self, what: str, start: Callable[[Channel, Callable[..., None]], Any]) -> bool:
        """Whether a passive declaration finds it."""
        try:
            self._ask(start)
        except Exception as error:
            if reply_code(error) == NOT_FOUND:
                return False
            raise operation_failure(error, what, self._settings) from error
        return True

    def queue_exists(self, queue: str) -> bool:
        return self.exists(
            f"looking for the queue {queue!r}", lambda c, give: c.queue_declare(queue, passive=True, callback=give)
        )

    def exchange_exists(self, exchange: str) -> bool:
        return self.exists(
            f"looking for the exchange {exchange!r}",
            lambda c, give: c.exchange_declare(exchange, passive=True, callback=give),
        )

    def declare_queue(self, queue: str, arguments: dict[str, Any]) -> None:
        self.ask(
            f"declaring the queue {queue!r}",
            lambda c, give: c.queue_declare(queue, durable=True, arguments=arguments, callback=give),
        )

    def declare_exchange(self, exchange: str, kind: str) -> None:
        self.ask(
            f"declaring the exchange {exchange!r}",
            lambda c, give: c.exchange_declare(exchange, kind, durable=True, callback=give),
        )

    def bind(self, queue: str, exchange: str, key: str) -> None:
        self.ask(
            f"binding the queue {queue!r} to the exchange {exchange!r}",
            lambda c, give: c.queue_bind(queue, exchange, key, callback=give),
        )

    def close(self) -> None:
        """Let go of the channel."""
        if self._channel is not None:
            self._link.drop_channel(self._channel)
            self._channel = None


def prepare_sender(link: Link, settings: Settings, deadline: float) -> None:
    """A sender's open: the queue of a queue, the exchange of a topic (rule 23 of the semantics)."""
    setup = Setup(link, settings, deadline)
    try:
        if settings.mode is Mode.TOPIC:
            _exchange(setup, settings)
            return
        queue = settings.queue_of(None)
        assert queue is not None
        # How a queue is made is its receivers' business (one of them may be exclusive): a sender whose options do not
        # say anything about it takes the queue that is there.
        if settings.particular or not setup.queue_exists(queue):
            _queue_of_sender(setup, link, settings, queue)
    finally:
        setup.close()


def prepare_receiver(
    link: Link, settings: Settings, queue: str, deadline: float, *, private: bool, exclusive: bool, again: bool
) -> bool:
    """A receiver's open: its queue, and on a topic the exchange and the bindings.

    A ``private`` queue is an unnamed subscription's. False where it was there before (``again``) and is gone now, with
    all that it held; nothing was made then.
    """
    setup = Setup(link, settings, deadline)
    try:
        if settings.mode is Mode.TOPIC:
            _exchange(setup, settings)
        if private:
            if again and not setup.queue_exists(queue):
                return False
            setup.declare_queue(queue, {"x-expires": PRIVATE_EXPIRES_MS})
        else:
            _queue(setup, link, settings, queue, exclusive=exclusive)
        if settings.mode is Mode.TOPIC:
            if not private:
                known_queues(settings, add=queue)
            if private or settings.declare:
                for key in settings.bindings:
                    setup.bind(queue, settings.topic_exchange, key)
        return True
    finally:
        setup.close()


def _exchange(setup: Setup, settings: Settings) -> None:
    exchange = settings.topic_exchange
    if settings.declare:
        setup.declare_exchange(exchange, settings.kind)
    elif not setup.exchange_exists(exchange):
        raise ConfigError(f"there is no exchange {exchange!r} at {settings.servers}, and declare=false makes none")


def _queue_of_sender(setup: Setup, link: Link, settings: Settings, queue: str) -> None:
    try:
        _queue(setup, link, settings, queue, exclusive=False)
    except ConfigError as error:
        if settings.single_active_consumer is not None:
            raise
        # It differs. Where that is no more than that its receiver asked to be alone, it is the receiver's business.
        try:
            _queue(setup, link, settings, queue, exclusive=True)
        except ConfigError:
            raise error from error.__cause__


def _queue(setup: Setup, link: Link, settings: Settings, queue: str, *, exclusive: bool) -> None:
    if not settings.declare:
        if not setup.queue_exists(queue):
            raise ConfigError(f"there is no queue {queue!r} at {settings.servers}, and declare=false makes none")
        return
    dead = settings.dead_letter_exchange
    if dead and not setup.exchange_exists(dead):
        # What is rejected while it is missing would be dropped. Made as simlink.topic() makes its own.
        setup.declare_exchange(dead, "topic")
    setup.declare_queue(queue, settings.queue_arguments(exclusive=exclusive, version=link.version))

"""Channel: one destination at one URL. Concrete; every transport has the same one."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Capabilities, Mode, Order, ReceiverOptions
from simlink.channels.making import make_driver
from simlink.channels.sender import Sender
from simlink.channels.sending import Sending
from simlink.channels.url import Option
from simlink.channels.window import Totals
from simlink.errors import (
    ChannelClosed,
    ConfigError,
    ForkError,
    NotSupported,
    did_you_mean,
)
from simlink.serializers.serializer import Serializer

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from simlink.channels.cloudevents import CloudEvents
    from simlink.channels.pool.driver import PoolDriver
    from simlink.channels.pool.endpoints import Endpoints
    from simlink.channels.receiver import Receiver
    from simlink.health.states import Transition

__all__ = ["Channel", "queue", "topic"]

_OPTIONS: Mapping[str, Option] = {
    "window": Option(int, 65_536, "how many messages may be unresolved at once", minimum=1),
    "window_bytes": Option(int, 16 * 1024 * 1024, "the same in bytes of bodies and keys", minimum=1),
    "max_message_bytes": Option(int, None, "the largest body that may be sent; none of our own by default", minimum=1),
    "close_timeout": Option(float, 30.0, "seconds that leaving the `with` block may take to drain", minimum=0),
    "envelope": Option(str, "none", "what messages are wrapped in", choices=("none", "cloudevents")),
    "event_source": Option(str, None, "the source of CloudEvents that do not name their own; /NAME by default"),
    "event_type": Option(str, None, "the type of those; simlink.message by default"),
}


class Channel(Sending):
    """One destination at one URL: a queue or a topic. Made by `queue` and `topic`; not subclassed.

    A channel is thread-safe. Making and entering one does no I/O; the first send connects and waits for a peer up to
    its timeout. ``close()`` drains. After a fork it is dead in the child: open a new one there.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        mode: Mode,
        *,
        serializer: Serializer | None = None,
        options: Mapping[str, Any],
    ) -> None:
        if serializer is not None and not isinstance(serializer, Serializer):
            raise ConfigError(f"serializer is a Serializer such as simlink.Json(), not {serializer!r}")
        self._driver, self._options = make_driver(url, mode, options, _OPTIONS)
        self.mode = mode
        self.url = self._driver.url
        self.name = self._driver.target.name
        self._serializer = serializer
        self.capabilities: Capabilities = self._driver.capabilities()
        self._envelope = self._enveloped(self._driver.target.scheme)
        self._guard = threading.RLock()
        self._sender: Sender | None = None
        self._receivers: list[Receiver] = []
        self._closed = False
        self._pid = os.getpid()
        self._producer = secrets.token_bytes(16)
        self._sequence = 0
        limits = (self._options["max_message_bytes"], self.capabilities.max_message_bytes)
        self._body_limit: int | None = min((x for x in limits if x is not None), default=None)
        self._bare = not (self.capabilities.keys and self.capabilities.headers)

    def _enveloped(self, scheme: str) -> CloudEvents | None:
        source, kind = self._options["event_source"], self._options["event_type"]
        if self._options["envelope"] == "none":
            if (source, kind) != (None, None):
                raise ConfigError(f"{self.url}: event_source= and event_type= go with envelope='cloudevents'")
            return None
        if not self.capabilities.headers:
            raise NotSupported(f"{self.url}: an envelope is in the headers, and this transport carries none")
        from simlink.channels.cloudevents import CloudEvents

        return CloudEvents(scheme, self.name, source=source, type=kind)

    # --- receiving ----------------------------------------------------------------------------------------------

    def receiver(
        self,
        subscription: str | None = None,
        *,
        settle: str = "auto",
        prefetch: int | None = None,
        start: str | int | datetime | None = None,
        reset: bool = False,
        at: str | None = None,
        idle: float | None = None,
        overflow: str = "block",
        exclusive: bool = False,
        settle_timeout: float | None = None,
        dead_letter: str | Channel | None = None,
        max_attempts: int | None = None,
        serializer: Serializer | None = None,
    ) -> Receiver:
        """A receiving end, unopened: it subscribes when it is entered (``with``), or at its first call.

        Args:
            subscription: on a topic, the name to share and be remembered under; None is private and starts now.
            settle: "auto": asking for the next message acknowledges the previous one; "manual": you call
                ``ack()``, ``nack()`` or ``reject()``.
            prefetch: how many messages it may hold unsettled; 500 on brokers, 65,536 otherwise.
            start: "earliest", "new", an offset or a time, where the transport can replay.
            reset: let ``start`` move a subscription that exists.
            at: which of several hosts in the URL this process listens on (brokerless).
            idle: iteration ends after this many quiet seconds; None waits until the receiver is closed.
            overflow: when a topic's subscription is full (memory and brokerless): "block" lets senders wait, "drop"
                drops what comes and counts it (``dropped``; to its sender it is rejected). Over a network one that
                drops is full at half the buffer; a sender with a smaller ``window`` waits for it all the same.
            settle_timeout: take a message back when it was not settled within this many seconds; None never does.
            exclusive: one receiver at a time gets messages, others that ask for the same stand by; order then survives
                a takeover. NotSupported where the transport has no such thing.
            dead_letter: the URL of a queue on any transport, or an open channel, for what was rejected, cannot be read,
                or failed too often; see `simlink.channels.deadletters` for the headers it gets. Acknowledged here when
                it is confirmed there.
            max_attempts: of ``dead_letter``: a message that fails when it was handed out so often goes there. It fails
                when it is nacked, overstays ``settle_timeout``, is in hand when an exception ends the receiver, or
                comes again as the first of what a lost receiver held. It counts as ``attempt`` does: what was fetched
                ahead and never seen was handed out too; ``prefetch=1`` makes the count exact. None never counts.
            serializer: another one than the channel's.

        Raises:
            ConfigError, NotSupported: an argument that this transport cannot honour.
        """
        from simlink.channels.receiver import Receiver

        self._check_open()
        caps = self.capabilities
        if settle not in {"auto", "manual"}:
            raise ConfigError(f"settle is 'auto' or 'manual', not {settle!r}{did_you_mean(settle, ['auto', 'manual'])}")
        if overflow not in {"block", "drop"}:
            raise ConfigError(f"overflow is 'block' or 'drop', not {overflow!r}")
        if subscription is not None and self.mode is Mode.QUEUE:
            raise ConfigError(f"{self.url} is a queue: it has no subscriptions; use simlink.topic() for those")
        if (start is not None or reset) and not caps.replay:
            raise NotSupported(f"{self.url}: start= needs a transport that can replay")
        if at is not None and not caps.brokerless:
            raise NotSupported(f"{self.url}: at= names a host to listen on, and here nobody listens")
        if overflow == "drop" and (self.mode is Mode.QUEUE or caps.order is Order.DISPATCH):
            raise NotSupported(f"{self.url}: overflow='drop' is for topics without a broker")
        if prefetch is None:
            prefetch = 500 if caps.cross_process and not caps.brokerless else 65_536
        elif isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 1:
            raise ConfigError(f"prefetch must be at least 1, not {prefetch!r}")
        for name, seconds in (("idle", idle), ("settle_timeout", settle_timeout)):
            if seconds is not None and (
                isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0
            ):
                raise ConfigError(f"{name} is a number of seconds, not {seconds!r}")
        if serializer is not None and not isinstance(serializer, Serializer):
            raise ConfigError(f"serializer is a Serializer such as simlink.Json(), not {serializer!r}")
        options = ReceiverOptions(
            prefetch=prefetch, start=start, reset=reset, at=at, overflow=overflow, exclusive=exclusive
        )
        driver = self._driver.receiver(subscription, options)
        if dead_letter is None and max_attempts is not None:
            raise ConfigError("max_attempts= goes with dead_letter=, which says where such messages go")
        dead = None
        if dead_letter is not None:
            from simlink.channels.deadletters import DeadLetters

            dead = DeadLetters(dead_letter, max_attempts=max_attempts, origin=self, subscription=subscription)
        receiver = Receiver(
            self,
            driver,
            serializer or self.serializer,
            subscription=subscription,
            manual=settle == "manual",
            prefetch=prefetch,
            idle=idle,
            settle_timeout=settle_timeout,
            dead=dead,
            envelope=self._envelope,
        )
        with self._guard:
            self._receivers = [r for r in self._receivers if not r.closed]
            self._receivers.append(receiver)
        return receiver

    # --- the rest -----------------------------------------------------------------------------------------------

    def purge(self, *, timeout: float = 30.0) -> int:
        """Drop what the destination holds and nobody has in hand; how many messages, -1 where nobody can say."""
        self._check_open()
        return self._driver.purge(timeout)

    def delete(self, *, timeout: float = 30.0) -> None:
        """Remove the destination itself, with its subscriptions and all it holds."""
        self._check_open()
        self._driver.delete(timeout)

    def delete_subscription(self, name: str, *, timeout: float = 30.0) -> None:
        """Forget a named subscription and what it holds."""
        self._check_open()
        if self.mode is Mode.QUEUE:
            raise ConfigError(f"{self.url} is a queue: it has no subscriptions")
        self._driver.delete_subscription(name, timeout)

    @property
    def endpoints(self) -> Endpoints:
        """The endpoints of a channel over several: how each stands, and `add`, `drain` and `remove`.

        Raises:
            NotSupported: it is a channel to one.
        """
        from simlink.channels.pool.endpoints import Endpoints

        self._pool()
        return Endpoints(self.sender)

    def endpoint_counts(self) -> dict[str, dict[str, Any]] | None:
        """What each endpoint was given so far, as in a `Report`; None for a channel to one. Works after `close` too."""
        from simlink.channels.pool.driver import PoolDriver

        if not isinstance(self._driver, PoolDriver):
            return None
        pool = self._driver.made
        return {} if pool is None else pool.counts()

    def on_transition(self, function: Callable[[Transition], object]) -> Callable[[], None]:
        """Call a function whenever an endpoint changes its state, in a thread of its own.

        Returns:
            A function that ends that.

        Raises:
            NotSupported: it is a channel to one endpoint.
        """
        return self._pool().announcer.listen(function)

    def _pool(self) -> PoolDriver:
        from simlink.channels.pool.driver import PoolDriver

        self._check_open()
        if not isinstance(self._driver, PoolDriver):
            raise NotSupported(f"{self.url} is one endpoint; several hosts in the URL, or simlink.pool(), make a pool")
        return self._driver

    @property
    def native(self) -> Any:
        """The client library's own sending object, for what simlink does not cover; None where there is none."""
        return self.sender.driver.native

    def stats(self) -> dict[str, Any]:
        """Counts and depths: what was sent and became of it, what is in flight, and the driver's own figures."""
        sender = self._sender
        if sender is None:
            return {**Totals().as_dict(), "in_flight": 0, "in_flight_bytes": 0, "unconfirmed": 0, "connected": False}
        return sender.stats()

    def close(self, *, timeout: float | None = None) -> int:
        """Drain and release everything: receivers of this channel first give back what they hold, then what was sent
        is waited for (brokerless: until it is settled). Idempotent.

        Args:
            timeout: seconds for all of it; by default the option ``close_timeout`` (30).

        Returns:
            How many sent messages stayed unresolved.
        """
        limit = self._options["close_timeout"] if timeout is None else timeout
        deadline = time.monotonic() + limit
        with self._guard:
            first = not self._closed
            self._closed = True
            receivers, self._receivers = self._receivers, []
            sender = self._sender
        if self._pid != os.getpid():
            return 0
        for receiver in receivers:
            receiver.close(timeout=max(0.0, deadline - time.monotonic()))
        left = 0 if sender is None else sender.close(max(0.0, deadline - time.monotonic()))
        if first:
            self._driver.release()
        return left

    def __enter__(self) -> Self:
        self._check_open()
        self._driver.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise ForkError(f"{self.url} was opened in another process; open a new channel after the fork")
        if self._closed:
            raise ChannelClosed(f"{self.url} is closed")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._sender or self._receivers else "unused"
        return f"<{self.mode.value} {self.url} {state}>"


def queue(url: str, *, serializer: Serializer | None = None, **options: Any) -> Channel:
    """A queue: each message goes to exactly one of its receivers, and is gone once acknowledged.

    Args:
        url: ``scheme://host:port/name``; what a transport takes besides stands behind ``?``.
        serializer: values ↔ bytes; `Json()` by default.
        options: ``window`` (65,536 messages), ``window_bytes`` (16 MiB), ``max_message_bytes``, ``close_timeout``
            (30 s), ``envelope`` ("cloudevents") with ``event_source`` and ``event_type``, and the transport's own. An
            unknown one is refused.

    Raises:
        InvalidURL, UnknownScheme, ConfigError, NotSupported, MissingExtra: before any I/O.
    """
    return Channel(url, Mode.QUEUE, serializer=serializer, options=options)


def topic(url: str, *, serializer: Serializer | None = None, **options: Any) -> Channel:
    """A topic: each subscription gets every message; receivers of one subscription share it. Otherwise as `queue`."""
    return Channel(url, Mode.TOPIC, serializer=serializer, options=options)

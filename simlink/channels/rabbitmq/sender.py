"""The sending end: a window of published and unconfirmed messages, kept full by the link's thread.

The caller's thread turns a batch into rows and posts one callback; the link's thread publishes them a slice at a time,
so that it reads confirmations and keeps heartbeats in between, and refills at half the window. What the broker says
comes back as ranges of positions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pika import spec

from simlink.channels.driver import Mode, Outcome, OutcomeKind, SenderDriver
from simlink.channels.rabbitmq.columns import Row, write_rows
from simlink.channels.rabbitmq.confirms import Confirms
from simlink.channels.rabbitmq.failures import operation_failure, send_failure, unroutable
from simlink.channels.rabbitmq.link import Link, left
from simlink.channels.rabbitmq.settings import Settings
from simlink.channels.rabbitmq.topology import prepare_sender
from simlink.errors import SendError, StateError
from simlink.message import Batch

if TYPE_CHECKING:
    from pika.channel import Channel

__all__ = ["RabbitMQSender"]

log = logging.getLogger("simlink.rabbitmq")

SLICE = 200
"""Messages that are published before the link's thread looks after everything else again."""
FIRST_PAUSE, MAX_PAUSE = 0.05, 1.0
"""How long nothing is published after the broker's nack: what it refused comes again at once, so somebody must wait."""


class RabbitMQSender(SenderDriver):
    """Made by `RabbitMQDriver.sender`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.mode is Mode.TOPIC
        self._queue = None if self._topic else settings.queue_of(None)
        self._exchange = settings.topic_exchange if self._topic else ""
        self._link: Link | None = None
        self._channel: Channel | None = None
        self._lock = threading.Lock()  # over _ready
        self._ready: list[Outcome] = []
        self._held: deque[tuple[int, list[Row]]] = deque()  # (position of the first, rows) to be published
        self._confirms = Confirms()  # the link's thread's
        self._posted = False
        self._paused = False
        self._pause = FIRST_PAUSE
        self._blocked: str | None = None
        self._news = threading.Event()
        self._hungry = False
        self._closed = False
        self._counts = dict.fromkeys(("unrouted", "unroutable", "nacked", "blocked_times"), 0)

    # --- SenderDriver -------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._retire()
        self._closed = False
        link = Link(self._settings, "send", self._news.set)
        link.open(timeout)
        try:
            prepare_sender(link, self._settings, deadline)
            try:
                channel = link.channel(deadline, main=True)
                link.ask(channel, lambda give: self._attend(link, channel, give), deadline)
            except Exception as error:
                raise operation_failure(error, "opening a channel", self._settings) from error
        except BaseException:
            link.close(0.0)
            raise
        self._link, self._channel = link, channel

    def submit(self, batch: Batch, position: int) -> None:
        link = self._opened()
        self._held.append((position, write_rows(batch, self._queue, identity=self._settings.identity)))
        self._check(link)
        if not self._posted:
            self._posted = True
            link.post(self._feed)

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        out = self._collect()
        if out or self._link is None:
            return out
        self._check(self._link)
        if timeout > 0:
            self._hungry = True
            # Looked at again: what came before the flag was up set nothing.
            if not self._ready and self._link.error is None:
                self._news.wait(timeout)
            self._hungry = False
            self._news.clear()
            out = self._collect()
            if not out:
                self._check(self._link)
        return out

    def wake(self) -> None:
        self._news.set()

    def close(self, timeout: float) -> None:
        link = self._link
        if link is None or self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        while link.error is None and self._open_count() and time.monotonic() < deadline:
            self._hungry = True
            self._news.wait(min(0.05, left(deadline)))
            self._news.clear()
        link.close(left(deadline))
        self._link = None
        self._held.clear()

    @property
    def native(self) -> Any:
        return self._channel

    def stats(self) -> Mapping[str, Any]:
        return {
            "client": "pika",
            "in_flight": self._confirms.in_flight,
            "held": sum(len(rows) for _, rows in list(self._held)),
            "blocked": self._blocked,
            **self._counts,
        }

    # --- the caller's side --------------------------------------------------------------------------------------

    def _opened(self) -> Link:
        if self._link is None or self._closed:
            raise StateError("this RabbitMQ sender is not open")
        return self._link

    def _check(self, link: Link) -> None:
        if link.error is not None and not self._closed:
            raise send_failure(link.error, self._settings)

    def _collect(self) -> list[Outcome]:
        if not self._ready:
            return []
        with self._lock:
            out, self._ready = self._ready, []
        return out

    def _open_count(self) -> int:
        return len(self._held) + self._confirms.in_flight

    def _retire(self) -> None:
        """What the earlier link left: published and unanswered is ambiguous, not published is surely not there."""
        link, self._link = self._link, None
        if link is None:
            return
        link.close(0.0)
        for first, stop in self._confirms.rest():
            self._report(OutcomeKind.RETURNED, first, stop, ambiguous=True)
        for position, rows in self._held:
            self._report(OutcomeKind.RETURNED, position, position + len(rows))
        self._held.clear()
        self._confirms = Confirms()
        self._posted = self._paused = False
        self._pause = FIRST_PAUSE
        self._blocked = None

    # --- the link's thread --------------------------------------------------------------------------------------

    def _attend(self, link: Link, channel: Channel, give: Any) -> None:
        link.connection.add_on_connection_blocked_callback(self._on_blocked)
        link.connection.add_on_connection_unblocked_callback(self._on_unblocked)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=give)

    def _feed(self) -> None:
        """Publish a slice of what is held, as far as the window allows."""
        # Before looking: whoever adds something from now on posts anew.
        self._posted = False
        channel, link = self._channel, self._link
        if channel is None or link is None or not channel.is_open or self._paused or self._blocked is not None:
            return
        room = self._settings.confirm_window - self._confirms.in_flight
        budget = min(SLICE, room)
        while budget > 0 and self._held:
            position, rows = self._held.popleft()
            if len(rows) > budget:
                self._held.appendleft((position + budget, rows[budget:]))
                rows = rows[:budget]
            budget -= len(rows)
            self._publish(channel, position, rows)
        if self._held and self._confirms.in_flight < self._settings.confirm_window and not self._posted:
            self._posted = True
            link.post(self._feed)

    def _publish(self, channel: Channel, position: int, rows: list[Row]) -> None:
        exchange, publish = self._exchange, channel.basic_publish
        first = 0
        for at, row in enumerate(rows):
            try:
                # Mandatory on topics too: that is how the messages that nobody gets are counted.
                publish(exchange, row.routing_key, row.body, row.properties, mandatory=True)
            except Exception as error:
                if not channel.is_open:
                    # Only what was surely not handed over goes back; the rest is what the end of the channel makes it.
                    self._confirms.published(position + first, rows[first : at + 1])
                    if rows[at + 1 :]:
                        self._held.appendleft((position + at + 1, rows[at + 1 :]))
                    return
                self._confirms.published(position + first, rows[first:at])
                first = at + 1
                refused = SendError(f"a message that AMQP cannot carry: {error}", url=self._settings.url)
                refused.__cause__ = error
                self._tell(OutcomeKind.FAILED, position + at, position + at + 1, error=refused)
        self._confirms.published(position + first, rows[first:])

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        ranges = self._confirms.resolve(method.delivery_tag, multiple=method.multiple)
        if isinstance(method, spec.Basic.Nack):
            self._counts["nacked"] += sum(stop - first for first, stop in ranges)
            for first, stop in ranges:
                self._tell(OutcomeKind.RETURNED, first, stop, ambiguous=True)
            self._rest()
            return
        self._pause = FIRST_PAUSE
        for first, stop in ranges:
            self._tell(OutcomeKind.CONFIRMED, first, stop)
        if self._held and not self._posted and self._confirms.in_flight * 2 <= self._settings.confirm_window:
            self._feed()

    def _rest(self) -> None:
        if self._paused or self._link is None:
            return
        self._paused = True
        self._link.later(self._pause, self._resume)
        self._pause = min(self._pause * 2, MAX_PAUSE)

    def _resume(self) -> None:
        self._paused = False
        self._feed()

    def _on_return(self, _channel: Channel, method: Any, properties: Any, body: bytes) -> None:
        """Nobody took a message. The answer to its tag comes later; for a queue it means nothing any more."""
        if self._topic:
            self._counts["unrouted"] += 1
            return
        headers = properties.headers or {}
        tag = self._confirms.find(lambda row: row.body == body and (row.properties.headers or {}) == headers)
        if tag is None:
            log.warning("%s: RabbitMQ returned a message that was not sent here", self._settings.url)
            return
        self._counts["unroutable"] += 1
        error = unroutable(str(method.routing_key), int(method.reply_code), str(method.reply_text), self._settings)
        for first, stop in self._confirms.resolve(tag, multiple=False):
            self._tell(OutcomeKind.FAILED, first, stop, error=error)

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self._blocked = str(frame.method.reason)
        self._counts["blocked_times"] += 1
        log.warning("%s: RabbitMQ takes nothing for now: %s", self._settings.url, self._blocked)

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self._blocked = None
        self._feed()

    def _tell(
        self, kind: OutcomeKind, first: int, stop: int, *, ambiguous: bool = False, error: Exception | None = None
    ) -> None:
        self._report(kind, first, stop, ambiguous=ambiguous, error=error)
        if self._hungry:
            # Once, until somebody waits again.
            self._hungry = False
            self._news.set()

    def _report(
        self, kind: OutcomeKind, first: int, stop: int, *, ambiguous: bool = False, error: Exception | None = None
    ) -> None:
        with self._lock:
            ready = self._ready
            if ready and kind is OutcomeKind.CONFIRMED and ready[-1].kind is kind and ready[-1].stop == first:
                ready[-1] = Outcome(kind, ready[-1].first, stop)
            else:
                ready.append(Outcome(kind, first, stop, ambiguous=ambiguous, error=error))

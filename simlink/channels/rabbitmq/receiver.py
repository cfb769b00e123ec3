"""The receiving end: a buffer that the link's thread fills, and verdicts that it carries back.

Prefetch is the broker's own (``basic.qos``), so the buffer needs no bound besides. One lease is one channel: with it go
the buffer, the tags and every verdict that was not sent.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pika import exceptions

from simlink.channels.driver import Incoming, Lease, Mode, ReceiverDriver, ReceiverOptions, Settlement
from simlink.channels.rabbitmq.columns import Delivered, attempts_of, decoded, read_rows
from simlink.channels.rabbitmq.failures import operation_failure, receive_failure
from simlink.channels.rabbitmq.link import Link, left
from simlink.channels.rabbitmq.settings import Settings
from simlink.channels.rabbitmq.tags import Tags, Word, shortened
from simlink.channels.rabbitmq.topology import prepare_receiver
from simlink.errors import ConfigError, ConnectError, StateError, TransportError
from simlink.message import Batch, Same, Verdict

if TYPE_CHECKING:
    from pika.channel import Channel

__all__ = ["RabbitMQReceiver"]

log = logging.getLogger("simlink.rabbitmq")

REMEMBERED = 65_536
"""Of how many nacked messages the number of attempts is known here; a classic queue only says "again"."""

FLOW, ENOUGH, PATIENCE = 8, 200, 0.005
"""In a flow (so many came the last time, no longer ago than four times PATIENCE, in seconds) a receive waits up to
PATIENCE for ENOUGH: to wake a thread for every 18 messages, as they come, and to wake it again for each until it runs,
took about a quarter more processor time a message (measured). A message that comes alone does not wait."""

Identity = tuple[bytes, int]


class _LinkLease(Lease):
    """A hold that ends with its link, or when that can no longer be relied on (rule 10 of the semantics)."""

    __slots__ = ("_given", "_link")

    def __init__(self, name: str, link: Link) -> None:
        self._given = True
        self._link = link
        super().__init__(name)

    @property
    def valid(self) -> bool:
        return self._given and self._link.alive

    @valid.setter
    def valid(self, given: bool) -> None:
        self._given = given


class _Hold:
    """One channel: what was delivered on it, and what was said of that."""

    def __init__(self, name: str, credit: int, link: Link) -> None:
        self.lease = _LinkLease(name, link)
        self.credit = credit
        self.buffer: deque[Delivered] = deque()
        self.link = link
        self.channel: Channel | None = None
        self.lock = threading.Lock()  # over what follows
        self.tags = Tags()
        self.words: list[Word] = []
        self.posted = False
        self.delayed = 0
        self.handed: deque[tuple[range, Batch, Sequence[int]]] = deque()


class RabbitMQReceiver(ReceiverDriver):
    """Made by `RabbitMQDriver.receiver`.

    Args:
        queue: the queue's name; None for an unnamed subscription.
    """

    def __init__(self, settings: Settings, queue: str | None, options: ReceiverOptions) -> None:
        self._settings = settings
        self._topic = settings.mode is Mode.TOPIC
        self._private = queue is None
        self._queue = queue or f"{settings.topic_exchange}.private-{uuid.uuid4().hex}"
        self._exclusive = options.exclusive or bool(settings.single_active_consumer)
        self._asked_exclusive = options.exclusive
        self._prefetch = options.prefetch
        self._hold: _Hold | None = None
        self._joined = False
        self._again: OrderedDict[Identity, int] = OrderedDict()
        self._news = threading.Event()
        self._hungry = 0  # how many messages a waiting receive wants to be woken for; 0 where none waits
        self._woken = False
        self._last_size = 0
        self._last_time = 0.0
        self._counts = dict.fromkeys(("stale", "gaps", "cancelled"), 0)

    # --- joining ------------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._leave(0.0)
        link = Link(self._settings, "recv", self._news.set)
        hold = _Hold(self._queue, self._prefetch, link)
        link.open(timeout)
        try:
            self._prepare(link, deadline)
            try:
                channel = hold.channel = link.channel(deadline, main=True)
                channel.add_on_cancel_callback(partial(self._on_cancel, link))
                link.ask(channel, lambda give: channel.basic_qos(prefetch_count=hold.credit, callback=give), deadline)
                link.ask(channel, lambda give: self._consume(channel, hold, give), deadline)
            except Exception as error:
                raise operation_failure(error, f"reading the queue {self._queue!r}", self._settings) from error
        except BaseException:
            link.close(0.0)
            raise
        self._hold = hold
        self._joined = True

    def _prepare(self, link: Link, deadline: float) -> None:
        there = prepare_receiver(
            link,
            self._settings,
            self._queue,
            deadline,
            private=self._private,
            exclusive=self._asked_exclusive,
            again=self._joined,
        )
        if not there:
            # It expired, or the broker forgot it: what it held, and what came meanwhile, is gone (rule 24).
            self._counts["gaps"] += 1
            raise ConnectError(
                f"the private queue {self._queue!r} at {self._settings.servers} did not outlive the outage: what was "
                "sent meanwhile is lost to this receiver; enter a new one, or name the subscription",
                url=self._settings.url,
                endpoint=self._settings.endpoint,
            )

    def _consume(self, channel: Channel, hold: _Hold, give: Any) -> None:
        tag = channel.basic_consume(self._queue, partial(self._on_message, hold.buffer), callback=give)
        hold.link.take(channel, tag, partial(self._on_deliveries, hold.buffer))

    # --- ReceiverDriver -----------------------------------------------------------------------------------------

    def receive(self, limit: int, timeout: float) -> Sequence[Incoming]:
        hold = self._hold
        if hold is None:
            raise StateError("this RabbitMQ receiver is not open")
        deadline = time.monotonic() + timeout
        while True:
            if not hold.link.alive:
                raise self._lost(hold)
            room = self._room(hold)
            if room and hold.buffer:
                # Half of the credit at most, so that the broker sends the other half while this one is worked on.
                most = min(limit, room, max(1, hold.credit // 2))
                self._gather(hold, min(most, ENOUGH), left(deadline))
                if not hold.link.alive:
                    continue
                return [self._hand_out(hold, most)]
            wait = left(deadline)
            if self._woken or not wait:
                self._woken = False
                return []
            self._hungry = 1
            # Looked at again: what came before the flag was up set nothing.
            if not (hold.buffer and self._room(hold)) and hold.link.error is None:
                self._news.wait(wait)
            self._hungry = 0
            self._news.clear()

    def settle(self, settlements: Sequence[Settlement]) -> None:
        hold = self._hold
        for s in settlements:
            if hold is None or s.lease is not hold.lease or not s.lease.valid:
                self._counts["stale"] += 1
                continue
            self._settle(hold, s)
        if hold is not None and hold.words and not hold.posted:
            hold.posted = True
            hold.link.post(partial(self._speak, hold))
        if self._hungry:
            self._news.set()

    def wake(self) -> None:
        self._woken = True
        self._news.set()

    def reserve(self, count: int) -> None:
        """Raises ConfigError: more than ``prefetch`` for an exclusive receiver, whose one consumer has its credit."""
        hold = self._hold
        count = max(1, count)
        if hold is not None and count > hold.credit:
            if self._exclusive:
                raise ConfigError(
                    f"an exclusive receiver of {self._settings.url} holds at most prefetch={hold.credit} messages, "
                    f"not {count}; raise prefetch="
                )
            # A consumer's credit is fixed when it begins, so another one on the same channel takes the rest. It stays:
            # to cancel it would put back what is on its way to it behind what is not.
            hold.link.post(partial(self._consume_more, hold, count - hold.credit))
            hold.credit = count
        self._prefetch = count

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        hold = self._hold
        if hold is None:
            return
        if self._private and hold.link.alive and hold.channel is not None:
            channel = hold.channel
            try:
                hold.link.ask(channel, lambda give: channel.queue_delete(self._queue, callback=give), deadline)
            except Exception as error:
                # It expires by itself.
                log.info("%s: the private queue was not deleted: %s", self._settings.url, error)
        self._leave(left(deadline))

    @property
    def native(self) -> Any:
        return None if self._hold is None else self._hold.channel

    def stats(self) -> Mapping[str, Any]:
        hold = self._hold
        return {
            "client": "pika",
            "queue": self._queue,
            "buffered": 0 if hold is None else len(hold.buffer),
            "in_hand": 0 if hold is None else hold.tags.in_hand,
            "delayed": 0 if hold is None else hold.delayed,
            "credit": 0 if hold is None else hold.credit,
            **self._counts,
        }

    # --- the caller's side --------------------------------------------------------------------------------------

    def _room(self, hold: _Hold) -> int:
        """How many more may be in the application's hands; at least one where there are none."""
        held = hold.tags.in_hand
        return max(0, self._prefetch - held) if held else self._prefetch

    def _gather(self, hold: _Hold, enough: int, wait: float) -> None:
        """In a flow, let a few more come before they are handed out."""
        now = time.monotonic()
        flowing = self._last_size >= FLOW and now - self._last_time < 4 * PATIENCE
        if flowing and wait and not self._woken and len(hold.buffer) < enough:
            self._hungry = enough
            if len(hold.buffer) < enough and hold.link.error is None:
                self._news.wait(min(wait, PATIENCE))
            self._hungry = 0
            self._news.clear()

    def _hand_out(self, hold: _Hold, limit: int) -> Incoming:
        buffer = hold.buffer
        rows = [decoded(buffer.popleft()) for _ in range(min(limit, len(buffer)))]
        known = attempts_of(rows)
        batch = read_rows(rows, topic=self._topic)
        attempts: Sequence[int] = Same(1, len(rows)) if known is None else self._recalled(batch, known)
        with hold.lock:
            tokens = hold.tags.hand_out(len(rows))
            hold.handed.append((tokens, batch, attempts))
        assert tokens[0] == rows[0][0].delivery_tag
        self._last_size, self._last_time = len(rows), time.monotonic()
        return Incoming(batch, tokens, attempts, hold.lease)

    def _lost(self, hold: _Hold) -> TransportError:
        hold.lease.valid = False
        still = exceptions.AMQPHeartbeatTimeout("this process stood still for longer than its heartbeat")
        return receive_failure(hold.link.error or still, self._settings)

    def _recalled(self, batch: Batch, attempts: list[int]) -> list[int]:
        if not self._again:
            return attempts
        for row, identity in enumerate(zip(batch.producers, batch.sequences, strict=True)):
            before = self._again.pop(identity, 0)  # type: ignore[arg-type]  # none of them has a None in it
            attempts[row] = max(attempts[row], before + 1)
        return attempts

    def _settle(self, hold: _Hold, s: Settlement) -> None:
        later = s.verdict is Verdict.NACK and s.delay > 0
        with hold.lock:
            words = hold.tags.settle(s.verdict, s.first, s.last, later=later)
            if s.verdict is Verdict.NACK:
                self._remember(hold, words)
            while hold.handed and hold.handed[0][0].stop <= hold.tags.base:
                hold.handed.popleft()
            if later:
                hold.delayed += len(words)
            else:
                hold.words += words
        if later and words:
            hold.link.post(partial(self._wait, hold, s.delay, words))

    def _remember(self, hold: _Hold, words: Sequence[Word]) -> None:
        """How often these were handed out, for when they come again."""
        wanted = {word.tag for word in words}
        for tokens, batch, attempts in hold.handed:
            for tag in wanted.intersection(tokens):
                row = tag - tokens.start
                producer, sequence = batch.producers[row], batch.sequences[row]
                if producer is not None and sequence is not None:
                    self._again[producer, int(sequence)] = attempts[row]
        while len(self._again) > REMEMBERED:
            self._again.popitem(last=False)

    def _leave(self, timeout: float) -> None:
        hold, self._hold = self._hold, None
        if hold is None:
            return
        hold.lease.valid = False
        if self._exclusive and (self._settings.queue_type == "quorum" or not self._settings.declare):
            self._drop(hold, timeout)
        hold.link.close(timeout)
        hold.buffer.clear()

    def _drop(self, hold: _Hold, timeout: float) -> None:
        """Leave without a goodbye, once the broker has read what was said: when a reader of a quorum queue says
        goodbye, the next one is given new messages before what this one had in hand is back, but not when its
        connection is gone (seen with RabbitMQ 3.10)."""
        channel = hold.channel
        if channel is None or not hold.link.alive:
            return
        try:
            deadline = time.monotonic() + timeout
            hold.link.ask(channel, lambda give: channel.basic_qos(prefetch_count=hold.credit, callback=give), deadline)
        except Exception as error:
            # What was said last is lost with the connection, and comes again.
            log.info("%s: the broker did not answer on leaving: %s", self._settings.url, error)
        hold.link.drop()

    # --- the link's thread --------------------------------------------------------------------------------------

    def _on_message(
        self, buffer: deque[Delivered], _channel: Channel, method: Any, properties: Any, body: bytes
    ) -> None:
        self._on_deliveries(buffer, [(method, properties, body)])

    def _on_deliveries(self, buffer: deque[Delivered], rows: Sequence[Delivered]) -> None:
        buffer.extend(rows)
        if 0 < self._hungry <= len(buffer):
            # Once: a reader that has not come yet to take the flag down must not be called for every message.
            self._hungry = 0
            self._news.set()

    def _speak(self, hold: _Hold) -> None:
        """Tell the broker what was said."""
        # Before looking: whoever adds something from now on posts anew.
        hold.posted = False
        with hold.lock:
            words, hold.words = hold.words, []
        channel = hold.channel
        if channel is None or not channel.is_open:
            return
        for word in shortened(words):
            if word.verdict is Verdict.ACK:
                channel.basic_ack(word.tag, multiple=word.multiple)
            else:
                channel.basic_reject(word.tag, requeue=word.verdict is Verdict.NACK)

    def _wait(self, hold: _Hold, delay: float, words: Sequence[Word]) -> None:
        hold.link.later(delay, partial(self._due, hold, words))

    def _due(self, hold: _Hold, words: Sequence[Word]) -> None:
        with hold.lock:
            hold.delayed -= len(words)
            hold.words += hold.tags.due(words)
        self._speak(hold)

    def _consume_more(self, hold: _Hold, credit: int) -> None:
        channel = hold.channel
        if channel is not None and channel.is_open:
            channel.basic_qos(prefetch_count=credit)
            tag = channel.basic_consume(self._queue, partial(self._on_message, hold.buffer))
            hold.link.take(channel, tag, partial(self._on_deliveries, hold.buffer))

    def _on_cancel(self, link: Link, _frame: Any) -> None:
        """The broker ended our reading: the queue was deleted, or moved to another node."""
        self._counts["cancelled"] += 1
        link.fail(exceptions.ConsumerCancelled("the queue was deleted or moved"))

"""The adapter to confluent-kafka, that is librdkafka."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, repeat
from operator import length_hint
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from simlink.channels.kafka.clients import (
    Client,
    ConsumerClient,
    GroupBusy,
    Hooks,
    Polled,
    ProducerClient,
    Records,
    Rows,
)
from simlink.channels.kafka.columns import read_batch
from simlink.channels.kafka.confluent_admin import ConfluentAdmin, common_config, failure
from simlink.channels.kafka.failures import (
    AUTHORIZATION,
    COORDINATOR,
    MEMBERSHIP,
    REFUSALS,
    receive_failure,
    send_failure,
)
from simlink.channels.kafka.lanes import Fate, Lane, Ruling
from simlink.channels.kafka.settings import Settings
from simlink.errors import NotSupported, SimlinkError
from simlink.message import Same

__all__ = ["ConfluentClient"]

logger = logging.getLogger("simlink.kafka")

NOW = 0  # librdkafka's word for "stamp it yourself"
LOCAL_REFUSALS = frozenset({KafkaError._INVALID_ARG, KafkaError._BAD_MSG})
UNSETTLED = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
"""What a broker that has just come back may make the library believe: kept, and tried again like a full queue."""
ADRIFT = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET})
FOLLOW_UP = 0.5
"""Seconds that the reports of withdrawn records may take to come out of the library."""


_NO_LEADER = frozenset({KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION})
_LEADER_PAUSE = 0.05


class ConfluentClient(Client):
    """See `Client`."""

    name = "confluent-kafka"

    def check(self, settings: Settings) -> None:
        """Raises NotSupported: a TLS version that the library cannot be told."""
        if settings.tls is not None and settings.tls.minimum != "1.2":
            raise NotSupported(
                f"{settings.url}: confluent-kafka cannot be told tls_min={settings.tls.minimum}; kafkas+python:// can"
            )

    def producer(self, settings: Settings, timeout: float) -> ConfluentProducer:
        return ConfluentProducer(settings)

    def consumer(self, settings: Settings, group: str | None, timeout: float) -> ConfluentConsumer:
        return ConfluentConsumer(settings, group)

    def admin(self, settings: Settings, timeout: float) -> ConfluentAdmin:
        return ConfluentAdmin(settings)


class ConfluentProducer(ProducerClient):
    """See `ProducerClient`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._producer: Producer | None = Producer(
            {
                **common_config(settings),
                "acks": "all",
                "enable.idempotence": True,
                # After a record was given up nothing behind it may overtake it: the client breaks instead, and we
                # send again from there, in order.
                "enable.gapless.guarantee": True,
                # Partitions are chosen above; this is for those who use the native client.
                "partitioner": "murmur2_random",
                "linger.ms": settings.linger_ms,
                "batch.size": settings.batch_bytes,
                "compression.type": settings.compression,
                "message.max.bytes": settings.request_bytes,
                "message.timeout.ms": 0,  # ours, see `sender`
                "request.timeout.ms": int(settings.request_timeout * 1000),
                # The window above bounds what is in flight, in count and in bytes.
                "queue.buffering.max.messages": 10_000_000,
                "queue.buffering.max.kbytes": 2_147_483_647,
                "allow.auto.create.topics": False,
            }
        )

    def produce(self, rows: Rows, lanes: Sequence[Lane]) -> tuple[int, dict[int, Exception]]:
        assert self._producer is not None
        n = len(rows.bodies)
        reports = [lane.report for lane in lanes]
        # Iterators that map() draws from one after the other: where the client raises, `left` tells the row.
        left = iter(list(rows.bodies))
        keys, headers = iter(rows.keys), iter(rows.headers)
        partitions = iter(rows.partitions)
        callbacks = map(reports.__getitem__, rows.partitions)
        stamps: Any = rows.timestamps
        if isinstance(stamps, Same):
            stamps = repeat(NOW if stamps.value is None else stamps.value)
        elif None in stamps:
            stamps = iter([NOW if t is None else t for t in stamps])
        else:
            stamps = iter(stamps)
        columns = (repeat(self._topic), left, keys, partitions, callbacks, repeat(None), stamps, headers)
        refused: dict[int, Exception] = {}
        produce = self._producer.produce
        while True:
            try:
                deque(map(produce, *columns), maxlen=0)
                return n, refused
            except BufferError:
                return n - length_hint(left) - 1, refused
            except KafkaException as error:
                row = n - length_hint(left) - 1
                cause = error.args[0]
                if cause.fatal() or cause.code() == KafkaError._FATAL:
                    self.broken = True
                    return row, refused
                if cause.code() in UNSETTLED:
                    return row, refused
                refused[row] = send_failure(error, cause.str(), url=self._settings.url, topic=self._topic)

    def judge(self, error: KafkaError) -> Ruling:
        code = error.code()
        refused = not error.fatal() and (code in REFUSALS or code in LOCAL_REFUSALS)
        cause = KafkaException(error)
        return Ruling(
            Fate.REFUSED if refused else Fate.AMBIGUOUS,
            send_failure(cause, error.str(), url=self._settings.url, topic=self._topic),
        )

    def poll(self, timeout: float, *, hurry: bool = False) -> None:
        if self._producer is not None:
            self._let_out(self._producer.flush if hurry else self._producer.poll, timeout)

    def _let_out(self, call: Callable[[float], Any], timeout: float) -> None:
        """Let reports come. The library raises its own fatal error from whichever call comes next, once, instead of
        telling it: what was reported until then counts, and so does what later calls let out."""
        try:
            call(timeout)
        except (KafkaException, SystemError) as error:
            # A report in the same call turns it into a SystemError, after it was made.
            fatal = error if isinstance(error, KafkaException) else error.__cause__
            if not isinstance(fatal, KafkaException):
                raise
            logger.info("kafka producer: %s", fatal)
            self.broken = True

    def _drain(self, producer: Producer, seconds: float) -> None:
        """Let all reports come, for at most so long."""
        deadline = time.monotonic() + seconds
        while len(producer) and (left := deadline - time.monotonic()) > 0:
            self._let_out(producer.flush, left)

    def abandon(self, grace: float) -> None:
        producer = self._producer
        assert producer is not None
        producer.purge(in_queue=True, in_flight=False)
        self._drain(producer, grace)
        producer.purge(in_queue=True, in_flight=True)
        self._drain(producer, FOLLOW_UP)

    def close(self, timeout: float) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        self._drain(producer, timeout)
        if len(producer):
            producer.purge(in_queue=True, in_flight=True)
            self._drain(producer, FOLLOW_UP)
        # The library's threads end when its object goes, which waits for them.
        del producer

    @property
    def native(self) -> Producer | None:
        return self._producer


class ConfluentConsumer(ConsumerClient):
    """See `ConsumerClient`."""

    def __init__(self, settings: Settings, group: str | None) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._owned: set[int] = set()
        self._joined = False
        self._closed = False
        self._broken: SimlinkError | None = None
        self._commits: deque[Callable[[Exception | None], None]] = deque()
        self._consumer = Consumer(
            {
                **common_config(settings),
                # The library wants a name even where nobody joins; nothing is ever stored under this one.
                "group.id": group if group is not None else f"simlink-private-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(settings.session_timeout * 1000),
                "heartbeat.interval.ms": int(settings.heartbeat * 1000),
                "max.poll.interval.ms": max(300_000, int(settings.session_timeout * 1000)),
                "isolation.level": settings.isolation,
                # The default of 1,000 stalls a reader for as many milliseconds each time its queue was full.
                "fetch.queue.backoff.ms": 5,
                "fetch.error.backoff.ms": 50,
                "fetch.message.max.bytes": max(1_048_576, settings.request_bytes),
                "queued.min.messages": 50_000,
                "queued.max.messages.kbytes": 32_768,
                "allow.auto.create.topics": False,
                "on_commit": self._on_commit,
            }
        )

    # --- assignment

    def subscribe(self, hooks: Hooks) -> None:
        def parts(given: list[TopicPartition]) -> list[int]:
            return [tp.partition for tp in given]

        def on_assign(consumer: Consumer, given: list[TopicPartition]) -> None:
            self._joined = True
            self._owned.update(parts(given))
            consumer.incremental_assign(given)
            hooks.assigned(parts(given))

        def on_revoke(consumer: Consumer, given: list[TopicPartition]) -> None:
            if self._closed:  # everything was let go before
                return
            deadline = time.monotonic() + self._settings.revoke_grace
            while not hooks.revoking(parts(given)) and time.monotonic() < deadline:
                time.sleep(0.01)
            offsets = hooks.revoked(parts(given))
            if offsets:
                try:
                    consumer.commit(offsets=self._positions(offsets), asynchronous=False)
                except KafkaException as error:
                    # The group has moved on, or the broker is away: what is not committed comes again elsewhere.
                    logger.info("the last commit of %s before it moved on failed: %s", parts(given), error)
            self._owned.difference_update(parts(given))
            if not self._closed:
                consumer.incremental_unassign(given)

        def on_lost(consumer: Consumer, given: list[TopicPartition]) -> None:
            if self._closed:
                return
            hooks.lost(parts(given))
            self._owned.difference_update(parts(given))
            consumer.incremental_unassign(given)

        self._consumer.subscribe([self._topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)

    def assign(self, positions: Mapping[int, int]) -> None:
        self._joined = True
        self._owned.update(positions)
        self._consumer.incremental_assign(self._positions(positions))

    def joined(self) -> bool:
        return self._joined

    # --- records

    def poll(self, limit: int, timeout: float) -> Polled:
        if self._broken is not None:
            raise self._broken
        found = self._consumer.consume(limit, 0)
        if not found and timeout > 0:
            first = self._consumer.poll(timeout)
            if first is None:
                return Polled()
            found = [first]
            if limit > 1:
                found += self._consumer.consume(limit - 1, 0)
        polled = Polled()
        errors = list(map(Message.error, found))
        # Not by comparison: the library's errors cannot be compared with None.
        if set(map(type, errors)) - {type(None)}:
            for message, error in zip(found, errors, strict=True):
                if error is not None:
                    self._on_error(message.partition(), error, polled)
            found = [m for m, error in zip(found, errors, strict=True) if error is None]
        partitions = list(map(Message.partition, found))
        at = 0
        for partition, group in groupby(partitions):
            n = len(list(group))
            if partition in self._owned:  # a rebalance inside consume() may leave some that have moved on
                polled.records.append(_records(partition, found[at : at + n]))
            at += n
        return polled

    def _on_error(self, partition: int | None, error: KafkaError, polled: Polled) -> None:
        code = error.code()
        if code in ADRIFT:
            if partition is not None and partition in self._owned:
                polled.adrift.append(partition)
        elif code in AUTHORIZATION or error.fatal():
            self._broken = receive_failure(
                KafkaException(error), error.str(), url=self._settings.url, topic=self._topic, retryable=False
            )
        else:
            # The library goes on by itself. Even "unknown topic" passes: a broker that comes back says so for a while.
            logger.info("kafka consumer: %s", error)

    def pause(self, partitions: Sequence[int]) -> None:
        self._consumer.pause(self._parts(partitions))

    def resume(self, partitions: Sequence[int]) -> None:
        self._consumer.resume(self._parts(partitions))

    def seek(self, partition: int, offset: int) -> None:
        # seek() is refused while a partition has no fetcher; assigning it anew is not.
        self._consumer.incremental_unassign(self._parts([partition]))
        self._consumer.incremental_assign(self._positions({partition: offset}))

    # --- offsets

    def committed(self, partitions: Sequence[int], timeout: float) -> dict[int, int]:
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.1, deadline - time.monotonic())
            try:
                found = self._consumer.committed(self._parts(partitions), timeout=left)
                break
            except KafkaException as error:
                # The group's coordinator is moving, or its log is being loaded: the library says so, and looks again
                # only when it is asked again.
                if error.args[0].code() not in COORDINATOR or time.monotonic() + _LEADER_PAUSE >= deadline:
                    raise failure(error, "committed offsets", self._settings, timeout) from error
                time.sleep(_LEADER_PAUSE)
        for tp in found:
            if tp.error is not None:
                raise failure(KafkaException(tp.error), "committed offsets", self._settings, timeout)
        return {tp.partition: tp.offset for tp in found if tp.offset >= 0}

    def bounds(self, partitions: Sequence[int], timeout: float) -> dict[int, tuple[int, int]]:
        deadline = time.monotonic() + timeout
        out = {}
        for partition in partitions:
            while True:
                left = max(0.1, deadline - time.monotonic())
                try:
                    found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=left)
                    break
                except KafkaException as error:
                    # A topic that was made a moment ago may have no leader yet.
                    if error.args[0].code() not in _NO_LEADER or time.monotonic() + _LEADER_PAUSE > deadline:
                        raise failure(error, "log bounds", self._settings, timeout) from error
                    time.sleep(_LEADER_PAUSE)
            out[partition] = (found[0], found[1])
        return out

    def count(self, timeout: float) -> int:
        try:
            found = self._consumer.list_topics(self._topic, timeout=timeout)
        except KafkaException as error:
            logger.info("kafka consumer: no metadata: %s", error)
            return 0
        return len(found.topics[self._topic].partitions)

    def at_time(self, partitions: Sequence[int], milliseconds: int, timeout: float) -> dict[int, int]:
        asked = [TopicPartition(self._topic, p, milliseconds) for p in partitions]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=timeout)
        except KafkaException as error:
            raise failure(error, "offsets by time", self._settings, timeout) from error
        return {tp.partition: tp.offset for tp in found if tp.offset >= 0}

    def commit(self, offsets: Mapping[int, int], done: Callable[[Exception | None], None]) -> None:
        self._commits.append(done)
        try:
            self._consumer.commit(offsets=self._positions(offsets), asynchronous=True)
        except KafkaException as error:
            self._commits.pop()
            done(error)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if self._commits:
            worst = error or next((tp.error for tp in partitions if tp.error is not None), None)
            self._commits.popleft()(None if worst is None else KafkaException(worst))

    def commit_now(self, offsets: Mapping[int, int], timeout: float) -> None:
        waiting: list[Any] = []
        error: KafkaException | None = None
        if self._joined:
            # The library's own waiting commit knows no timeout; this one is polled for. Nothing new may come meanwhile.
            self.pause(sorted(self._owned))
            self.commit(offsets, waiting.append)
            deadline = time.monotonic() + timeout
            while not waiting and time.monotonic() < deadline:
                self._consumer.poll(0.01)
            error = waiting[0] if waiting else KafkaException(KafkaError(KafkaError._TIMED_OUT))
        else:
            try:
                found = self._consumer.commit(offsets=self._positions(offsets), asynchronous=False)
                error = next((KafkaException(tp.error) for tp in found if tp.error is not None), None)
            except KafkaException as caught:
                error = caught
        if error is not None:
            if error.args[0].code() in MEMBERSHIP:
                raise GroupBusy(f"{self._settings.url}: the group has live receivers; close them first") from error
            raise failure(error, "commit", self._settings, timeout) from error

    # --- the end

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        # The library's close() knows no timeout: without a broker it waits for a commit or its leave for as long as a
        # session or two. It goes on by itself then, and neither of the two is promised of a broker that is away.
        closing = threading.Thread(target=self._consumer.close, name="simlink-kafka-close", daemon=True)
        closing.start()
        closing.join(timeout)
        if closing.is_alive():
            logger.warning("%s: no broker to say goodbye to within %.3g s; left", self._settings.url, timeout)

    @property
    def native(self) -> Consumer:
        return self._consumer

    def _parts(self, partitions: Sequence[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, p) for p in partitions]

    def _positions(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, p, o) for p, o in offsets.items()]


def _records(partition: int, messages: list[Any]) -> Records:
    offsets: Sequence[int] = list(map(Message.offset, messages))  # type: ignore[arg-type]  # a record has an offset
    n = len(messages)
    if offsets[-1] - offsets[0] == n - 1:
        offsets = range(offsets[0], offsets[0] + n)

    def stamps() -> list[int | None]:
        return [t if kind == TIMESTAMP_CREATE_TIME and t >= 0 else None for kind, t in map(Message.timestamp, messages)]

    bodies: list[Any] = list(map(Message.value, messages))
    if None in bodies:  # a tombstone of somebody else
        bodies = [b"" if b is None else b for b in bodies]
    headers: list[Any] = list(map(Message.headers, messages))
    if None in headers:
        headers = [h or () for h in headers]
    return Records(partition, offsets, read_batch(bodies, list(map(Message.key, messages)), headers, stamps))


assert OFFSET_INVALID < 0  # `committed` and `at_time` read every negative offset as "none"

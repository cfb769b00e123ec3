"""The adapter to kafka-python."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from kafka import AsyncConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import codec as kafka_codec
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import MemberState, OffsetAndMetadata

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
from simlink.channels.kafka.failures import AUTHORIZATION, MEMBERSHIP, REFUSALS, receive_failure, send_failure
from simlink.channels.kafka.lanes import Fate, Lane, Ruling
from simlink.channels.kafka.python_admin import PythonAdmin, build, failure
from simlink.channels.kafka.settings import Settings
from simlink.errors import NotSupported

__all__ = ["PythonClient"]

T = TypeVar("T")

logger = logging.getLogger("simlink.kafka")
logger.addHandler(logging.NullHandler())

CODECS: Mapping[str, tuple[Callable[[], bool], str]] = {
    "snappy": (kafka_codec.has_snappy, "python-snappy"),
    "lz4": (kafka_codec.has_lz4, "lz4"),
    "zstd": (kafka_codec.has_zstd, "zstandard"),
}
CREATE_TIME = 0
TICK = 0.005
"""Seconds between looks of the rebalance listener."""
BREATH = 0.005
"""Seconds that a poll may take at least: with none at all the library's group logic makes no step."""
PAUSE = 0.5
"""Seconds between polls, at most, while a heartbeat has no answer."""
FETCH_BYTES = 4 * 1024 * 1024
"""What one fetch may bring of a partition. The library's 1 MiB costs a fast reader a quarter of its speed (measured:
39,000/s against 54,000/s by hand); all partitions of a fetch together stay within the library's 50 MiB."""
FOR_EVER = 2**31 - 1
"""Milliseconds."""
FOLLOW_UP = 2.0
"""Seconds that a thread of the library may take to end."""


class PythonClient(Client):
    """See `Client`."""

    name = "kafka-python"

    def check(self, settings: Settings) -> None:
        """Raises NotSupported: the codec's package is missing."""
        known = CODECS.get(settings.compression)
        if known is not None and not known[0]():
            raise NotSupported(
                f"compression={settings.compression} with kafka-python needs a package: pip install {known[1]}"
            )

    def producer(self, settings: Settings, timeout: float) -> PythonProducer:
        return PythonProducer(settings, timeout)

    def consumer(self, settings: Settings, group: str | None, timeout: float) -> PythonConsumer:
        return PythonConsumer(settings, group, timeout)

    def admin(self, settings: Settings, timeout: float) -> PythonAdmin:
        return PythonAdmin(settings, timeout)


class PythonProducer(ProducerClient):
    """See `ProducerClient`. The library has no bound on its memory: the window above is the only one."""

    def __init__(self, settings: Settings, timeout: float) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._pending: dict[int, tuple[Lane, deque[Any]]] = {}  # partition → its lane and its futures, in order
        self._closed = False
        self._producer = build(
            KafkaProducer,
            settings,
            timeout,
            acks="all",
            enable_idempotence=True,
            linger_ms=settings.linger_ms,
            batch_size=settings.batch_bytes,
            compression_type=None if settings.compression == "none" else settings.compression,
            max_request_size=settings.request_bytes,
            delivery_timeout_ms=FOR_EVER,  # ours, see `sender`
            request_timeout_ms=int(min(settings.request_timeout, settings.delivery_timeout) * 1000),
            max_block_ms=int(timeout * 1000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        # Known before the first record, so that sending never waits for it.
        self._producer.partitions_for(self._topic)

    def produce(self, rows: Rows, lanes: Sequence[Lane]) -> tuple[int, dict[int, Exception]]:
        refused: dict[int, Exception] = {}
        send, topic, pending = self._producer.send, self._topic, self._pending
        for partition in set(rows.partitions):
            if partition not in pending:
                pending[partition] = (lanes[partition], deque())
        keeps = {partition: futures.append for partition, (_, futures) in pending.items()}
        columns = zip(rows.bodies, rows.keys, rows.headers, rows.partitions, rows.timestamps, strict=True)
        for row, (body, key, headers, partition, stamp) in enumerate(columns):
            try:
                keeps[partition](send(topic, body, key, headers, partition, stamp))
            except kafka_errors.KafkaTimeoutError:
                return row, refused
            except kafka_errors.KafkaError as error:
                refused[row] = send_failure(error, str(error), url=self._settings.url, topic=topic)
        return len(rows.bodies), refused

    def judge(self, error: Exception) -> Ruling:
        refused = getattr(error, "errno", None) in REFUSALS
        fate = Fate.REFUSED if refused else Fate.AMBIGUOUS
        return Ruling(fate, send_failure(error, str(error), url=self._settings.url, topic=self._topic))

    def poll(self, timeout: float, *, hurry: bool = False) -> None:
        if self._harvest() or timeout <= 0:
            return
        if hurry:
            # As below.
            with suppress(kafka_errors.KafkaError):
                self._producer.flush(timeout)
            self._harvest()
            return
        for _, futures in self._pending.values():
            if futures:
                # Either it is not done in time, or the harvest finds its error.
                with suppress(kafka_errors.KafkaError):
                    futures[0].get(timeout)
                break
        else:
            time.sleep(timeout)
        self._harvest()

    def _harvest(self) -> bool:
        some = False
        for lane, futures in self._pending.values():
            while futures and futures[0].is_done:
                lane.report(futures.popleft().exception)
                some = True
        return some

    def abandon(self, grace: float) -> None:
        # There is no way to withdraw only what is queued; waiting would send it, out of order. The library's own
        # close() gives up half-way while anything is pending, so its sender is told directly.
        sender = self._producer._sender
        sender.force_close()
        sender.join(FOLLOW_UP)
        self._harvest()

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._producer.flush(timeout)
        except kafka_errors.KafkaError as error:
            logger.info("kafka producer: closing with records unsent: %s", error)
            self._producer._sender.force_close()
            self._producer._sender.join(FOLLOW_UP)
        self._producer.close(max(timeout, FOLLOW_UP))
        self._harvest()

    @property
    def native(self) -> Any:
        return self._producer


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Runs on the library's own thread. The gate lets it through only while ours waits inside poll() or close()."""

    def __init__(self, owner: PythonConsumer, hooks: Hooks) -> None:
        self._owner = owner
        self._hooks = hooks

    async def _through(self, hook: Callable[..., T], *given: Any) -> T:
        gate = self._owner.gate
        while not gate.acquire(blocking=False):
            await self._owner.native._net.sleep(TICK)
        try:
            return hook(*given)
        finally:
            gate.release()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._through(self._hooks.assigned, _numbers(assigned))

    async def on_partitions_revoked(self, revoked: Any) -> None:
        partitions = _numbers(revoked)
        deadline = time.monotonic() + self._owner.settings.revoke_grace
        while not await self._through(self._hooks.revoking, partitions) and time.monotonic() < deadline:
            await self._owner.native._net.sleep(TICK)
        offsets = await self._through(self._hooks.revoked, partitions)
        if offsets:
            try:
                await self._owner.native.commit_async(self._owner.positions(offsets))
            except kafka_errors.KafkaError as error:
                # The group has moved on, or the broker is away: what is not committed comes again elsewhere.
                logger.info("the last commit of %s before it moved on failed: %s", partitions, error)

    async def on_partitions_lost(self, lost: Any) -> None:
        await self._through(self._hooks.lost, _numbers(lost))


class _Joining(threading.Thread):
    """Joins the group, however long that takes.

    The library joins inside poll(). Where a poll's time ends before the group has answered, an answer that comes
    between two polls is thrown away and everybody joins anew, or nobody asks for it any more and the member falls
    silent: with short polls a group never settles (3.0.12: twenty generations in six seconds). So the joining is given
    a thread that waits as long as it takes.
    """

    def __init__(self, coordinator: Any) -> None:
        super().__init__(name="simlink-kafka-join", daemon=True)
        self._coordinator = coordinator
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._coordinator.ensure_active_group(timeout_ms=None)
        except Exception as error:
            self.error = error


class PythonConsumer(ConsumerClient):
    """See `ConsumerClient`."""

    def __init__(self, settings: Settings, group: str | None, timeout: float) -> None:
        self.settings = settings
        self._topic = settings.topic
        self._subscribed = False
        self._closed = False
        self._joining: _Joining | None = None
        self._pause = BREATH
        self._again = 0.0  # when to poll next, while a heartbeat has no answer
        # Ours except inside poll() and close(), where the rebalance listener may have it.
        self.gate = threading.Lock()
        self.gate.acquire()
        self._consumer = build(
            KafkaConsumer,
            settings,
            timeout,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=int(settings.session_timeout * 1000),
            heartbeat_interval_ms=int(settings.heartbeat * 1000),
            max_poll_interval_ms=max(300_000, int(settings.session_timeout * 1000)),
            isolation_level=settings.isolation,
            request_timeout_ms=int(max(settings.request_timeout, 1.0) * 1000),
            max_partition_fetch_bytes=max(FETCH_BYTES, settings.request_bytes),
            allow_auto_create_topics=False,
            # As in librdkafka: TCP has a checksum, and this one is computed in Python.
            check_crcs=False,
            metrics_enabled=False,
        )

    # --- assignment

    def subscribe(self, hooks: Hooks) -> None:
        self._subscribed = True
        self._consumer.subscribe([self._topic], listener=_Listener(self, hooks))
        # A look at the topics after subscribing; without it the first news of them makes every group join twice.
        self._consumer.topics()

    def assign(self, positions: Mapping[int, int]) -> None:
        before = self._consumer.assignment()
        self._consumer.assign([*before, *self._parts(list(positions))])
        for partition, offset in positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def joined(self) -> bool:
        # An empty assignment calls no listener.
        return not self._subscribed or self._consumer.group_metadata().state == MemberState.STABLE

    # --- records

    def poll(self, limit: int, timeout: float) -> Polled:
        polled = Polled()
        self.gate.release()
        try:
            found = self._poll(limit, max(timeout, BREATH))
        except kafka_errors.NoOffsetForPartitionError as error:
            polled.adrift += _numbers(error.args[0])
            return polled
        except kafka_errors.OffsetOutOfRangeError as error:
            polled.adrift += _numbers(error.args[0])
            return polled
        except kafka_errors.LogTruncationError as error:
            polled.adrift += _numbers(error.divergent_offsets)
            return polled
        except kafka_errors.RetriableError as error:
            logger.info("kafka consumer: %s", error)
            return polled
        except kafka_errors.KafkaError as error:
            lasting = getattr(error, "errno", None) in AUTHORIZATION
            raise receive_failure(
                error, str(error), url=self.settings.url, topic=self._topic, retryable=not lasting
            ) from error
        finally:
            self.gate.acquire()
        for tp, records in found.items():
            polled.records.append(_records(tp.partition, records))
        return polled

    def _poll(self, limit: int, timeout: float) -> dict[Any, list[Any]]:
        deadline = time.monotonic() + timeout
        while self._joining is not None or self._must_join():
            if self._joining is None:
                self._joining = _Joining(self._consumer._coordinator)
                self._joining.start()
            self._joining.join(max(0.0, deadline - time.monotonic()))
            if self._joining.is_alive():
                return {}
            error, self._joining = self._joining.error, None
            if error is not None:
                raise error
        fetcher = self._consumer._fetcher
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
            # What was parked of a paused partition comes back only into an empty slot, and one that holds something
            # read to its end does not count as empty: without this a resumed partition may stay silent (3.0.12).
            fetcher._next_partition_records = None
        left = max(0.0, deadline - time.monotonic())
        due = self._due()
        if due <= 0 and (rest := self._again - time.monotonic()) > 0:
            time.sleep(min(left, rest))
            return {}
        wait = min(left, due if due > 0 else BREATH)
        found: dict[Any, list[Any]] = self._consumer.poll(timeout_ms=wait * 1000, max_records=limit)
        self._pause = BREATH if found or due > 0 else min(2 * self._pause, PAUSE)
        self._again = 0.0 if found else time.monotonic() + self._pause
        return found

    def _due(self) -> float:
        """Seconds until the next heartbeat; it stays due while the last one has no answer, as where a broker stalls.
        The library's poll turns round without a pause then, and hangs a callback onto the fetch under way each time,
        so that ten seconds take a processor and 135 MiB (3.0.12)."""
        coordinator = self._consumer._coordinator
        if not self._subscribed or coordinator.coordinator_unknown():
            return math.inf
        return float(coordinator.time_to_next_poll())

    def _must_join(self) -> bool:
        if not self._subscribed:
            return False
        coordinator = self._consumer._coordinator
        if coordinator.state == MemberState.REBALANCING:
            # A poll began to join and ran out of time, and may have forgotten it since.
            coordinator.request_rejoin()
        return bool(coordinator.need_rejoin())

    def pause(self, partitions: Sequence[int]) -> None:
        self._consumer.pause(*self._assigned(partitions))

    def resume(self, partitions: Sequence[int]) -> None:
        self._consumer.resume(*self._assigned(partitions))

    def _assigned(self, partitions: Sequence[int]) -> list[Any]:
        ours = self._consumer.assignment()
        return [tp for tp in self._parts(partitions) if tp in ours]

    def seek(self, partition: int, offset: int) -> None:
        self._consumer.seek(TopicPartition(self._topic, partition), offset)

    # --- offsets

    def committed(self, partitions: Sequence[int], timeout: float) -> dict[int, int]:
        deadline = time.monotonic() + timeout
        out = {}
        for tp in self._parts(partitions):
            left = max(0.1, deadline - time.monotonic())
            offset = self._ask("committed offsets", left, self._consumer.committed, tp, timeout_ms=left * 1000)
            if offset is not None and offset >= 0:
                out[tp.partition] = offset
        return out

    def bounds(self, partitions: Sequence[int], timeout: float) -> dict[int, tuple[int, int]]:
        parts, ms = self._parts(partitions), timeout * 1000
        low = self._ask("log bounds", timeout, self._consumer.beginning_offsets, parts, timeout_ms=ms)
        high = self._ask("log bounds", timeout, self._consumer.end_offsets, parts, timeout_ms=ms)
        return {tp.partition: (low[tp], high[tp]) for tp in parts}

    def count(self, timeout: float) -> int:
        return len(self._consumer.partitions_for_topic(self._topic))

    def at_time(self, partitions: Sequence[int], milliseconds: int, timeout: float) -> dict[int, int]:
        asked = dict.fromkeys(self._parts(partitions), milliseconds)
        found = self._ask(
            "offsets by time", timeout, self._consumer.offsets_for_times, asked, timeout_ms=timeout * 1000
        )
        return {tp.partition: at.offset for tp, at in found.items() if at is not None and at.offset >= 0}

    def commit(self, offsets: Mapping[int, int], done: Callable[[Exception | None], None]) -> None:
        def answered(_offsets: Any, answer: Any) -> None:
            done(answer if isinstance(answer, Exception) else None)

        try:
            self._consumer.commit_async(self.positions(offsets), answered)
        except kafka_errors.KafkaError as error:
            done(error)

    def commit_now(self, offsets: Mapping[int, int], timeout: float) -> None:
        try:
            self._consumer.commit(self.positions(offsets), timeout_ms=timeout * 1000)
        except kafka_errors.KafkaError as error:
            code = getattr(error, "errno", None)
            if code in MEMBERSHIP or isinstance(error, kafka_errors.CommitFailedError):
                raise GroupBusy(f"{self.settings.url}: the group has live receivers; close them first") from error
            raise failure(error, "commit", self.settings, timeout) from error

    def _ask(self, what: str, timeout: float, question: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return question(*given, **named)
        except kafka_errors.KafkaError as error:
            raise failure(error, what, self.settings, timeout) from error

    # --- the end

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        self.gate.release()
        try:
            self._consumer.close(autocommit=False, timeout_ms=timeout * 1000)
        except kafka_errors.KafkaError as error:
            logger.info("kafka consumer: closed with an error: %s", error)
        if self._joining is not None:
            self._joining.join(FOLLOW_UP)

    @property
    def native(self) -> Any:
        return self._consumer

    def _parts(self, partitions: Sequence[int]) -> list[Any]:
        return [TopicPartition(self._topic, p) for p in partitions]

    def positions(self, offsets: Mapping[int, int]) -> dict[Any, Any]:
        """What the library wants to commit."""
        return {TopicPartition(self._topic, p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()}


def _numbers(partitions: Any) -> list[int]:
    return sorted(tp.partition for tp in partitions)


def _records(partition: int, records: list[Any]) -> Records:
    offsets: Sequence[int] = [r.offset for r in records]
    n = len(records)
    if offsets[-1] - offsets[0] == n - 1:
        offsets = range(offsets[0], offsets[0] + n)

    def stamps() -> list[int | None]:
        return [r.timestamp if r.timestamp_type == CREATE_TIME and r.timestamp >= 0 else None for r in records]

    bodies = [b"" if r.value is None else r.value for r in records]
    return Records(
        partition, offsets, read_batch(bodies, [r.key for r in records], [r.headers for r in records], stamps)
    )

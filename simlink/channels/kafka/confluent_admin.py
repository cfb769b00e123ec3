"""The administrator of the confluent-kafka adapter, and what its three kinds of client have in common."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import admin as native

from simlink.channels.kafka.clients import AdminClient
from simlink.channels.kafka.failures import (
    AUTHORIZATION,
    GROUP_NOT_FOUND,
    TOPIC_EXISTS,
    UNKNOWN_TOPIC,
    connect_failure,
    operation_failure,
)
from simlink.channels.kafka.security import protocol
from simlink.channels.kafka.settings import Settings
from simlink.channels.tls import Tls
from simlink.errors import SimlinkError

__all__ = ["ConfluentAdmin", "common_config", "failure"]

logger = logging.getLogger("simlink.kafka")
logger.addHandler(logging.NullHandler())


def _worth_saying(record: logging.LogRecord) -> bool:
    """Whether a line of the library's own is for the user's eyes.

    That an option of ours is experimental is not: what it is for, and what follows if it fails, is in `sender`. Nor is
    every attempt to reach a broker that is away, many times a second: that shows for debugging only.
    """
    text = record.getMessage()
    if "enable.gapless.guarantee" in text:
        return False
    if text.startswith(("FAIL", "DISCONN", "ERROR")) and record.levelno > logging.DEBUG:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logger.isEnabledFor(logging.DEBUG)
    return True


logger.addFilter(_worth_saying)

# Neither is exported in the library's types, nor typed.
_EARLIEST: Any = native.OffsetSpec.earliest()  # type: ignore[attr-defined,no-untyped-call]
_LATEST: Any = native.OffsetSpec.latest()  # type: ignore[attr-defined,no-untyped-call]

_LOOK = 0.05
"""Seconds between looks at what the library says while it works on an answer."""
UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError._TIMED_OUT_QUEUE,
    }
)


def common_config(settings: Settings) -> dict[str, Any]:
    """What producer, consumer and administrator have in common."""
    user, password = settings.login.get() or (None, None)
    files = settings.tls or Tls()
    given: dict[str, Any] = {
        "sasl.mechanisms": settings.mechanism,
        "sasl.username": user,
        "sasl.password": password,
        "ssl.ca.location": files.ca,
        "ssl.certificate.location": files.cert,
        "ssl.key.location": files.key,
    }
    if settings.tls is not None:
        # Its defaults, but a default may change.
        given |= {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
    return {
        **{name: value for name, value in given.items() if value is not None},
        "security.protocol": protocol(settings),
        "bootstrap.servers": ",".join(settings.servers),
        "client.id": settings.client_id,
        "logger": logger,
        # Errors of single brokers are the client's to retry; where they matter they come back with a call.
        "error_cb": lambda error: logger.debug("kafka: %s", error),
        "topic.metadata.refresh.interval.ms": int(settings.metadata_age * 1000),
        "metadata.max.age.ms": max(int(settings.metadata_age * 3000), 900),
        "reconnect.backoff.ms": 50,
        # A broker that comes back is found within a second; the library's default is ten.
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
        # request.timeout.ms is for the broker; by the library's default a broker that has vanished is waited for a
        # minute. The library takes five minutes at most.
        "socket.timeout.ms": int(min(max(settings.request_timeout, 1.0), 300.0) * 1000),
    }


def failure(error: KafkaException, what: str, settings: Settings, timeout: float) -> SimlinkError:
    """The library's exception as ours."""
    cause = error.args[0]
    code = cause.code()
    if code in UNREACHABLE:
        return connect_failure(error, cause.str(), url=settings.url, servers=settings.servers, timeout=timeout)
    if code in AUTHORIZATION or code == KafkaError._AUTHENTICATION:
        return connect_failure(error, cause.str(), url=settings.url, servers=settings.servers, timeout=None)
    return operation_failure(
        error, code, f"Kafka {what} of {settings.topic!r}", cause.str(), url=settings.url, retryable=cause.retriable()
    )


class ConfluentAdmin(AdminClient):
    """See `AdminClient`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._refused: KafkaError | None = None
        self._admin: native.AdminClient | None = self._new()

    def _new(self) -> native.AdminClient:
        return native.AdminClient(common_config(self._settings) | {"error_cb": self._on_error})

    def _on_error(self, error: KafkaError) -> None:
        logger.debug("kafka: %s", error)
        if error.code() == KafkaError._AUTHENTICATION:
            self._refused = error

    def _result(self, future: Any, timeout: float) -> Any:
        # The request itself ends after its own timeout; the margin is for the thread that tells.
        deadline = time.monotonic() + timeout + 5
        while True:
            try:
                return future.result(_LOOK)
            except FutureTimeout:
                # The library tells in a callback that a broker does not know us, and goes on trying.
                self._native.poll(0)
                if self._refused is not None:
                    raise KafkaException(self._refused) from None
                if time.monotonic() >= deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None

    def _wait(self, future: Any, what: str, timeout: float, accept: Sequence[int] = ()) -> Any:
        """The future's result, or None where it failed with one of the codes in ``accept``."""
        try:
            return self._result(future, timeout)
        except KafkaException as error:
            if error.args[0].code() in accept:
                return None
            raise failure(error, what, self._settings, timeout) from error

    @property
    def _native(self) -> native.AdminClient:
        assert self._admin is not None
        return self._admin

    def partitions(self, topic: str, timeout: float) -> int | None:
        # The library has been seen to look for the controller in vain until its time was over, while the broker, back
        # from a stall, answered others: a client that begins anew gets the rest of the time.
        first = timeout / 3
        try:
            described = self._described(topic, first)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._TIMED_OUT:
                raise failure(error, "description", self._settings, timeout) from error
            self._admin = self._new()
            try:
                described = self._described(topic, timeout - first)
            except KafkaException as again:
                raise failure(again, "description", self._settings, timeout) from again
        if described is None:
            return None
        settled = all(p.leader is not None and p.leader.id >= 0 for p in described.partitions)
        return len(described.partitions) if settled else 0

    def _described(self, topic: str, timeout: float) -> Any:
        try:
            found = self._native.describe_topics(TopicCollection([topic]), request_timeout=timeout)
            return self._result(found[topic], timeout)
        except KafkaException as error:
            if error.args[0].code() == UNKNOWN_TOPIC:
                return None
            raise

    def create(self, topic: str, partitions: int, replication: int, timeout: float) -> bool:
        new = native.NewTopic(topic, partitions, replication)  # type: ignore[attr-defined]  # not in its __all__
        future = self._native.create_topics([new], operation_timeout=timeout, request_timeout=timeout)[topic]
        try:
            self._result(future, timeout)
        except KafkaException as error:
            if error.args[0].code() == TOPIC_EXISTS:
                return False
            raise failure(error, "creation", self._settings, timeout) from error
        return True

    def delete_topic(self, topic: str, timeout: float) -> bool:
        future = self._native.delete_topics([topic], operation_timeout=timeout, request_timeout=timeout)[topic]
        try:
            self._result(future, timeout)
        except KafkaException as error:
            if error.args[0].code() == UNKNOWN_TOPIC:
                return False
            raise failure(error, "deletion", self._settings, timeout) from error
        return True

    def groups(self, timeout: float) -> list[str]:
        result = self._wait(self._native.list_consumer_groups(request_timeout=timeout), "list of groups", timeout)
        return [listing.group_id for listing in result.valid]

    def group_topics(self, group: str, timeout: float) -> set[str]:
        asked = [ConsumerGroupTopicPartitions(group)]
        future = self._native.list_consumer_group_offsets(asked, request_timeout=timeout)[group]
        result = self._wait(future, "offsets of a group", timeout, (GROUP_NOT_FOUND,))
        return set() if result is None else {tp.topic for tp in result.topic_partitions}

    def delete_group(self, group: str, timeout: float) -> bool:
        future = self._native.delete_consumer_groups([group], request_timeout=timeout)[group]
        try:
            self._result(future, timeout)
        except KafkaException as error:
            if error.args[0].code() == GROUP_NOT_FOUND:
                return False
            raise failure(error, f"deletion of the group {group!r}", self._settings, timeout) from error
        return True

    def delete_records(self, topic: str, before: Mapping[int, int], timeout: float) -> None:
        asked = [TopicPartition(topic, p, o) for p, o in before.items()]
        for future in self._native.delete_records(asked, request_timeout=timeout, operation_timeout=timeout).values():
            self._wait(future, "purge", timeout)

    def bounds(self, topic: str, partitions: Sequence[int], timeout: float) -> dict[int, tuple[int, int]]:
        deadline = time.monotonic() + timeout
        ends = []
        for spec in (_EARLIEST, _LATEST):
            asked = {TopicPartition(topic, p): spec for p in partitions}
            left = max(0.1, deadline - time.monotonic())
            found = self._native.list_offsets(asked, request_timeout=left)
            ends.append({tp.partition: self._wait(f, "log bounds", left).offset for tp, f in found.items()})
        return {p: (ends[0][p], ends[1][p]) for p in partitions}

    def close(self) -> None:
        # The library's threads end when its object goes.
        self._admin = None

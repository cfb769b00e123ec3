"""The administrator of the kafka-python adapter, and what its three kinds of client have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kafka import KafkaAdminClient, OffsetSpec, TopicPartition
from kafka import errors as kafka_errors

from simlink.channels.kafka.clients import AdminClient
from simlink.channels.kafka.failures import AUTHORIZATION, connect_failure, operation_failure
from simlink.channels.kafka.python_login import Hidden, network_client
from simlink.channels.kafka.security import protocol
from simlink.channels.kafka.settings import Settings
from simlink.channels.tls import client_context
from simlink.errors import SimlinkError

__all__ = ["PythonAdmin", "build", "common_config", "failure"]

T = TypeVar("T")

UNREACHABLE = (
    kafka_errors.KafkaConnectionError,
    kafka_errors.KafkaTimeoutError,
    kafka_errors.NodeNotReadyError,
    kafka_errors.MetadataEmptyBrokerList,
)


def common_config(settings: Settings, timeout: float) -> dict[str, Any]:
    """What producer, consumer and administrator have in common."""
    user, password = settings.login.get() or (None, None)
    return {
        "security_protocol": protocol(settings),
        "ssl_context": None if settings.tls is None else client_context(settings.tls),
        "sasl_mechanism": settings.mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": None if password is None else Hidden(password),
        "bootstrap_servers": list(settings.servers),
        "client_id": settings.client_id,
        "metadata_max_age_ms": int(settings.metadata_age * 1000),
        "reconnect_backoff_ms": 50,
        # A broker that comes back is found within a second; the library's default is thirty.
        "reconnect_backoff_max_ms": 1000,
        "bootstrap_timeout_ms": int(timeout * 1000),
    }


def build(kind: Callable[..., T], settings: Settings, timeout: float, **config: Any) -> T:
    """Make one of the library's clients; it connects at once.

    Raises:
        ConnectError, ConnectTimeout: nobody answered. The thread that the library started is ended.
    """
    made: list[Any] = []

    def network(**given: Any) -> Any:
        made.append(network_client(**given))
        return made[-1]

    try:
        return kind(**common_config(settings, timeout), kafka_client=network, **config)
    except BaseException as error:
        for client in made:
            client._manager._net.stop(1000)
            client.close()
        if isinstance(error, kafka_errors.KafkaError):
            raise failure(error, "connection", settings, timeout) from error
        raise


def failure(error: Exception, what: str, settings: Settings, timeout: float) -> SimlinkError:
    """The library's exception as ours."""
    code = getattr(error, "errno", None)
    reason = str(error) or type(error).__name__
    if isinstance(error, UNREACHABLE):
        return connect_failure(error, reason, url=settings.url, servers=settings.servers, timeout=timeout)
    if code in AUTHORIZATION:
        return connect_failure(error, reason, url=settings.url, servers=settings.servers, timeout=None)
    retryable = isinstance(error, kafka_errors.RetriableError)
    return operation_failure(
        error, code, f"Kafka {what} of {settings.topic!r}", reason, url=settings.url, retryable=retryable
    )


class PythonAdmin(AdminClient):
    """See `AdminClient`."""

    def __init__(self, settings: Settings, timeout: float) -> None:
        self._settings = settings
        # The library has no timeout for a single question, so the whole life of this object has one.
        self._admin = build(KafkaAdminClient, settings, timeout, request_timeout_ms=max(1, int(timeout * 1000)))

    def _ask(self, what: str, timeout: float, question: Callable[[], T], *accept: type[Exception]) -> T | None:
        """The answer, or None where it is one of the errors in ``accept``."""
        try:
            return question()
        except accept:
            return None
        except kafka_errors.KafkaError as error:
            raise failure(error, what, self._settings, timeout) from error

    def partitions(self, topic: str, timeout: float) -> int | None:
        found = self._ask("description", timeout, lambda: self._admin.describe_topics([topic])) or []
        for described in found:
            code = described["error_code"]
            if code == kafka_errors.UnknownTopicOrPartitionError.errno:
                return None
            if code in AUTHORIZATION:
                error = kafka_errors.for_code(code)(topic)
                raise failure(error, "description", self._settings, timeout)
            if code == 0 and all(p["leader_id"] >= 0 for p in described["partitions"]):
                return len(described["partitions"])
        return 0

    def create(self, topic: str, partitions: int, replication: int, timeout: float) -> bool:
        wanted = {topic: {"num_partitions": partitions, "replication_factor": replication}}
        done = self._ask(
            "creation",
            timeout,
            lambda: self._admin.create_topics(wanted, timeout_ms=int(timeout * 1000)),
            kafka_errors.TopicAlreadyExistsError,
        )
        return done is not None

    def delete_topic(self, topic: str, timeout: float) -> bool:
        done = self._ask(
            "deletion",
            timeout,
            lambda: self._admin.delete_topics([topic], timeout_ms=int(timeout * 1000)),
            kafka_errors.UnknownTopicOrPartitionError,
        )
        return done is not None

    def groups(self, timeout: float) -> list[str]:
        found = self._ask("list of groups", timeout, self._admin.list_groups) or []
        return [listing["group_id"] for listing in found]

    def group_topics(self, group: str, timeout: float) -> set[str]:
        found = self._ask("offsets of a group", timeout, lambda: self._admin.list_group_offsets(group)) or {}
        return {tp.topic for tp in found.get(group, {})}

    def delete_group(self, group: str, timeout: float) -> bool:
        what = f"deletion of the group {group!r}"
        said = self._ask(what, timeout, lambda: self._admin.delete_groups([group])) or {}
        answer = said.get(group, "GroupIdNotFoundError")
        if answer == "OK":
            return True
        if answer == "GroupIdNotFoundError":
            return False
        error: type[Exception] = getattr(kafka_errors, answer)
        raise failure(error(), what, self._settings, timeout)

    def delete_records(self, topic: str, before: Mapping[int, int], timeout: float) -> None:
        asked = {TopicPartition(topic, p): o for p, o in before.items()}
        self._ask("purge", timeout, lambda: self._admin.delete_records(asked, timeout_ms=int(timeout * 1000)))

    def bounds(self, topic: str, partitions: Sequence[int], timeout: float) -> dict[int, tuple[int, int]]:
        deadline = time.monotonic() + timeout
        ends = []
        for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST):
            left = max(0.1, deadline - time.monotonic())
            asked = dict.fromkeys([TopicPartition(topic, p) for p in partitions], spec)
            found = self._ask(
                "log bounds",
                left,
                lambda asked=asked, left=left: self._admin.list_partition_offsets(asked, timeout_ms=int(left * 1000)),  # type: ignore[misc]  # bound now, on purpose
            )
            ends.append({tp.partition: at.offset for tp, at in (found or {}).items()})
        return {p: (ends[0][p], ends[1][p]) for p in partitions}

    def close(self) -> None:
        self._admin.close()

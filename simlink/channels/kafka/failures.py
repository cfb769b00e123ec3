"""A client's error → ours: one place, for both clients, by Kafka's own error codes.

Broker codes are Kafka's protocol (https://kafka.apache.org/protocol, "Error Codes"); both clients use them.
"""

from __future__ import annotations

from simlink.errors import (
    ConfigError,
    ConnectError,
    ConnectTimeout,
    ReceiveError,
    SendError,
    SimlinkError,
    TransportError,
)

__all__ = [
    "AUTHORIZATION",
    "COORDINATOR",
    "GROUP_NOT_FOUND",
    "MEMBERSHIP",
    "REFUSALS",
    "TOPIC_EXISTS",
    "UNKNOWN_TOPIC",
    "connect_failure",
    "operation_failure",
    "receive_failure",
    "send_failure",
]

UNKNOWN_TOPIC = 3
TOPIC_EXISTS = 36
GROUP_NOT_FOUND = 69
GROUP_NOT_EMPTY = 68
MEMBERSHIP = frozenset({22, 25, 27, 82})
"""ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS, FENCED_INSTANCE_ID: the group has moved on."""
COORDINATOR = frozenset({14, 15, 16})
"""COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR: it will be somewhere soon."""
AUTHORIZATION = frozenset({29, 30, 31, 53, 58})
"""Topic, group, cluster and transaction authorisation, and SASL authentication."""
REFUSALS = frozenset({2, 10, 17, 18, 32, 42, 43, 44, 76, 87, *AUTHORIZATION})
"""What a broker says of a record that is surely not there and never will be: CORRUPT_MESSAGE, MESSAGE_TOO_LARGE,
INVALID_TOPIC, RECORD_LIST_TOO_LARGE, INVALID_TIMESTAMP, INVALID_REQUEST, UNSUPPORTED_FOR_MESSAGE_FORMAT,
POLICY_VIOLATION, UNSUPPORTED_COMPRESSION, INVALID_RECORD, and the lack of rights. Not UNKNOWN_TOPIC: a broker that has
just come back says so of topics that it has not loaded yet."""


def connect_failure(
    cause: Exception | None, reason: str, *, url: str, servers: tuple[str, ...], timeout: float | None
) -> ConnectError:
    """Nobody answered (``timeout`` seconds long), or the answer was no (``timeout`` is None)."""
    where = ", ".join(servers)
    error: ConnectError
    if timeout is None:
        error = ConnectError(f"Kafka at {where} refused: {reason}", url=url, endpoint=servers[0])
    else:
        detail = f" ({reason})" if reason else ""
        error = ConnectTimeout(
            f"no Kafka broker answered at {where} within {timeout:.3g} s{detail}",
            url=url,
            endpoint=servers[0],
            retryable=True,
        )
    error.__cause__ = cause
    return error


def send_failure(cause: Exception, reason: str, *, url: str, topic: str) -> SendError:
    """The broker or the client turned a record down."""
    error = SendError(f"Kafka refused a message to {topic!r}: {reason}", url=url)
    error.__cause__ = cause
    return error


def receive_failure(cause: Exception, reason: str, *, url: str, topic: str, retryable: bool) -> ReceiveError:
    """The receiving end broke."""
    error = ReceiveError(f"Kafka stopped delivering from {topic!r}: {reason}", url=url, retryable=retryable)
    error.__cause__ = cause
    return error


def operation_failure(
    cause: Exception, code: int | None, what: str, reason: str, *, url: str, retryable: bool
) -> SimlinkError:
    """An operation on topics, groups or offsets failed."""
    error: SimlinkError
    if code == GROUP_NOT_EMPTY:
        error = ConfigError(f"{what}: the group has live receivers; close them first")
    else:
        error = TransportError(f"{what}: {reason}", url=url, retryable=retryable)
    error.__cause__ = cause
    return error

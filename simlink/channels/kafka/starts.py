"""Where reading starts: the user's word → an offset in every partition."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from simlink.channels.kafka.clients import ConsumerClient
from simlink.errors import ConfigError

__all__ = ["check_start", "start_positions"]

Start = str | int | datetime


def check_start(start: Start | None) -> None:
    """Raises ConfigError: this is no start that Kafka knows."""
    if start is None or start in {"earliest", "new"} or isinstance(start, datetime):
        return
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise ConfigError(f"start={start!r} is not 'earliest', 'new', an offset from 0 on, or a datetime")


def start_positions(
    consumer: ConsumerClient, start: Start, partitions: Sequence[int], timeout: float
) -> dict[int, int]:
    """The offset to begin at, of every partition.

    Args:
        consumer: asked for the bounds of the log.
        start: "earliest", "new", an offset (the nearest that exists), or a time: the first message that is not older,
            or the end. A datetime without a zone is local time.
        partitions: of the topic.
        timeout: seconds for each question.
    """
    bounds = consumer.bounds(partitions, timeout)
    if isinstance(start, datetime):
        found = consumer.at_time(partitions, max(0, int(start.timestamp() * 1000)), timeout)
        return {p: found.get(p, high) for p, (_, high) in bounds.items()}
    if isinstance(start, int):
        return {p: min(max(start, low), high) for p, (low, high) in bounds.items()}
    return {p: low if start == "earliest" else high for p, (low, high) in bounds.items()}

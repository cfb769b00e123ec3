"""What the driver does with topics and groups: create on first use, check, delete, purge."""

from __future__ import annotations

import time

from simlink.channels.driver import Mode
from simlink.channels.kafka.clients import AdminClient, Client
from simlink.channels.kafka.security import check
from simlink.channels.kafka.settings import DEFAULT_PARTITIONS, Settings
from simlink.errors import ConfigError, ConnectTimeout

__all__ = ["delete_group", "delete_topic", "ensure_topic", "purge"]

PAUSE = 0.02
"""Between looks at a topic that the cluster is still settling."""


def ensure_topic(client: Client, settings: Settings, timeout: float) -> int:
    """Create the topic if it is missing; how many partitions it has.

    Raises:
        ConfigError: ``partitions`` was given, and the topic has another number.
        ConnectError, ConnectTimeout: nobody answered.
        TransportError: the broker refused.
    """
    deadline = time.monotonic() + timeout
    admin = _open(client, settings, timeout)
    try:
        count = admin.partitions(settings.topic, _left(deadline))
        if count is None:
            admin.create(
                settings.topic,
                settings.partitions or DEFAULT_PARTITIONS,
                settings.replication_factor,
                _left(deadline),
            )
        while not count:
            count = admin.partitions(settings.topic, _left(deadline))
            if not count:
                if time.monotonic() >= deadline:
                    raise ConnectTimeout(
                        f"the topic {settings.topic!r} had no leaders for its partitions within {timeout:g} s",
                        url=settings.url,
                        endpoint=settings.servers[0],
                        retryable=True,
                    )
                time.sleep(PAUSE)
    finally:
        admin.close()
    if settings.partitions is not None and count != settings.partitions:
        raise ConfigError(
            f"{settings.url}: partitions={settings.partitions} was asked for, but the topic {settings.topic!r} has "
            f"{count}"
        )
    return count


def delete_topic(client: Client, settings: Settings, timeout: float) -> None:
    """Delete the topic and every group that is ours by its name: the queue's, and those of named subscriptions."""
    deadline = time.monotonic() + timeout
    admin = _open(client, settings, timeout)
    try:
        for group in _groups_of(admin, settings, deadline):
            admin.delete_group(group, _left(deadline))
        if admin.delete_topic(settings.topic, _left(deadline)):
            # The broker answers before the name is free again; whoever creates it anew at once would be told that it
            # exists.
            while admin.partitions(settings.topic, _left(deadline)) is not None and time.monotonic() < deadline:
                time.sleep(PAUSE)
    finally:
        admin.close()


def delete_group(client: Client, settings: Settings, group: str, timeout: float) -> None:
    """Delete one group with its offsets; nothing if it is not there."""
    deadline = time.monotonic() + timeout
    admin = _open(client, settings, timeout)
    try:
        admin.delete_group(group, _left(deadline))
    finally:
        admin.close()


def purge(client: Client, settings: Settings, timeout: float) -> int:
    """Drop every record that is there now; how many offsets that were."""
    deadline = time.monotonic() + timeout
    admin = _open(client, settings, timeout)
    try:
        count = admin.partitions(settings.topic, _left(deadline))
        if not count:
            return 0
        bounds = admin.bounds(settings.topic, range(count), _left(deadline))
        before = {p: high for p, (low, high) in bounds.items() if high > low}
        if before:
            admin.delete_records(settings.topic, before, _left(deadline))
        return sum(high - low for low, high in bounds.values())
    finally:
        admin.close()


def _open(client: Client, settings: Settings, timeout: float) -> AdminClient:
    check(settings, timeout)
    return client.admin(settings, timeout)


def _groups_of(admin: AdminClient, settings: Settings, deadline: float) -> list[str]:
    if settings.group is not None:
        return [settings.group]
    if settings.mode is Mode.QUEUE:
        return [settings.topic]
    named = [g for g in admin.groups(_left(deadline)) if g.startswith(f"{settings.topic}.")]
    # "orders.audit" may be the subscription "audit" of the topic "orders", or the queue "orders.audit".
    return [g for g in named if admin.group_topics(g, _left(deadline)) <= {settings.topic}]


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())

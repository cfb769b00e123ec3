"""Purging and deleting, over a connection of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simlink.channels.redis.failures import Lost, Refusal, operation_failure
from simlink.channels.redis.scripts import PURGE, TRIM
from simlink.channels.redis.settings import Settings
from simlink.channels.redis.sources import HEIR
from simlink.channels.redis.wire import Wire, connect

__all__ = ["delete", "delete_group", "purge"]


def purge(settings: Settings, timeout: float) -> int:
    """Drop what nobody has in hand; how many messages that were."""

    def work(wire: Wire) -> int:
        if settings.trims:
            # What was settled is no message any more, and not to be counted.
            wire.run(TRIM, settings.keys, timeout=timeout)
        return int(wire.run(PURGE, settings.keys, HEIR, timeout=timeout))

    return int(_with_wire(settings, f"purging {settings.name!r}", timeout, work))


def delete(settings: Settings, timeout: float) -> None:
    """Remove the streams with their groups, and what we keep beside them."""

    def work(wire: Wire) -> None:
        groups = set()
        for key in settings.keys:
            if wire.call("EXISTS", key, timeout=timeout):
                groups |= {bytes(flat[1]).decode() for flat in wire.call("XINFO", "GROUPS", key, timeout=timeout)}
        beside = [name for group in groups for name in _companions(settings, group)]
        wire.call("UNLINK", *settings.keys, *beside, timeout=timeout)

    _with_wire(settings, f"deleting {settings.name!r}", timeout, work)


def delete_group(settings: Settings, group: str, timeout: float) -> None:
    """Forget a group."""

    def work(wire: Wire) -> None:
        for key in settings.keys:
            if wire.call("EXISTS", key, timeout=timeout):
                wire.call("XGROUP", "DESTROY", key, group, timeout=timeout)
        wire.call("UNLINK", *_companions(settings, group), timeout=timeout)

    _with_wire(settings, f"deleting the group {group!r}", timeout, work)


def _companions(settings: Settings, group: str) -> list[str]:
    leases = [settings.companion("lease", group, str(i)) for i in range(len(settings.keys))]
    return [settings.companion("members", group), *leases]


def _with_wire(settings: Settings, what: str, timeout: float, work: Callable[[Wire], Any]) -> Any:
    wire = connect(settings.address, timeout)
    try:
        return work(wire)
    except (Lost, Refusal, OSError) as error:
        raise operation_failure(error, what, url=settings.url) from error
    finally:
        wire.close()

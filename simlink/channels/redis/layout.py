"""That both sides of a destination spread it over as many streams: else one writes where the other never looks."""

from __future__ import annotations

from simlink.channels.redis.failures import Refusal
from simlink.channels.redis.settings import MOST_STREAMS, Settings
from simlink.channels.redis.wire import Wire
from simlink.errors import ConfigError

__all__ = ["check_streams"]


def check_streams(wire: Wire, settings: Settings, timeout: float) -> None:
    """Look for streams of this destination that another number of them would have, in one call where there are none.

    Fewer streams than here leave no trace, so that is found by the side that has fewer, when it is opened next. Who may
    not look goes on without.

    Raises:
        ConfigError: there are some. Refusal, Lost: as `Wire.call`.
    """
    here = len(settings.keys)
    numbered = [f"{{{settings.name}}}:{i}" for i in range(MOST_STREAMS)]
    others = numbered if here == 1 else [settings.name, *numbered[here:]]
    try:
        if not wire.call("EXISTS", *others, timeout=timeout):
            return
        kinds = wire.call_many([("TYPE", key) for key in others], timeout=timeout)
    except Refusal as refusal:
        if refusal.code == "NOPERM":
            return
        raise
    found = [key for key, kind in zip(others, kinds, strict=True) if kind == b"stream"]
    if found:
        there = 1 if found == [settings.name] else numbered.index(found[-1]) + 1
        raise ConfigError(
            f"{settings.url}: {settings.name!r} was made with streams={there} there, and streams={here} is given here; "
            "give the same on all sides, or delete what is there"
        )

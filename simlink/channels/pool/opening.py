"""`simlink.pool`: one channel over several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels.channel import Channel
from simlink.channels.driver import Mode
from simlink.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from simlink.serializers.serializer import Serializer

__all__ = ["pool"]


def pool(
    urls: Sequence[str], *, mode: str | Mode = Mode.QUEUE, serializer: Serializer | None = None, **options: Any
) -> Channel:
    """One channel over several, each an endpoint: balanced, watched, and resent elsewhere when one dies.

    ``tcp://h1:7001,h2:7001/orders`` (also http, grpc and their TLS forms) is the same for endpoints that differ by
    their host alone; a pool takes any URLs of one scheme, also those of brokers.

    Args:
        urls: at least one; all of one scheme.
        mode: "queue": each message goes to one endpoint; "topic": to each.
        serializer: as for `queue`.
        options: ``balancer`` ("least_connections"), ``detector`` ("empirical"), ``order`` ("none" or "per_key"),
            ``slow`` ("block" or "drop") and ``backlog`` for topics, ``weights``, ``slow_start`` (10 s), ``resolver``;
            those of `queue`, and the transport's own, which are for every endpoint.

    Raises:
        InvalidURL, UnknownScheme, ConfigError, NotSupported, MissingExtra: before any I/O.
    """
    if isinstance(urls, str):
        raise ConfigError(
            "simlink.pool takes a list of URLs; for one URL with several hosts use simlink.queue or topic"
        )
    try:
        mode = Mode(mode)
    except ValueError:
        raise ConfigError(
            f"mode is 'queue' or 'topic', not {mode!r}{did_you_mean(str(mode), ['queue', 'topic'])}"
        ) from None
    return Channel(list(urls), mode, serializer=serializer, options=options)

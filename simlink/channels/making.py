"""From a URL, or several, and options to a driver: what `Channel` is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Driver, Mode
from simlink.channels.registry import driver_class
from simlink.channels.url import Option, Target, convert_options, parse_url, without_unknown
from simlink.errors import ConfigError, InvalidURL

if TYPE_CHECKING:
    from simlink.channels.pool.driver import PoolDriver

__all__ = ["POOL_OPTIONS", "make_driver"]

POOL_OPTIONS: Mapping[str, Option] = {
    "balancer": Option(
        str, None, "how messages are spread: a name, a Balancer, or an object with choose()", any_object=True
    ),
    "detector": Option(str, None, "who decides that an endpoint is dead: a name or a FailureDetector", any_object=True),
    "order": Option(
        str, None, "'per_key' pins a key to an endpoint while something of it is unsettled", choices=("none", "per_key")
    ),
    "slow": Option(
        str, None, "what a topic does when a slow member's backlog is full; 'block'", choices=("block", "drop")
    ),
    "backlog": Option(int, None, "messages that slow='drop' keeps for a slow member; 16,384", minimum=1),
    "weights": Option(str, None, "the endpoints' weights, in order: '2,1,1', or a mapping by name", any_object=True),
    "slow_start": Option(float, None, "seconds in which the share of one that returns grows; 10", minimum=0),
    "resolver": Option(str, None, "a DNS name, or a function, that gives the endpoints while running", any_object=True),
    "resolve_every": Option(float, None, "seconds between two questions to the resolver; 30", minimum=0.1),
}
"""Options of a channel over several endpoints. None is the default that the doc names, so that what was given shows."""


def make_driver(
    url: str | Sequence[str], mode: Mode, options: Mapping[str, Any], channel: Mapping[str, Option]
) -> tuple[Driver, dict[str, Any]]:
    """The driver, and the channel's own options.

    Raises:
        InvalidURL, UnknownScheme, ConfigError, NotSupported, MissingExtra: before any I/O.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(url, str) and isinstance(url, Iterable) and not isinstance(url, bytes):
        return _over_urls(list(url), mode, given, channel)
    target = parse_url(url)
    cls = driver_class(target.scheme)
    known = {**(POOL_OPTIONS if cls.several else {}), **cls.options, **channel}
    where = without_unknown(target, known)
    if not cls.several:
        _refuse_pooling({*given, *target.params} - set(cls.options), where)
    chosen = _chosen(known, target, given, where)
    own = {name: chosen.pop(name) for name in channel}
    if not cls.several:
        return cls(target, mode=mode, **chosen), own
    pooling = {name: chosen.pop(name) for name in POOL_OPTIONS}
    if len(target.hosts) < 2 and all(value is None for value in pooling.values()):
        return cls(target, mode=mode, **chosen), own
    from simlink.channels.pool.driver import over_hosts

    return over_hosts(cls, target, mode=mode, chosen=pooling, options=chosen), own


def _over_urls(
    urls: list[str], mode: Mode, given: Mapping[str, Any], channel: Mapping[str, Option]
) -> tuple[PoolDriver, dict[str, Any]]:
    from simlink.channels.pool.driver import over_urls

    if not urls:
        raise ConfigError("simlink.pool needs at least one URL, as in simlink.pool(['tcp://h1:7001/orders', …])")
    targets = [parse_url(url) for url in urls]
    schemes = list(dict.fromkeys(target.scheme for target in targets))
    if len(schemes) > 1:
        raise ConfigError(
            f"simlink.pool: {schemes[0]}:// and {schemes[1]}:// promise different things; give URLs of one scheme"
        )
    cls = driver_class(schemes[0])
    for target in targets:
        extra = {
            name for name in target.params if name in channel or (name in POOL_OPTIONS and name not in cls.options)
        }
        if extra:
            where = without_unknown(target, {*cls.options, *extra})
            raise InvalidURL(f"{where}: {min(extra)!r} is for the whole pool; give it to simlink.pool()")
    if cls.several:
        targets = [_of_host(target, host) for target in targets for host in target.hosts or (None,)]
    where = f"simlink.pool of {len(targets)} {schemes[0]}:// endpoints"
    own_options = {name: value for name, value in given.items() if name in cls.options and name not in channel}
    others = {name: value for name, value in given.items() if name not in own_options}
    chosen = convert_options({**POOL_OPTIONS, **channel, **cls.options}, others, where=where, from_url=False)
    pooling = {name: chosen.get(name) for name in POOL_OPTIONS}
    own = {name: chosen.get(name, option.default) for name, option in channel.items()}

    def make(target: Target) -> Driver:
        return cls(
            target,
            mode=mode,
            **_chosen(
                cls.options,
                target,
                _with_beats(cls, pooling, own_options),
                without_unknown(target, cls.options),
            ),
        )

    return over_urls(targets, make, mode=mode, chosen=pooling), own


def _of_host(target: Target, host: Any) -> Target:
    from dataclasses import replace

    return target if host is None else replace(target, hosts=(host,))


def _with_beats(cls: type[Driver], pooling: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The endpoints' heartbeats come as often as the detector expects them."""
    from simlink.channels.pool.driver import with_beats

    return with_beats(cls, pooling, options)


def _chosen(known: Mapping[str, Option], target: Target, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    both = sorted(set(given) & set(target.params))
    if both:
        raise InvalidURL(f"{where}: {both[0]!r} is given in the URL and in code; give it once")
    chosen = {name: option.default for name, option in known.items()}
    chosen |= convert_options(known, target.params, where=where, from_url=True)
    chosen |= convert_options(known, given, where=where, from_url=False)
    return chosen


def _refuse_pooling(names: set[str], where: str) -> None:
    """For a transport whose broker spreads messages itself: the options of a pool make no sense on one channel."""
    for name in POOL_OPTIONS:
        if name in names:
            from simlink.errors import NotSupported

            raise NotSupported(
                f"{where}: {name}= is for a channel over several endpoints, and this is one, whose broker or process"
                " spreads messages itself; simlink.pool([url, …]) makes one channel of several"
            )

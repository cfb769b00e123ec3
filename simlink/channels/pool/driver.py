"""Several endpoints as one driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from simlink.channels.driver import (
    Capabilities,
    Driver,
    Guarantee,
    Mode,
    Order,
    ReceiverDriver,
    ReceiverOptions,
    SenderDriver,
)
from simlink.channels.pool.announce import Announcer
from simlink.channels.pool.core import PoolSender
from simlink.channels.pool.keyed import KeyedPool
from simlink.channels.pool.queue import QueuePool
from simlink.channels.pool.resolving import names_of
from simlink.channels.pool.settings import PoolSettings
from simlink.channels.pool.topic import TopicPool
from simlink.channels.pool.world import RealWorld, World
from simlink.channels.url import Target, parse_url
from simlink.errors import ConfigError, InvalidURL, NotSupported
from simlink.health.detector import Level
from simlink.health.membership import Membership

_ANSWERS = 3.0
"""Seconds that count as a beat where there are none, as with brokers: only answers that are owed tell. A broker that
elects a leader, rewrites its log or holds its publishers back owes them for seconds, and is alive: it is suspect after
9 s, and dead after 15 to 21 s. Most of what kills it breaks a connection, or refuses one, and is known at once."""

__all__ = ["PoolDriver", "over_hosts", "over_urls", "with_beats"]


class PoolDriver(Driver):
    """Args:
    target: what stands for all of them in messages.
    drivers: one for each endpoint, by name.
    make: the driver of an endpoint that joins later, by its name.
    chosen: the pool's options, as `simlink.channels.pool.settings` lists them.
    """

    def __init__(
        self,
        target: Target,
        drivers: Mapping[str, Driver],
        make: Callable[[str], Driver],
        *,
        mode: Mode,
        url: str,
        chosen: Mapping[str, Any],
    ) -> None:
        super().__init__(target, mode=mode)
        self._url = url
        self.drivers = dict(drivers)
        self._make = make
        first = next(iter(self.drivers.values()))
        self._first = first
        told = first.capabilities().brokerless
        heartbeat = getattr(getattr(first, "settings", None), "heartbeat", None) if told else _ANSWERS
        self.settings = PoolSettings.of(chosen, list(drivers), mode=mode, heartbeat=heartbeat, where=url)
        self.announcer = Announcer(url)
        self.made: PoolSender | None = None
        """The sending end, once it was made."""

    @property
    def url(self) -> str:
        return self._url

    def capabilities(self) -> Capabilities:
        """Those of one endpoint, but for the order: across endpoints there is none unless keys are pinned."""
        caps = self._first.capabilities()
        pinned = self.settings.order == "per_key" and caps.order is Order.EXCLUSIVE
        return replace(
            caps,
            order=Order.EXCLUSIVE if pinned else Order.NONE,
            takeover=self.settings.detector.allowed(Level.DEAD) if caps.brokerless else caps.takeover,
        )

    def driver(self, name: str) -> Driver:
        """An endpoint's driver, made if need be."""
        driver = self.drivers.get(name)
        if driver is None:
            driver = self._make(name)
            driver.acquire()
            self.drivers[name] = driver
        return driver

    def sender(self) -> SenderDriver:
        self.made = self.pool(RealWorld(self.url))
        return self.made

    def pool(self, world: World) -> PoolSender:
        """The sending end, in a world."""
        settings, caps = self.settings, self.capabilities()
        options: dict[str, Any] = {
            "membership": Membership(settings.detector, random=world.random, slow_start=settings.slow_start),
            "world": world,
            "retains": caps.brokerless,
            "once": caps.guarantee is Guarantee.AT_MOST_ONCE,
            "announce": self.announcer,
            "resolver": None if settings.resolver is None else names_of(settings.resolver, self.target),
            "resolve_every": settings.resolve_every,
        }

        def make(name: str) -> SenderDriver:
            return self.driver(name).sender()

        balancer = settings.balancer
        if self.mode is Mode.TOPIC:
            drop, backlog = settings.slow == "drop", settings.backlog
            return TopicPool(self.url, make, settings.weights, balancer=balancer, drop=drop, backlog=backlog, **options)
        balancer.bind(world.now, world.random)
        if settings.order == "per_key" or settings.keyed:
            pinned = settings.order == "per_key"
            return KeyedPool(self.url, make, settings.weights, balancer=balancer, pinned=pinned, **options)
        return QueuePool(self.url, make, settings.weights, balancer=balancer, **options)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        if not self.capabilities().brokerless:
            raise NotSupported(f"{self.url}: a pool of brokers sends; to receive, open a channel to one of them")
        if options.at is None:
            raise ConfigError(
                f"{self.url}: several endpoints; say which one this receiver binds with at=, one of"
                f" {', '.join(self.drivers)}"
            )
        for name, driver in self.drivers.items():
            if options.at in {name, *(form for host in driver.target.hosts for form in (str(host), host.name))}:
                return driver.receiver(subscription, replace(options, at=None))
        raise ConfigError(f"{self.url}: at={options.at!r} is none of its endpoints {', '.join(self.drivers)}")

    def acquire(self) -> None:
        for driver in self.drivers.values():
            driver.acquire()

    def release(self) -> None:
        for driver in self.drivers.values():
            driver.release()
        self.announcer.close()


def over_hosts(
    cls: type[Driver], target: Target, *, mode: Mode, chosen: Mapping[str, Any], options: Mapping[str, Any]
) -> PoolDriver:
    """A pool with an endpoint for each host of a URL."""
    options = with_beats(cls, chosen, options)

    def make(name: str) -> Driver:
        found = parse_url(f"{target.scheme}://{name}/{target.name}").hosts
        if len(found) != 1:
            raise InvalidURL(f"{target}: an endpoint is named as host:port, not {name!r}")
        return cls(replace(target, hosts=found), mode=mode, **options)

    drivers = {str(host): cls(replace(target, hosts=(host,)), mode=mode, **options) for host in target.hosts}
    return PoolDriver(target, drivers, make, mode=mode, url=str(target), chosen=chosen)


def over_urls(
    targets: Sequence[Target],
    make: Callable[[Target], Driver],
    *,
    mode: Mode,
    chosen: Mapping[str, Any],
) -> PoolDriver:
    """A pool of whole channels, an endpoint for each URL."""
    names = [_name(target, targets) for target in targets]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"simlink.pool: {twice} is given twice; give each once, and a weight if it is larger")
    scheme = targets[0].scheme

    def join(url: str) -> Driver:
        target = parse_url(url)
        if target.scheme != scheme:
            raise ConfigError(f"{url!r} cannot join a pool of {scheme}:// endpoints")
        return make(target)

    drivers = {name: make(target) for name, target in zip(names, targets, strict=True)}
    url = " ".join(str(target) for target in targets)
    return PoolDriver(targets[0], drivers, join, mode=mode, url=url, chosen=chosen)


def _name(target: Target, targets: Sequence[Target]) -> str:
    """``host:port`` where that tells it from the others, else the URL."""
    hosts = ",".join(map(str, target.hosts))
    alone = hosts and sum(",".join(map(str, other.hosts)) == hosts for other in targets) == 1
    return hosts if alone else str(target)


def with_beats(cls: type[Driver], chosen: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The endpoints' heartbeats come as often as the detector expects them; a broker's connection has its own pace."""
    interval = getattr(chosen.get("detector"), "interval", None)
    if interval is None or not cls.several or "heartbeat" not in cls.options:
        return options
    return {**options, "heartbeat": interval}

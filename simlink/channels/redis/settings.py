"""What the user asked of Redis, checked: the options, the keys, and the names of groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simlink.channels import tls
from simlink.channels.credentials import LOGIN, Login
from simlink.channels.driver import Mode
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, InvalidURL

__all__ = ["COMMON", "DEFAULT_PORT", "MOST_STREAMS", "OPTIONS", "Address", "Settings"]

DEFAULT_PORT = 6379

COMMON: Mapping[str, Option] = {
    "client_name": Option(str, "simlink", "the name that CLIENT LIST shows"),
    "request_timeout": Option(float, 10.0, "seconds that one answer of the server may take", minimum=0.1),
    **tls.OPTIONS,
    **LOGIN,
}

OPTIONS: Mapping[str, Option] = {
    **COMMON,
    "streams": Option(int, 1, "spread keys over so many streams, each read by one receiver at a time", minimum=1),
    "retention": Option(
        int, None, "keep about so many of the newest entries of a stream, read or not (MAXLEN ~)", minimum=1
    ),
    "group": Option(str, None, "the consumer group; NAME for a queue, NAME.SUBSCRIPTION for a topic unless given"),
    "min_idle": Option(
        float, 10.0, "seconds after which the messages of a silent receiver move on; at most 3,600", minimum=0.05
    ),
    "identity": Option(bool, True, "send the simlink-id field, by which duplicates are told and deliveries verified"),
}

_LONGEST_IDLE = 3600.0
MOST_STREAMS = 256


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server is and who we are there.

    Attributes:
        hosts: tried in this order, ``(name, port)`` each.
        login: user and password.
        tls: how to encrypt, or None.
        url: the URL with secrets masked, for messages.
    """

    hosts: tuple[tuple[str, int], ...]
    database: int
    login: Login
    tls: tls.Tls | None
    url: str
    client_name: str
    request_timeout: float

    @classmethod
    def of(cls, target: Target, options: Mapping[str, Any]) -> Address:
        """Check what can be checked without I/O.

        Raises:
            InvalidURL: no host, or a path that is not a database's number. ConfigError: see `Login.of`, `tls.Tls.of`.
        """
        scheme = target.scheme
        if not target.hosts:
            raise InvalidURL(f"{target}: a host is missing, as in {scheme}://127.0.0.1:{DEFAULT_PORT}/orders")
        database = target.path[0] if target.path else "0"
        if len(target.path) > 1 or not (database.isascii() and database.isdigit() and len(database) <= 6):
            raise InvalidURL(
                f"{target}: before the name there may be a database's number only, as in {scheme}://{target.hosts[0]}"
                f"/0/{target.name}"
            )
        return cls(
            hosts=tuple(target.address(host, DEFAULT_PORT) for host in target.hosts),
            database=int(database),
            login=Login.of(target, options["credentials"], family="redis"),
            tls=tls.Tls.of(options, secure=scheme.startswith("rediss"), where=str(target)),
            url=str(target),
            client_name=options["client_name"],
            request_timeout=options["request_timeout"],
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one channel, with what the URL says.

    Attributes:
        address: of the server.
        name: the destination's.
        keys: its streams, one or ``streams`` many.
        the rest: as in `OPTIONS`; times in seconds.
    """

    address: Address
    mode: Mode
    name: str
    keys: tuple[str, ...]
    retention: int | None
    group: str | None
    min_idle: float
    identity: bool

    @classmethod
    def of(cls, target: Target, mode: Mode, options: Mapping[str, Any]) -> Settings:
        """Check what can be checked without I/O.

        Raises:
            InvalidURL: see `Address.of`. ConfigError: a value out of its range.
        """
        values = {name: options.get(name, option.default) for name, option in OPTIONS.items()}
        if values["min_idle"] > _LONGEST_IDLE:
            raise ConfigError(f"{target}: min_idle={values['min_idle']:g} must be at most {_LONGEST_IDLE:g} seconds")
        count = values["streams"]
        if count > MOST_STREAMS:
            raise ConfigError(f"{target}: streams={count} must be at most {MOST_STREAMS}")
        # All keys of a destination have its name as their hash tag, so that one script may use them on a cluster too.
        keys = (target.name,) if count == 1 else tuple(f"{{{target.name}}}:{i}" for i in range(count))
        return cls(
            address=Address.of(target, values),
            mode=mode,
            name=target.name,
            keys=keys,
            retention=values["retention"],
            group=values["group"],
            min_idle=values["min_idle"],
            identity=values["identity"],
        )

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def trims(self) -> bool:
        """Whether what every group has done with is dropped."""
        return self.mode is Mode.QUEUE and self.retention is None

    def group_of(self, subscription: str | None) -> str | None:
        """The consumer group of a receiver; None for a private one, which needs no group."""
        if self.mode is Mode.QUEUE:
            return self.group or self.name
        if subscription is None:
            return None
        return self.group or f"{self.name}.{subscription}"

    def companion(self, *parts: str) -> str:
        """A key of ours beside the streams, in the same slot of a cluster."""
        return ":".join((f"{{{self.name}}}:simlink", *parts))

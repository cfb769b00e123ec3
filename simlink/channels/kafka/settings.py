"""What the user asked of Kafka, checked: the options, and the values that both clients get from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simlink.channels.credentials import Login
from simlink.channels.driver import Mode
from simlink.channels.kafka.security import SECURITY, security_of
from simlink.channels.tls import Tls
from simlink.channels.url import Option, Target
from simlink.errors import InvalidURL, NotSupported

__all__ = ["DEFAULT_PARTITIONS", "DEFAULT_PORT", "OPTIONS", "Settings"]

DEFAULT_PORT = 9092
DEFAULT_PARTITIONS = 6
RECORD_OVERHEAD = 48_000
"""What the clients allow above the largest body, for key and headers; together they stay below a broker's default
limit of 1,048,588 bytes."""

_TOPIC = re.compile(r"^[A-Za-z0-9._-]{1,249}$")

OPTIONS: Mapping[str, Option] = {
    "partitions": Option(
        int,
        None,
        f"partitions of a topic that is created, {DEFAULT_PARTITIONS} unless given; if given, one that is "
        "there must have as many",
        minimum=1,
    ),
    "replication_factor": Option(
        int, -1, "replicas of a topic that is created; -1 leaves it to the broker", minimum=-1
    ),
    "group": Option(str, None, "the consumer group; NAME for a queue, NAME.SUBSCRIPTION for a topic unless given"),
    "client_id": Option(str, "simlink", "the name that the broker's logs and quotas know us by"),
    "identity": Option(bool, True, "send the simlink-id header, by which duplicates are told and deliveries verified"),
    "linger_ms": Option(
        float, 5.0, "milliseconds that the client waits to fill a request, unless a sender waits for it", minimum=0
    ),
    "batch_bytes": Option(int, 262_144, "bytes of one partition in a request", minimum=1),
    "compression": Option(
        str, "none", "how the client compresses what it sends", choices=("none", "gzip", "snappy", "lz4", "zstd")
    ),
    "max_message_bytes": Option(int, 1_000_000, "the largest body; the topic must allow it", minimum=1),
    "delivery_timeout": Option(float, 120.0, "seconds after which the client gives a message up", minimum=1),
    "request_timeout": Option(float, 30.0, "seconds that the client waits for one answer of a broker", minimum=0.1),
    "session_timeout": Option(float, 10.0, "seconds after which a silent receiver's partitions move on", minimum=0.1),
    "heartbeat": Option(
        float, 3.0, "seconds between a receiver's heartbeats; at most a third of the session", minimum=0.05
    ),
    "revoke_grace": Option(float, 1.0, "seconds that a partition waits for verdicts before it moves on", minimum=0),
    "commit_interval": Option(float, 0.2, "seconds between commits of what was acknowledged", minimum=0.01),
    "metadata_age": Option(
        float, 10.0, "seconds after which topics are looked at again for new partitions", minimum=0.5
    ),
    "isolation": Option(
        str,
        "read_committed",
        "whether records of open or aborted transactions are read",
        choices=("read_committed", "read_uncommitted"),
    ),
    **SECURITY,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one channel, with what the URL says.

    Attributes:
        servers: the bootstrap list, ``host:port`` each; addresses: the same in parts.
        topic: the destination's name.
        url: the URL with secrets masked, for messages.
        tls, login, mechanism: as in `security_of`.
        the rest: as in `OPTIONS`; times in seconds.
    """

    servers: tuple[str, ...]
    addresses: tuple[tuple[str, int], ...]
    topic: str
    url: str
    mode: Mode
    tls: Tls | None
    login: Login
    mechanism: str | None
    partitions: int | None
    replication_factor: int
    group: str | None
    client_id: str
    identity: bool
    linger_ms: float
    batch_bytes: int
    compression: str
    max_message_bytes: int
    delivery_timeout: float
    request_timeout: float
    session_timeout: float
    heartbeat: float
    revoke_grace: float
    commit_interval: float
    metadata_age: float
    isolation: str

    @classmethod
    def of(cls, target: Target, mode: Mode, options: Mapping[str, Any]) -> Settings:
        """Check what can be checked without I/O.

        Raises:
            InvalidURL: no host, a path, or a name that Kafka does not allow.
            ConfigError: options that contradict each other.
        """
        if not target.hosts:
            raise InvalidURL(f"{target}: a broker is missing, as in {target.scheme}://127.0.0.1:{DEFAULT_PORT}/orders")
        if target.path:
            raise InvalidURL(f"{target}: Kafka has topics only, so the path must be one name, the topic's")
        if not _TOPIC.match(target.name) or target.name in {".", ".."}:
            raise InvalidURL(f"{target}: a Kafka topic's name has letters, digits and . _ - only, not {target.name!r}")
        secure, login, mechanism = security_of(target, options)
        values = {name: options.get(name, option.default) for name, option in OPTIONS.items() if name not in SECURITY}
        if values["heartbeat"] > values["session_timeout"] / 3:
            # Kafka's own advice, so that two lost beats do not cost the partitions.
            raise NotSupported(
                f"{target}: heartbeat={values['heartbeat']:g} must be at most a third of "
                f"session_timeout={values['session_timeout']:g}"
            )
        if values["replication_factor"] == 0:
            raise NotSupported(
                f"{target}: replication_factor=0 keeps nothing; give 1 or more, or -1 for the broker's own"
            )
        if values["linger_ms"] / 1000 >= values["delivery_timeout"]:
            raise NotSupported(f"{target}: linger_ms must be less than delivery_timeout")
        hosts = [target.address(host, DEFAULT_PORT) for host in target.hosts]
        servers = tuple(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in hosts)
        return cls(
            servers=servers,
            addresses=tuple(hosts),
            topic=target.name,
            url=str(target),
            mode=mode,
            tls=secure,
            login=login,
            mechanism=mechanism,
            **values,
        )

    @property
    def request_bytes(self) -> int:
        """The largest record that the clients may send."""
        return self.max_message_bytes + RECORD_OVERHEAD

    def group_of(self, subscription: str | None) -> str | None:
        """The consumer group of a receiver; None for a private one, which needs no group."""
        if self.mode is Mode.QUEUE:
            return self.group or self.topic
        if subscription is None:
            return None
        return self.group or f"{self.topic}.{subscription}"

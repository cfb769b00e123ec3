"""What the user asked of RabbitMQ, checked: the options, and the names and arguments that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simlink.channels import credentials, tls
from simlink.channels.credentials import Login
from simlink.channels.driver import Mode
from simlink.channels.tls import Tls
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, InvalidURL, NotSupported

__all__ = ["MAX_MESSAGE_BYTES", "MAX_NAME_BYTES", "OPTIONS", "PRIVATE_EXPIRES_MS", "Settings"]

PORTS = {"amqp": 5672, "amqps": 5671}
MAX_NAME_BYTES = 255
"""AMQP 0-9-1 writes names and routing keys as short strings (4.2.5.3)."""
MAX_MESSAGE_BYTES = 134_217_728
"""RabbitMQ's default ``max_message_size`` since 3.8."""
PRIVATE_EXPIRES_MS = 60_000
"""How long an unnamed subscription's queue survives its receiver's connection (rule 24 of the semantics)."""

OPTIONS: Mapping[str, Option] = {
    "queue": Option(str, None, "the broker's queue; NAME for a queue, NAME.SUBSCRIPTION for a topic unless given"),
    "exchange": Option(str, None, "the broker's exchange of a topic; NAME unless given"),
    "exchange_type": Option(
        str, None, "of a topic's exchange; topic unless given", choices=("topic", "direct", "fanout")
    ),
    "binding": Option(
        str, None, "the routing keys that a subscription gets, as a comma list; all of them unless given"
    ),
    "queue_type": Option(str, None, "of a queue that is created; classic unless given", choices=("classic", "quorum")),
    "single_active_consumer": Option(
        bool, None, "create the queue so that one receiver at a time reads; receiver(exclusive=True) asks for it too"
    ),
    "dead_letter_exchange": Option(str, None, "where the broker sends what was rejected"),
    "dead_letter_routing_key": Option(str, None, "with which routing key; the message's own unless given"),
    "declare": Option(bool, True, "create what is missing and compare what is there; false takes it as it is"),
    "identity": Option(bool, True, "send the simlink-id header, by which duplicates are told and deliveries verified"),
    "heartbeat": Option(int, 10, "seconds between signs of life; a silent peer is dead after two or three", minimum=1),
    "confirm_window": Option(
        int, 8192, "messages that are given to the broker and not confirmed; more wait here", minimum=1
    ),
    "client_id": Option(str, "simlink", "the name that the broker shows for our connections"),
    **tls.OPTIONS,
    **credentials.LOGIN,
}

GUEST = ("guest", "guest")
"""RabbitMQ's own first user, which it lets in from the same host only."""

_EXCHANGE_TYPE = "topic"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one channel, with what the URL says.

    Attributes:
        hosts: the addresses to try in turn, (name, port).
        vhost: the virtual host.
        name: the destination's name.
        url: the URL with secrets masked, for messages.
        tls: how to encrypt; None for plain connections.
        login: as whom; RabbitMQ's guest where nobody is named.
        the rest: as in `OPTIONS`; times in seconds.
    """

    hosts: tuple[tuple[str, int], ...]
    vhost: str
    name: str
    url: str
    mode: Mode
    tls: Tls | None
    login: Login
    queue: str | None
    exchange: str | None
    exchange_type: str | None
    binding: str | None
    queue_type: str | None
    single_active_consumer: bool | None
    dead_letter_exchange: str | None
    dead_letter_routing_key: str | None
    declare: bool
    identity: bool
    heartbeat: int
    confirm_window: int
    client_id: str

    @classmethod
    def of(cls, target: Target, mode: Mode, options: Mapping[str, Any]) -> Settings:
        """Check what can be checked without I/O.

        Raises:
            InvalidURL: no host, more than a virtual host before the name, or a name that the broker keeps for itself.
            NotSupported: options that mean nothing in this mode, or contradict each other.
        """
        if not target.hosts:
            raise InvalidURL(f"{target}: a broker is missing, as in {target.scheme}://127.0.0.1/orders")
        if len(target.path) > 1:
            raise InvalidURL(
                f"{target}: only the virtual host may stand before the name; write a '/' in its name as %2F"
            )
        values = {name: options.get(name, option.default) for name, option in OPTIONS.items()}
        encryption = Tls.of(values, secure=target.scheme == "amqps", where=str(target))
        login = Login.of(target, values.pop("credentials"), family="amqp")
        for name in tls.OPTIONS:
            del values[name]
        vhost = target.path[0] if target.path else "/"
        for what, name in (("name", target.name), ("queue", values["queue"]), ("exchange", values["exchange"])):
            if name is not None:
                _check_name(target, what, name)
        _check_mode(target, mode, values)
        hosts = tuple(target.address(host, PORTS[target.scheme]) for host in target.hosts)
        return cls(
            hosts=hosts,
            vhost=vhost,
            name=target.name,
            url=str(target),
            mode=mode,
            tls=encryption,
            login=login,
            **values,
        )

    def who(self) -> tuple[str, str]:
        """User and password, asked for at each connect.

        Raises:
            ConnectError: the function that was given for it failed.
        """
        user, password = self.login.get() or GUEST
        return user or GUEST[0], password

    @property
    def servers(self) -> str:
        """The addresses, for messages."""
        return ", ".join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in self.hosts)

    @property
    def endpoint(self) -> str:
        """The first address."""
        return self.servers.partition(",")[0]

    @property
    def topic_exchange(self) -> str:
        """The exchange of a topic."""
        return self.exchange or self.name

    @property
    def kind(self) -> str:
        """The type of that exchange."""
        return self.exchange_type or _EXCHANGE_TYPE

    def queue_of(self, subscription: str | None) -> str | None:
        """The queue of a receiver; None for a private one, which gets a name when it is opened.

        Raises:
            ConfigError: the name is longer than the broker takes.
        """
        if self.mode is Mode.QUEUE:
            return self.queue or self.name
        if subscription is None:
            return None
        name = self.queue or f"{self.topic_exchange}.{subscription}"
        if len(name.encode()) > MAX_NAME_BYTES:
            raise ConfigError(f"{self.url}: the queue's name {name!r} has more than {MAX_NAME_BYTES} bytes")
        return name

    @property
    def bindings(self) -> tuple[str, ...]:
        """The routing keys that a subscription is bound with.

        Raises:
            ConfigError: a direct exchange has no key for "everything".
        """
        if self.binding is not None:
            return tuple(key.strip() for key in self.binding.split(","))
        if self.kind == "direct":
            raise ConfigError(
                f"{self.url}: a direct exchange gives a subscription the routing keys that it names; "
                "add binding=KEY or binding=KEY,KEY"
            )
        return ("#",) if self.kind == "topic" else ("",)

    def queue_arguments(self, *, exclusive: bool, version: tuple[int, ...]) -> dict[str, Any]:
        """The ``x-`` arguments of a durable queue, as ``queue.declare`` gets them.

        Args:
            exclusive: the receiver asked to be the only active one.
            version: of the server; it decides what the server knows.
        """
        arguments: dict[str, Any] = {}
        if self.queue_type == "quorum":
            arguments["x-queue-type"] = "quorum"
            if version >= (4,):
                # From 4.0 on a quorum queue drops what was handed out 20 times; simlink counts attempts itself, and
                # -1 stands for "no limit". Before, there was no limit, and a negative number is an error.
                arguments["x-delivery-limit"] = -1
        if exclusive or self.single_active_consumer:
            arguments["x-single-active-consumer"] = True
        if self.dead_letter_exchange is not None:
            arguments["x-dead-letter-exchange"] = self.dead_letter_exchange
            if self.dead_letter_routing_key is not None:
                arguments["x-dead-letter-routing-key"] = self.dead_letter_routing_key
        return arguments

    @property
    def particular(self) -> bool:
        """Whether the user said what kind of queue it must be: then a sender compares it too."""
        chosen = (self.queue_type, self.single_active_consumer, self.dead_letter_exchange)
        return any(value is not None for value in chosen)


def _check_name(target: Target, what: str, name: str) -> None:
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidURL(f"{target}: the {what} {name!r} must have 1 to {MAX_NAME_BYTES} bytes")
    if name.startswith("amq."):
        raise InvalidURL(f"{target}: the {what} {name!r} begins with 'amq.', which RabbitMQ keeps for itself")


def _check_mode(target: Target, mode: Mode, values: Mapping[str, Any]) -> None:
    if mode is Mode.QUEUE:
        given = [name for name in ("exchange", "exchange_type", "binding") if values[name] is not None]
        if given:
            raise NotSupported(f"{target}: {given[0]} is for topics; a queue is reached by its own name")
    if values["dead_letter_routing_key"] is not None and values["dead_letter_exchange"] is None:
        raise NotSupported(f"{target}: dead_letter_routing_key needs dead_letter_exchange")
    if not values["declare"]:
        names = ("exchange_type", "queue_type", "single_active_consumer", "dead_letter_exchange")
        given = [name for name in names if values[name] is not None and (name != "exchange_type")]
        if given:
            raise NotSupported(f"{target}: {given[0]} says how to declare, and declare=false declares nothing")
    for key in (values["binding"] or "").split(","):
        if len(key.strip().encode()) > MAX_NAME_BYTES:
            raise NotSupported(f"{target}: a binding has more than {MAX_NAME_BYTES} bytes")

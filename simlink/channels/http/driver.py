"""http:// and https:// as a driver: its options, and what it promises."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from simlink.channels import tls
from simlink.channels.credentials import LOGIN, TOKEN, Login, Secret
from simlink.channels.driver import (
    Capabilities,
    Guarantee,
    Kept,
    Mode,
    Nack,
    Order,
    ReceiverDriver,
    ReceiverOptions,
    SenderDriver,
)
from simlink.channels.http.app import HttpApp
from simlink.channels.http.requests import basic, bearer, checked_header
from simlink.channels.http.settings import Settings
from simlink.channels.link.driver import BUFFERS, LinkDriver, times
from simlink.channels.tcp.settings import shown
from simlink.channels.url import Host, Option, Target
from simlink.errors import ConfigError, InvalidURL, MissingExtra, NotSupported

__all__ = ["HttpDriver"]

_PORTS = {"http": 80, "https": 443}


class HttpDriver(LinkDriver):
    """Queues and topics over HTTP: the receiver serves the address of the URL, or is mounted in an application.

    With ``rest=True`` it only sends: one request a message, to whatever the URL names.
    """

    schemes: ClassVar[tuple[str, ...]] = ("http", "https")
    several: ClassVar[bool] = True
    default_ports: ClassVar[Mapping[str, int]] = _PORTS
    options: ClassVar[Mapping[str, Option]] = {
        "rest": Option(bool, False, "post one record a request to any endpoint; nothing is received"),
        "method": Option(str, "POST", "of rest requests", choices=("POST", "PUT", "PATCH")),
        "headers": Option(object, None, "of rest requests: text → text"),
        "path": Option(str, None, "of rest requests, where the URL's own cannot say it (a query, a '/' at the end)"),
        "retry": Option(
            str, "safe", "what rest sends again: what surely was not done, or all", choices=("safe", "always")
        ),
        "identity": Option(bool, True, "an Idempotency-Key with every rest request"),
        **TOKEN,
        **LOGIN,
        "app": Option(
            object, None, "the ASGI application (simlink.asgi_app()) that receivers join instead of listening"
        ),
        "origins": Option(str, "", "web pages that may post, as https://a.example,https://b.example or *"),
        **times("stream"),
        "request_timeout": Option(float, 30.0, "seconds that the reply to a request may take", minimum=0.01),
        "connections": Option(int, 2, "how many requests a sender has under way at a time", minimum=1),
        "header_timeout": Option(float, 5.0, "seconds that the head of a request may take", minimum=0.01),
        "body_timeout": Option(float, 30.0, "seconds that the body of a request may take", minimum=0.01),
        "idle_timeout": Option(float, 15.0, "seconds that a connection may do nothing", minimum=1),
        "max_body_bytes": Option(
            int, 8 * 1024 * 1024, "the longest body of a request, and so about the longest message", minimum=1024
        ),
        "max_connections": Option(int, 512, "how many connections a server lets in", minimum=1),
        **BUFFERS,
        **tls.OPTIONS,
    }

    def __init__(
        self,
        target: Target,
        *,
        mode: Mode,
        rest: bool = False,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        path: str | None = None,
        retry: str = "safe",
        identity: bool = True,
        token: str | Callable[[], str] | None = None,
        credentials: Any = None,
        app: Any = None,
        origins: str = "",
        heartbeat: float = 1.0,
        dead: float = 5.0,
        orphan_after: float = 10.0,
        request_timeout: float = 30.0,
        connections: int = 2,
        header_timeout: float = 5.0,
        body_timeout: float = 30.0,
        idle_timeout: float = 15.0,
        max_body_bytes: int = 8 * 1024 * 1024,
        max_connections: int = 512,
        buffer_messages: int = 65_536,
        buffer_bytes: int = 16 * 1024 * 1024,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        tls_min: str | None = None,
    ) -> None:
        super().__init__(
            target,
            mode=mode,
            heartbeat=heartbeat,
            dead=dead,
            orphan_after=orphan_after,
            buffer_messages=buffer_messages,
            buffer_bytes=buffer_bytes,
        )
        _require(target.scheme)
        if not target.hosts:
            raise InvalidURL(
                f"{target}: {target.scheme}:// needs an address, as in http://127.0.0.1:8000/{target.name}"
            )
        if app is not None and not isinstance(app, HttpApp):
            raise ConfigError(f"{target}: app= takes what simlink.asgi_app() made, not {type(app).__name__}")
        if rest:
            if mode is Mode.TOPIC:
                raise NotSupported(f"{target}: rest=True sends to an endpoint, which has no subscriptions; use queue()")
            if app is not None:
                raise ConfigError(f"{target}: with rest=True nothing is received, so app= means nothing")
        elif headers is not None or path is not None or (method, retry, identity) != ("POST", "safe", True):
            raise ConfigError(f"{target}: headers=, path=, method=, retry= and identity= are for rest=True")
        named = target.user is not None or credentials is not None
        if named and token is not None:
            raise ConfigError(f"{target}: give a token, or a user name and a password, but not both")
        self.rest = rest
        self.method = method
        self.retry_always = retry == "always"
        self.headers = _checked_headers(target, headers)
        self.path = _checked_path(target, path)
        self.app: HttpApp | None = app
        self.request_timeout = request_timeout
        self.connections = connections
        self.identity = identity
        self._login = Login.of(target, credentials, family="http")
        self._token = Secret.of(target, "token", token, family="http")
        # What is given beats what stands in the environment.
        self._by_name = named or not self._token.given
        self._tls = tls.Tls.of(
            {"ca": ca, "cert": cert, "key": key, "tls_min": tls_min}, secure=target.scheme == "https", where=str(target)
        )
        self.settings = Settings(
            heartbeat,
            dead,
            orphan_after,
            header_timeout,
            body_timeout,
            idle_timeout,
            max_body_bytes,
            max_connections,
            frozenset(filter(None, (o.strip() for o in origins.split(",")))),
        )

    def capabilities(self) -> Capabilities:
        """One endpoint: order is exclusive per key. A named subscription is remembered while something of its
        destination is received in its process, which is no promise, so ``subscriptions`` is false. What plain clients
        post is at-most-once after the 202: nobody keeps it but the receiver."""
        if self.rest:
            return Capabilities(
                guarantee=Guarantee.AT_MOST_ONCE,
                kept=Kept.NO,
                order=Order.NONE,
                nack=Nack.NONE,
                subscriptions=False,
            )
        return self._link_capabilities(self.settings.dead, self.settings.max_body_bytes)

    # --- what the ends ask ---------------------------------------------------------------------------------------

    @property
    def destination(self) -> str:
        """The path that is received, without the '/' before it. What stands before the name in the URL belongs to it
        on a server of our own; of a mounted application it is where that is mounted."""
        if self.app is not None:
            return self.target.name
        return "/".join([*self.target.path, self.target.name])

    def authorization(self) -> str | None:
        """The credentials as they stand in a request, asked for anew where a function gives them.

        Raises:
            ConfigError: they cannot stand there. ConnectError: the function failed.
        """
        if self._by_name:
            pair = self._login.get()
            return None if pair is None else basic(*pair)
        token = self._token.get()
        return None if token is None else bearer(token)

    def server_settings(self) -> Settings:
        """Those of the server or app that a receiver joins, with the credentials that it asks for."""
        encryption = self._tls if self.app is None else None
        return replace(self.settings, authorization=self.authorization(), tls=encryption)

    @property
    def secure(self) -> bool:
        return self._tls is not None

    def client_context(self) -> ssl.SSLContext | None:
        """Made for each new connection, so that renewed files are read."""
        return None if self._tls is None else tls.client_context(self._tls)

    def shown(self, host: str, port: int) -> str:
        return shown(host, port)

    def host_header(self, host: str, port: int) -> str:
        default = _PORTS[self.target.scheme]
        return str(Host(host, None if port == default else port))

    # --- ends ----------------------------------------------------------------------------------------------------

    def sender(self) -> SenderDriver:
        if len(self.target.hosts) > 1:
            raise NotSupported(
                f"{self.target}: this is the driver of one endpoint; for several endpoints simlink.queue makes a pool"
            )
        if self.rest:
            from simlink.channels.http.rest import RestSender

            return RestSender(self)
        from simlink.channels.http.sender import HttpSender

        return HttpSender(self)

    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        from simlink.channels.http.receiver import HttpReceiver

        if self.rest:
            raise NotSupported(f"{self.target}: rest=True only sends")
        name, port = self._to_bind(subscription, options)
        return HttpReceiver(self, name, port, subscription, options)


def _require(scheme: str) -> None:
    try:
        import httptools  # noqa: F401 – loaded here, so that what is missing is said before any I/O
    except ImportError as error:
        raise MissingExtra(f"{scheme}://", "http", package="httptools") from error


def _checked_headers(target: Target, headers: Any) -> list[tuple[str, str]]:
    if headers is None:
        return []
    if not isinstance(headers, Mapping) or not all(isinstance(t, str) for pair in headers.items() for t in pair):
        raise ConfigError(f"{target}: headers= is a mapping of text to text")
    try:
        return [checked_header(name, value) for name, value in headers.items()]
    except ValueError as error:
        raise ConfigError(f"{target}: {error}") from error


def _checked_path(target: Target, path: str | None) -> str | None:
    if path is None:
        return None
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path or "#" in path:
        raise ConfigError(f"{target}: path= is a request target such as '/v1/items/?kind=test', escaped")
    return path

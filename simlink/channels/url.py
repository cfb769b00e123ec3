"""URLs: ``scheme://[user[:password]@]host[:port][,host[:port]…]/[path/]name[?option=value…]``.

The last path segment is the destination on every transport; what stands before it is the broker's own path (an AMQP
virtual host, a Redis database). ``memory://name`` has no host: its only part is the destination. Hosts are a comma
list, which `urllib` cannot read, so the authority is taken apart here; escapes are decoded by the standard library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from simlink.errors import ConfigError, InvalidURL, did_you_mean

__all__ = ["Host", "Option", "Target", "convert_options", "parse_url", "without_unknown"]

_SCHEME = re.compile(r"^[a-z][a-z0-9+.\-]*$")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~@:+\-]{1,200}")
_HOST = re.compile(r"[^\s\x00-\x20/?#@,\[\]\\]+")
_ODD_PORT = re.compile(r"(?!\[)[^:]*:.*\D.*", re.DOTALL)
_HOSTLESS = frozenset({"memory"})
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Host:
    """One address of the URL; ``port`` is None where it was not given."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL. Its text forms never show the password.

    Attributes:
        scheme: in lower case.
        hosts: the addresses, at least one unless the scheme has none.
        path: the segments before the destination.
        name: the destination.
        user, password: the credentials, decoded, or None.
        params: the URL's query, as text.
    """

    scheme: str
    hosts: tuple[Host, ...]
    path: tuple[str, ...]
    name: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    params: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Target({str(self)!r})"

    def __str__(self) -> str:
        credentials = ""
        if self.user is not None:
            credentials = quote(self.user, safe="") + (":**" if self.password is not None else "") + "@"
        segments = [quote(s, safe="") for s in self.path]
        name = quote(self.name, safe="@:+")
        if self.scheme in _HOSTLESS:
            where = "/".join([*segments, name])
        elif self.hosts:
            where = "/".join([",".join(map(str, self.hosts)), *segments, name])
        else:
            where = "/" + "/".join([*segments, name])
        query = urlencode({k: "**" if _secret(k) else v for k, v in self.params.items()}, safe="*:/,")
        return f"{self.scheme}://{credentials}{where}" + (f"?{query}" if query else "")

    def address(self, host: Host, default_port: int | None = None) -> tuple[str, int]:
        """``(name, port)`` of one host.

        Raises:
            InvalidURL: it has no port and there is no default.
        """
        port = host.port if host.port is not None else default_port
        if port is None:
            raise InvalidURL(f"{self}: {host} needs a port, as in {self.scheme}://{host}:7001/{self.name}")
        return host.name, port


def without_unknown(target: Target, known: Container[str]) -> str:
    """The URL as errors show it: also the values of parameters that there are not, which may be misspelt secrets."""
    return str(replace(target, params={k: v if k in known else "**" for k, v in target.params.items()}))


def _secret(name: str) -> bool:
    return any(word in name for word in ("password", "secret", "token"))


def parse_url(url: str) -> Target:
    """Take a URL apart.

    Raises:
        InvalidURL: with a sentence that shows what was expected.
    """
    if not isinstance(url, str):
        raise InvalidURL(f"a URL is text, not {type(url).__name__}")
    scheme, sep, rest = url.partition("://")
    if not sep or not _SCHEME.match(scheme):
        raise InvalidURL(
            f"{_shown(url)!r} is not a URL: expected scheme://host:port/name, as in tcp://127.0.0.1:7001/orders"
        )
    if "#" in rest:
        raise InvalidURL(f"{_shown(url)!r}: a fragment (#…) means nothing here; write %23 for a '#'")
    rest, _, query = rest.partition("?")
    params = _parse_query(url, query)
    authority, slash, path = rest.partition("/")
    if scheme in _HOSTLESS:
        path, authority, slash = rest, "", "/"
    segments = [unquote(s) for s in path.split("/")] if slash and path else []
    if segments and segments[0] == "" and not authority and scheme not in _HOSTLESS:
        segments = segments[1:]
    if not segments or not segments[-1]:
        raise InvalidURL(f"{_shown(url)!r} names no destination: end it with /name, as in {scheme}://…/orders")
    name = segments[-1]
    if "@" in path and "@" not in authority and any(_ODD_PORT.fullmatch(host) for host in authority.split(",")):
        # What seems to be a port may be half of a password, so it is not shown.
        raise InvalidURL(f"{_shown(url)!r}: a '/' in a user name or password must be written %2F")
    if not _NAME.fullmatch(name):
        raise InvalidURL(
            f"{_shown(url)!r}: the destination {name!r} may have letters, digits and . _ ~ @ : + - only, at most 200"
        )
    user = password = None
    if "@" in authority:
        credentials, _, authority = authority.rpartition("@")
        user, colon, secret = credentials.partition(":")
        user = unquote(user)
        password = unquote(secret) if colon else None
    if authority.endswith(":") and path.startswith("/"):
        other = authority.rpartition(",")[2]
        raise InvalidURL(
            f"{_shown(url)!r}: {other}// stands among its hosts, and a URL has one scheme, before the first of them"
        )
    hosts = tuple(_parse_host(url, h) for h in authority.split(",")) if authority else ()
    if len(set(hosts)) != len(hosts):
        raise InvalidURL(f"{_shown(url)!r} names a host twice; name each once, and give it a weight if it is larger")
    return Target(scheme, hosts, tuple(segments[:-1]), name, user, password, params)


def _parse_query(url: str, query: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise InvalidURL(f"{_shown(url)!r}: the part behind '?' must be name=value&name=value") from error
    params: dict[str, str] = {}
    for name, value in pairs:
        if not name:
            raise InvalidURL(f"{_shown(url)!r}: a parameter has no name")
        if name in params:
            raise InvalidURL(f"{_shown(url)!r}: the parameter {name!r} stands there twice")
        params[name] = value
    return params


def _parse_host(url: str, text: str) -> Host:
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise InvalidURL(f"{_shown(url)!r}: {text!r} is not [address]:port")
        port = port[1:]
    else:
        name, colon, port = text.partition(":")
        if colon and not port:
            raise InvalidURL(f"{_shown(url)!r}: {text!r} has no port behind its colon")
    if not name:
        raise InvalidURL(f"{_shown(url)!r}: a host is missing in {text!r}")
    name = unquote(name)
    if not _HOST.fullmatch(name):
        raise InvalidURL(f"{_shown(url)!r}: {name!r} is not the name of a host")
    if not port:
        return Host(name)
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidURL(f"{_shown(url)!r}: the port {port!r} is not a number from 0 to 65535")
    return Host(name, int(port))


def _shown(url: str) -> str:
    """The text as given, without what may be a password, whatever else is wrong with it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = re.sub(r":.*@", ":**@", rest, flags=re.DOTALL)
    # Of a parameter with a misspelt name too: what stands behind it may be a secret.
    rest = re.sub(r"([?&][^=&]*=)(?!\d{1,9}(?:&|$))[^&]+", r"\1**", rest)
    return scheme + separator + rest


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a driver: the type that it must have, its default, and a line for the docs.

    ``type`` is ``int``, ``float``, ``bool``, ``str``, or ``object`` for what only code can give (a callable, an SSL
    context); ``choices`` bounds a text, ``minimum`` a number.
    """

    type: type
    default: Any
    doc: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    or_callable: bool = False
    """In code a function that returns such a value will do as well; it is passed on as it is."""
    any_object: bool = False
    """In code anything else will do as well, which whoever uses it checks; it is passed on as it is."""


def convert_options(
    known: Mapping[str, Option], given: Mapping[str, Any], *, where: str, from_url: bool
) -> dict[str, Any]:
    """Check and convert options.

    Raises:
        InvalidURL: (``from_url``) or ConfigError: an unknown name, with a did-you-mean, or a value of the wrong kind.
    """
    error: type[ConfigError] = InvalidURL if from_url else ConfigError
    out: dict[str, Any] = {}
    for name, value in given.items():
        option = known.get(name)
        if option is None:
            raise error(f"{where}: unknown {'parameter' if from_url else 'option'} {name!r}{did_you_mean(name, known)}")
        out[name] = _convert(option, name, value, where, error, from_url=from_url)
    return out


def _convert(option: Option, name: str, value: Any, where: str, error: type[ConfigError], *, from_url: bool) -> Any:
    kind = option.type
    shown = "**" if _secret(name) else repr(value)
    if value is None and option.default is None and not from_url:
        return None
    if not from_url and ((option.or_callable and callable(value)) or (option.any_object and value is not None)):
        return value
    if kind is object:
        if from_url:
            raise error(f"{where}: {name} can only be given in code")
        return value
    try:
        if kind is bool and not isinstance(value, bool):
            text = str(value).lower() if from_url else ""
            if text not in _TRUE | _FALSE:
                raise ValueError
            result: Any = text in _TRUE
        elif from_url:
            result = kind(value)
        elif isinstance(value, bool) and kind is not bool:
            raise ValueError
        elif kind is str and isinstance(value, os.PathLike):
            result = os.fspath(value)
        elif kind is float and isinstance(value, int | float):
            result = float(value)
        elif isinstance(value, kind):
            result = value
        else:
            raise ValueError
    except ValueError:
        # Without its cause, which would show what may be a secret.
        raise error(f"{where}: {name}={shown} is not of type {kind.__name__}") from None
    if option.choices and result not in option.choices:
        raise error(f"{where}: {name}={shown} is not one of {', '.join(option.choices)}")
    if option.minimum is not None and not result >= option.minimum:
        raise error(f"{where}: {name}={shown} must be at least {option.minimum:g}")
    return result

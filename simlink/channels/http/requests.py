"""Composing requests: heads that cannot be split by what stands in them, credentials, Retry-After."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from simlink.errors import ConfigError

__all__ = ["basic", "bearer", "checked_header", "head", "request_path", "retry_after"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A field name (RFC 9110, 5.6.2)."""
_VALUE = re.compile(r"(?:[^\x00-\x1f\x7f]|\t)*")
"""A field value (RFC 9110, 5.5), with everything beyond ASCII as UTF-8."""
_OURS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_MOST = 3600.0


def checked_header(name: str, value: str) -> tuple[str, str]:
    """A header that may be sent as it is.

    Raises:
        ValueError: it is none, or is not for a user to set.
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of an HTTP header")
    if name.lower() in _OURS:
        raise ValueError(f"the header {name!r} is for the transport to set")
    if not _VALUE.fullmatch(value) or value != value.strip(" \t"):
        raise ValueError(f"the header {name!r} has a value that no HTTP header can have")
    return name, value


def head(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Request line and headers, each checked by whoever gives them; without the empty line at the end."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode() + b"\r\n"


def request_path(segments: Iterable[str]) -> str:
    """The path with these segments, each escaped."""
    return "/" + "/".join(quote(segment, safe="@:+~-._") for segment in segments)


def bearer(token: str) -> str:
    """The value of the header Authorization for a token (RFC 6750).

    Raises:
        ConfigError: no header can carry it. The token is not shown.
    """
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError("token= must be printable ASCII without blanks")
    return f"Bearer {token}"


def basic(user: str | None, password: str) -> str:
    """The same for a user name and a password (RFC 7617).

    Raises:
        ConfigError: the user name has a colon.
    """
    if user and ":" in user:
        raise ConfigError("a user name with a ':' cannot be sent over HTTP")
    return "Basic " + base64.b64encode(f"{user or ''}:{password}".encode()).decode()


def retry_after(value: str | None) -> float | None:
    """Seconds to wait by a header Retry-After (RFC 9110, 10.2.3), at most an hour; None if it says nothing."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _MOST)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(date.timestamp() - time.time(), 0.0), _MOST)

"""What Redis or its client says → our errors: one place.

The codes are the first words of Redis's error replies.
"""

from __future__ import annotations

from typing import TypeVar

from simlink.channels import tls
from simlink.errors import ConfigError, ConnectError, ConnectTimeout, ReceiveError, SendError, TransportError

__all__ = [
    "TRANSIENT",
    "Lost",
    "Refusal",
    "code_of",
    "connect_failure",
    "is_transient",
    "nobody_answered",
    "operation_failure",
    "receive_failure",
    "send_failure",
]

E = TypeVar("E", bound=Exception)

AUTHENTICATION = frozenset({"NOAUTH", "WRONGPASS"})
TRANSIENT = frozenset(
    {
        *("LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF", "OOM"),
        *("NOSCRIPT", "NOGROUP", "UNBLOCKED"),
    }
)
"""What passes (a restart, a fail-over, memory or disk that is full just now), or is put right by connecting anew (a
script that was flushed, a group that was deleted)."""


class Refusal(Exception):
    """An error reply of the server."""

    @property
    def code(self) -> str:
        return code_of(str(self))


class Lost(Exception):
    """The connection is gone, or so silent that it counts as gone."""


def code_of(text: str) -> str:
    """The first word of an error reply."""
    return text.partition(" ")[0]


def is_transient(error: Exception) -> bool:
    """Whether trying again may help."""
    return isinstance(error, Lost | OSError) or (isinstance(error, Refusal) and error.code in TRANSIENT)


def connect_failure(cause: Exception, *, url: str, endpoint: str) -> ConnectError:
    """What came of trying to connect."""
    refused = tls.refusal(cause, endpoint=endpoint, url=url)
    if refused is not None:
        return refused
    reason = _reason(cause)
    text = str(cause)
    kind = type(cause).__name__
    if kind.startswith("Authentication") or code_of(text) in AUTHENTICATION or "AUTH" in text:
        error = ConnectError(f"Redis at {endpoint} refused the user or the password: {reason}", url=url,
                             endpoint=endpoint)  # fmt: skip
    elif isinstance(cause, TimeoutError) or kind == "TimeoutError":
        return _caused(nobody_answered(url=url, endpoint=endpoint, reason=reason), cause)
    else:
        passes = kind in {"ConnectionError", "BusyLoadingError"} or is_transient(cause)
        what = "is not ready" if isinstance(cause, Refusal) and passes else "does not answer" if passes else "refused"
        error = ConnectError(f"Redis at {endpoint} {what}: {reason}", url=url, endpoint=endpoint, retryable=passes)
    return _caused(error, cause)


def nobody_answered(*, url: str, endpoint: str, reason: str = "no answer in time") -> ConnectTimeout:
    """Silence, to the end of the time that was given."""
    return ConnectTimeout(f"no Redis answered at {endpoint}: {reason}", url=url, endpoint=endpoint, retryable=True)


def send_failure(cause: Exception, *, url: str, retryable: bool = False) -> SendError:
    """The server turned a batch down, or the connection broke."""
    what = "the connection to Redis broke" if isinstance(cause, Lost | OSError) else "Redis refused"
    return _caused(SendError(f"{what}: {_reason(cause)}", url=url, retryable=retryable), cause)


def receive_failure(cause: Exception, *, url: str, retryable: bool) -> ReceiveError:
    """The receiving end broke."""
    what = "the connection to Redis broke" if isinstance(cause, Lost | OSError) else "Redis stopped delivering"
    return _caused(ReceiveError(f"{what}: {_reason(cause)}", url=url, retryable=retryable), cause)


def operation_failure(cause: Exception, what: str, *, url: str) -> ConfigError | TransportError:
    """An operation on a destination or a group failed."""
    if isinstance(cause, Refusal) and cause.code == "WRONGTYPE":
        return _caused(ConfigError(f"{what}: the key holds something else than a stream"), cause)
    return _caused(TransportError(f"{what}: {_reason(cause)}", url=url, retryable=is_transient(cause)), cause)


def _reason(cause: Exception) -> str:
    return " ".join(str(cause).split()) or type(cause).__name__


def _caused(error: E, cause: Exception) -> E:
    error.__cause__ = cause
    return error

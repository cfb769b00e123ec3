"""pika's errors → ours, in one place, by AMQP's reply codes (AMQP 0-9-1 specification, 1.2 "Constants")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pika import exceptions
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorPhaseErrorBase,
    AMQPConnectorStackTimeout,
)

from simlink.channels.tls import explain
from simlink.errors import (
    ConfigError,
    ConnectError,
    ConnectTimeout,
    ReceiveError,
    SendError,
    SimlinkError,
    TransportError,
)

if TYPE_CHECKING:
    from simlink.channels.rabbitmq.settings import Settings

__all__ = [
    "NOT_FOUND",
    "connect_failure",
    "connect_timeout",
    "operation_failure",
    "receive_failure",
    "reply_code",
    "send_failure",
    "unroutable",
]

ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
NOT_ALLOWED = 530

_CLOSED = re.compile(r"\((\d{3})\) ['\"](.*)['\"]", re.DOTALL)
_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<arg>[^']*)' for (?P<what>\w+) '(?P<name>[^']*)' in vhost '[^']*': "
    r"received (?P<ours>.*?) but current is (?P<theirs>.*)",
    re.DOTALL,
)
_TYPED = re.compile(r"^(?:the value )?'(.*)' of type '\w+'$")


def reply_code(error: BaseException) -> int | None:
    """The code with which the broker closed the connection or the channel; None where it did not."""
    return _reply(error)[0]


def _reply(error: BaseException) -> tuple[int | None, str]:
    """The broker's code and words, or None and what is known otherwise."""
    if isinstance(error, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        return int(error.reply_code), str(error.reply_text)
    if isinstance(error, exceptions.ProbableAuthenticationError | exceptions.ProbableAccessDeniedError):
        # pika keeps what the broker said as the text of another error only.
        found = _CLOSED.search(str(error.args[0]) if error.args else "")
        if found:
            return int(found[1]), found[2]
        return None, "the connection was closed during the login"
    if isinstance(error, AMQPConnectorStackTimeout):
        return None, "no answer"
    if isinstance(error, exceptions.AMQPHeartbeatTimeout):
        return None, str(error) or "no sign of life from the broker"
    if isinstance(error, exceptions.StreamLostError):
        return None, "the connection was lost"
    if isinstance(error, OSError):
        return None, error.strerror or str(error)
    return None, str(error) or type(error).__name__


def _causes(error: BaseException) -> list[BaseException]:
    """What stands behind pika's wrappers: one error for every address that was tried."""
    if isinstance(error, AMQPConnectionWorkflowFailed):
        return [cause for each in error.exceptions for cause in _causes(each)]
    if isinstance(error, AMQPConnectorPhaseErrorBase):
        return _causes(error.exception)
    return [error]


def connect_failure(error: BaseException, settings: Settings, user: str) -> ConnectError:
    """No connection: what the broker, the TLS handshake or the operating system said of it, in one sentence."""
    causes = _causes(error)
    # A definite answer of one server says more than another one's silence.
    cause = next((c for c in causes if _refused(c)), causes[-1])
    found = ConnectError(
        _why(cause, settings, user), url=settings.url, endpoint=settings.endpoint, retryable=not _refused(cause)
    )
    found.__cause__ = cause
    return found


def _refused(cause: BaseException) -> bool:
    """Whether trying again is of no use."""
    if isinstance(cause, exceptions.AuthenticationError):
        return True
    return _reply(cause)[0] in {ACCESS_REFUSED, NOT_ALLOWED} or explain(cause) is not None


def _why(cause: BaseException, settings: Settings, user: str) -> str:
    code, words = _reply(cause)
    where = f"RabbitMQ at {settings.servers}"
    encryption = explain(cause)
    if encryption is not None:
        return f"TLS with {where} is refused: {encryption}"
    if code == ACCESS_REFUSED and isinstance(cause, exceptions.ProbableAuthenticationError):
        return f"{where} refused the user {user!r}: wrong name or password, or not allowed from this host"
    if code in {ACCESS_REFUSED, NOT_ALLOWED}:
        return f"{where} refused the virtual host {settings.vhost!r} to {user!r}: {_plain(words)}"
    if isinstance(cause, exceptions.IncompatibleProtocolError):
        return f"what answers at {settings.servers} does not speak AMQP 0-9-1, or closed the connection at once"
    return f"no connection to {where}: {_plain(words)}"


def connect_timeout(settings: Settings, timeout: float) -> ConnectTimeout:
    """Nobody answered in time."""
    return ConnectTimeout(
        f"no answer from RabbitMQ at {settings.servers} within {timeout:.3g} s",
        url=settings.url,
        endpoint=settings.endpoint,
        retryable=True,
    )


def operation_failure(error: BaseException, what: str, settings: Settings) -> SimlinkError:
    """Declaring, binding, reading, purging or deleting failed."""
    if isinstance(error, SimlinkError):
        return error
    code, words = _reply(error)
    found: SimlinkError
    if code == PRECONDITION_FAILED and (difference := _INEQUIVALENT.search(words)):
        found = ConfigError(
            f"the {difference['what']} {difference['name']!r} at {settings.servers} was declared otherwise: "
            f"{difference['arg']} is {_side(difference['theirs'])} there and {_side(difference['ours'])} here; "
            "give the same options, or declare=false to take it as it is"
        )
    elif code in {PRECONDITION_FAILED, RESOURCE_LOCKED}:
        found = ConfigError(f"{what} at {settings.servers}: {_plain(words)}")
    else:
        refused = code in {ACCESS_REFUSED, NOT_FOUND, NOT_ALLOWED}
        found = ConnectError(
            f"{what} at {settings.servers}: {_plain(words)}",
            url=settings.url,
            endpoint=settings.endpoint,
            retryable=not refused,
        )
    found.__cause__ = error
    return found


def send_failure(error: BaseException, settings: Settings) -> TransportError:
    """The sending channel is gone. Only what the broker would say again is final."""
    code, words = _reply(error)
    found = SendError(
        f"the channel to RabbitMQ at {settings.servers} is gone: {_plain(words)}",
        url=settings.url,
        endpoint=settings.endpoint,
        retryable=code not in {ACCESS_REFUSED, PRECONDITION_FAILED},
    )
    found.__cause__ = error
    return found


def receive_failure(error: BaseException, settings: Settings) -> TransportError:
    """The receiving channel is gone; joining again may help, and meets what would not."""
    _, words = _reply(error)
    found = ReceiveError(
        f"the channel from RabbitMQ at {settings.servers} is gone: {_plain(words)}",
        url=settings.url,
        endpoint=settings.endpoint,
        retryable=True,
    )
    found.__cause__ = error
    return found


def unroutable(queue: str, code: int, words: str, settings: Settings) -> SendError:
    """The broker gave a message back: no queue would have taken it."""
    return SendError(
        f"RabbitMQ at {settings.servers} could not route a message to the queue {queue!r}: {words} ({code})",
        url=settings.url,
        endpoint=settings.endpoint,
    )


def _plain(words: str) -> str:
    """The broker's words in one line, without the code's name before them."""
    return re.sub(r"^[A-Z_]+ - ", "", " ".join(words.split()))


def _side(words: str) -> str:
    """One side of a comparison: ``the value 'quorum' of type 'longstr'`` → ``'quorum'``."""
    words = words.strip()
    found = _TYPED.match(words)
    return repr(found[1]) if found else words

"""Every error that simlink raises, in one tree.

::

    SimlinkError
    ├── ConfigError (ValueError)          wrong before anything was sent
    │   ├── InvalidURL                    a malformed URL, or a parameter that its transport does not know
    │   ├── UnknownScheme                 no transport by that name
    │   └── NotSupported                  a promise or an operation that this transport cannot keep
    ├── MissingExtra (ImportError)        an optional package is not installed; the message has the pip command
    ├── TransportError                    the wire, the peer or the broker; has .url .endpoint .retryable
    │   ├── ConnectError                  nobody answered, or the answer was no
    │   │   └── ConnectTimeout (TimeoutError)
    │   ├── SendError                     a message was refused, or surely did not get there
    │   │   ├── BatchError                some of a batch; .failed tells which
    │   │   └── SendTimeout (TimeoutError)      not confirmed in time; .receipt tells what is known
    │   ├── ReceiveError                  the receiving end broke
    │   │   └── ReceiveTimeout (TimeoutError)   nothing came in time
    │   └── NoEndpoints (TimeoutError)    every endpoint is out of rotation; .receipt tells what is known
    ├── CodecError
    │   ├── EncodeError (ValueError)      a value that the serializer cannot write
    │   └── DecodeError (ValueError)      a body that the serializer cannot read; has .body
    └── StateError (RuntimeError)         right call, wrong moment
        ├── ChannelClosed
        ├── AlreadySettled
        └── ForkError                     the channel was opened before a fork

The client library's own error is always the ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "AlreadySettled",
    "BatchError",
    "ChannelClosed",
    "CodecError",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "DecodeError",
    "EncodeError",
    "ForkError",
    "InvalidURL",
    "MissingExtra",
    "NoEndpoints",
    "NotSupported",
    "ReceiveError",
    "ReceiveTimeout",
    "SendError",
    "SendTimeout",
    "SimlinkError",
    "StateError",
    "TransportError",
    "UnknownScheme",
]


class SimlinkError(Exception):
    """The root of every error that simlink raises. It can be pickled, so that it passes between processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A receipt belongs to the channel that made it, and stays there.
        state = {name: None if name == "receipt" else value for name, value in self.__dict__.items()}
        return _again, (type(self), self.args, state)


def _again(kind: type[SimlinkError], args: tuple[Any, ...], state: Mapping[str, Any]) -> SimlinkError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(SimlinkError, ValueError):
    """Something was asked for that is wrong before anything was sent."""


class InvalidURL(ConfigError):
    """The URL is malformed, or has a parameter that its transport does not know."""


class UnknownScheme(ConfigError):
    """No transport is registered for the URL's scheme."""


class NotSupported(ConfigError):
    """The transport cannot do this, or cannot promise this."""


class MissingExtra(SimlinkError, ImportError):
    """An optional package is not installed.

    Attributes:
        extra: the name of the extra that brings it.
    """

    def __init__(self, what: str, extra: str, *, package: str | None = None) -> None:
        """``what`` needs ``package`` (if given), which ``pip install 'simlink[extra]'`` brings."""
        self.extra = extra
        needs = f" needs {package}" if package else " needs an extra"
        super().__init__(f"{what}{needs}: pip install 'simlink[{extra}]'")


class TransportError(SimlinkError):
    """The wire, the peer or the broker failed.

    Attributes:
        url: the channel's URL with secrets masked, or None.
        endpoint: the address concerned, as ``host:port``, or None.
        retryable: whether the same call may succeed later.
    """

    def __init__(
        self, message: str, *, url: str | None = None, endpoint: str | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.url = url
        self.endpoint = endpoint
        self.retryable = retryable


class ConnectError(TransportError):
    """Nobody answered at the address, or the answer was no."""


class ConnectTimeout(ConnectError, TimeoutError):
    """Nobody answered at the address in time."""


class SendError(TransportError):
    """A message was refused, or surely did not get there."""


class BatchError(SendError):
    """Some messages of a batch were not sent.

    Attributes:
        failed: the row in the batch → the error of that row.
    """

    def __init__(self, message: str, *, failed: Mapping[int, Exception], **context: Any) -> None:
        super().__init__(message, **context)
        self.failed = dict(failed)


class SendTimeout(SendError, TimeoutError):
    """The other side did not confirm in time; the message may still arrive.

    Attributes:
        receipt: the Receipt, which may yet be confirmed, or None when nothing was handed over.
    """

    def __init__(self, message: str, *, receipt: Any = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.receipt = receipt


class ReceiveError(TransportError):
    """The receiving end broke."""


class ReceiveTimeout(ReceiveError, TimeoutError):
    """Nothing came in time. Nothing was handed back by it either."""


class NoEndpoints(TransportError, TimeoutError):
    """No endpoint of the channel could take a message in time. The message says when each was last seen.

    Attributes:
        receipt: the Receipt of what was handed over, which may yet be confirmed, or None when nothing was.
    """

    def __init__(self, message: str, *, receipt: Any = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.receipt = receipt


class CodecError(SimlinkError):
    """A value and its bytes do not agree."""


class EncodeError(CodecError, ValueError):
    """The serializer cannot write this value.

    Attributes:
        row: the row of the block or batch, counted from 0, or None for a single value.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class DecodeError(CodecError, ValueError):
    """The serializer cannot read this body.

    Attributes:
        body: the bytes as they came.
    """

    def __init__(self, message: str, *, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body


class StateError(SimlinkError, RuntimeError):
    """The right call at the wrong moment."""


class ChannelClosed(StateError):
    """The channel or receiver was closed by this side."""


class AlreadySettled(StateError):
    """The delivery was settled before, with another verdict."""


class ForkError(StateError):
    """The channel was opened in a parent process; open a new one after the fork."""


_LISTED = 20


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint behind an unknown name: ``"; did you mean 'x'?"``, or the names that there are (the first 20)."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = ", …" if len(names) > _LISTED else ""
    return f"; known: {', '.join(names[:_LISTED])}{more}" if names else ""

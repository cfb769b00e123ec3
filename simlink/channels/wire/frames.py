"""The frames that two ends of a link exchange, as plain values. `codec` turns them into bytes and back."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from simlink.channels.driver import Mode
from simlink.errors import SimlinkError
from simlink.message import Batch

__all__ = [
    "Accept",
    "BatchFrame",
    "Bye",
    "Challenge",
    "Code",
    "ErrorFrame",
    "Frame",
    "FrameError",
    "Heartbeat",
    "Hello",
    "Moved",
    "Proof",
    "Returned",
    "Run",
    "Settle",
    "Subscribed",
    "Void",
    "Welcome",
]

Run = tuple[int, int]
"""The positions ``first … stop - 1``."""


class Code(enum.IntEnum):
    """Why a connection is given up."""

    VERSION = 1
    PROTOCOL = 2
    TOO_LARGE = 3
    TIMEOUT = 4
    NO_RECEIVER = 5
    MODE = 6
    CLOSING = 7
    BUSY = 8
    REPLACED = 9
    SECRET = 10


class FrameError(SimlinkError):
    """A peer's bytes are not frames, or make no sense here.

    Attributes:
        code: what to tell the peer.
        retryable: whether it may come again.
    """

    def __init__(self, message: str, code: Code = Code.PROTOCOL, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


@dataclass(slots=True)
class Hello:
    """Sender → receiver, first on every connection; see wire.proto for each field."""

    sender: bytes
    destination: str
    mode: Mode
    subscription: str = ""
    incarnation: bytes = b""
    low: int = 0
    next: int = 0
    heartbeat_ms: int = 1000
    max_frame_bytes: int = 8 * 1024 * 1024
    nonce: bytes = b""
    lease_ms: int = 0


@dataclass(slots=True)
class Challenge:
    """Receiver → sender, before the Welcome where a secret is shared: proof of it, and a question for proof."""

    nonce: bytes
    proof: bytes


@dataclass(slots=True)
class Proof:
    """Sender → receiver, the answer to a Challenge."""

    proof: bytes


@dataclass(slots=True)
class Welcome:
    """Receiver → sender, the answer, which resumes the link where the incarnation is the same."""

    incarnation: bytes
    accepted: int = 0
    settled: int = 0
    settled_runs: list[Run] = field(default_factory=list)
    rejected: list[Run] = field(default_factory=list)
    returned: list[Run] = field(default_factory=list)
    returned_handed: list[Run] = field(default_factory=list)
    credit: int = 0
    credit_bytes: int = 0
    heartbeat_ms: int = 1000
    max_frame_bytes: int = 8 * 1024 * 1024
    subscriptions: list[str] = field(default_factory=list)
    addressable: bool = False


@dataclass(slots=True)
class Subscribed:
    """Receiver → sender: what of a topic is subscribed to here now."""

    subscriptions: list[str]


@dataclass(slots=True)
class BatchFrame:
    """Sender → receiver: messages from ``position`` on.

    Attributes:
        low: the lowest position that the sender does not know to be settled.
        lows: producer → its lowest sequence that may still be sent again.
        subscriptions: of a topic, those that it is for, private ones as empty text; none: for every one.
    """

    position: int
    batch: Batch
    low: int = 0
    lows: dict[bytes, int] = field(default_factory=dict)
    subscriptions: tuple[str, ...] = ()


@dataclass(slots=True)
class Accept:
    """Receiver → sender: every position below is held; and the credit."""

    below: int
    credit: int
    credit_bytes: int


@dataclass(slots=True)
class Settle:
    """Receiver → sender: everything below is settled but what was rejected or returned; runs above; and the credit."""

    below: int
    settled: list[Run] = field(default_factory=list)
    rejected: list[Run] = field(default_factory=list)
    credit: int = 0
    credit_bytes: int = 0


@dataclass(slots=True)
class Returned:
    """Receiver → sender: accepted and given back; ``handed``: the application held them."""

    fresh: list[Run] = field(default_factory=list)
    handed: list[Run] = field(default_factory=list)


@dataclass(slots=True)
class Void:
    """Sender → receiver: the positions ``first … stop - 1`` will never come."""

    first: int
    stop: int


@dataclass(slots=True)
class Moved:
    """Sender → receiver: accepted here, sent elsewhere since; drop those not yet handed out."""

    positions: list[Run]


@dataclass(slots=True)
class Heartbeat:
    """Both ways. ``low``: from a sender, as in `BatchFrame`."""

    low: int = 0


@dataclass(slots=True)
class Bye:
    """Sender → receiver: it will send nothing again."""


@dataclass(slots=True)
class ErrorFrame:
    """Both ways, last before the connection is closed."""

    code: Code
    message: str
    retryable: bool = False


Frame = (
    Hello
    | Challenge
    | Proof
    | Welcome
    | Subscribed
    | BatchFrame
    | Accept
    | Settle
    | Returned
    | Void
    | Moved
    | Heartbeat
    | Bye
    | ErrorFrame
)

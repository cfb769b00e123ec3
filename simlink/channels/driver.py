"""What a transport author writes. This is the one file to read.

A transport is a `Driver` (a factory that validates and does no I/O) and its two ends. Everything a user relies on is
written once, above it: the window and its bounds, reconnecting with back-off, sending again, de-duplication, decoding,
settling, dead letters, timeouts, statistics. A driver moves batches and says truthfully what became of them.

Threads: the layer above calls an end from one thread at a time (not always the same one), except where a method says
otherwise. A client library that wants a thread of its own gets one inside its driver.

Time: every ``timeout`` is in seconds and finite; 0 means "do what can be done without waiting".

Errors: a TransportError whose ``retryable`` says whether to try again. An OSError that escapes `open` or `receive` is
told to the application as a ConnectError or ReceiveError that is not.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from simlink.message import Batch, Verdict

if TYPE_CHECKING:
    from simlink.channels.url import Option, Target

__all__ = [
    "Capabilities",
    "Driver",
    "Guarantee",
    "Incoming",
    "Kept",
    "Lease",
    "Mode",
    "Nack",
    "Order",
    "Outcome",
    "OutcomeKind",
    "ReceiverDriver",
    "ReceiverOptions",
    "SenderDriver",
    "Settlement",
]


class Mode(enum.Enum):
    """How a destination is shared."""

    QUEUE = "queue"
    """Point-to-point: each message goes to exactly one receiver."""
    TOPIC = "topic"
    """Publish/subscribe: each subscription gets every message."""


class Guarantee(enum.Enum):
    """What a confirmed message is promised."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"


class Kept(enum.Enum):
    """Where a message lives between sender and receiver."""

    NO = "no"
    """In the two ends only: at-least-once holds while the sender lives."""
    IN_PROCESS = "in process"
    DURABLE = "durable"
    REPLAYABLE = "replayable"


class Order(enum.Enum):
    """The order of first hand-outs."""

    NONE = "none"
    DISPATCH = "dispatch"
    """Log order while one receiver lives."""
    EXCLUSIVE = "exclusive"
    """A key's next message goes to no other receiver while one is unsettled."""


class Nack(enum.Enum):
    """Who hands a nacked message out again."""

    NATIVE = "native"
    EMULATED = "emulated"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a driver promises in one mode, as data: it selects the conformance tests and prints the docs' table.

    Attributes:
        guarantee: what a confirmed message is promised.
        kept: where messages live meanwhile.
        order: the order of first hand-outs.
        nack: who hands a nacked message out again.
        brokerless: the receiver listens at the URL's address; sends have the second state unsettled → settled.
        keys: keys arrive.
        headers: headers and the content type arrive.
        identity: producer, sequence and intended time arrive, so duplicates can be told and accounts kept.
        replay: ``start=`` may name the earliest message, an offset or a time.
        subscriptions: named subscriptions are remembered while nobody reads.
        cross_process: the two ends may live in different processes.
        takeover: seconds until a dead receiver's messages move on; 0 where there is nothing to wait for.
        max_message_bytes: the largest body, or None for no limit of its own.
        max_key_bytes: the largest key, or None.
    """

    guarantee: Guarantee = Guarantee.AT_LEAST_ONCE
    kept: Kept
    order: Order
    nack: Nack
    brokerless: bool = False
    keys: bool = True
    headers: bool = True
    identity: bool = True
    replay: bool = False
    subscriptions: bool = True
    cross_process: bool = True
    takeover: float = 0.0
    max_message_bytes: int | None = None
    max_key_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a table or JSON."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            out[f.name] = value.value if isinstance(value, enum.Enum) else value
        return out


class OutcomeKind(enum.Enum):
    """What became of messages handed to `SenderDriver.submit`."""

    CONFIRMED = "confirmed"
    """Stored by the broker as configured; brokerless: accepted by the receiving process."""
    FAILED = "failed"
    """Surely not there: never handed to the client, or refused by name."""
    UNKNOWN = "unknown"
    """May be there, and the client may still deliver it: never sent again. A later CONFIRMED is possible."""
    RETURNED = "returned"
    """Not there, or given back by its receiver, and the client will not deliver it any more: the layer above submits
    it again, under a new position and the same identity."""
    SETTLED = "settled"
    """Brokerless only: the application acknowledged it."""
    REJECTED = "rejected"
    """Brokerless only: the application rejected it."""
    RESENT = "resent"
    """Still open: the driver has sent it again itself, and it may be there already. It is only counted."""


# Not frozen, though nobody changes one: that takes four times as long to make, and a waiting send makes two.
@dataclass(slots=True, unsafe_hash=True)
class Outcome:
    """What became of the positions ``first … stop - 1``.

    Attributes:
        ambiguous: of RETURNED: the other side may hold or have handed out a copy, so sending it again may repeat it.
        error: why, for FAILED and UNKNOWN: the client's own error, or one of simlink's that has it as its cause.
        missed: of CONFIRMED on a brokerless topic: the subscriptions that were declared dead meanwhile.
    """

    kind: OutcomeKind
    first: int
    stop: int
    ambiguous: bool = False
    error: Exception | None = None
    missed: tuple[str, ...] = ()


class Lease:
    """One hold of one receiver over some messages: a connection, an assignment of a partition.

    The driver clears ``valid`` when the hold is lost. The tokens under it are stale from then on: their verdicts are
    dropped and counted, and never reach the wire.
    """

    __slots__ = ("name", "valid")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.valid = True

    def __repr__(self) -> str:
        return f"Lease({self.name!r}, {'valid' if self.valid else 'lost'})"


@dataclass(slots=True)
class Incoming:
    """Some messages under one lease.

    Attributes:
        batch: the messages, in order.
        tokens: one integer a message, ascending; a ``range`` where they follow one another. Unique within the lease.
        attempts: how often each was handed out, this time included; `Same(1, n)` for fresh ones. From 2 on a message
            is a redelivery of its broker position and is not held against the de-duplication.
        lease: the hold they are under.
    """

    batch: Batch
    tokens: Sequence[int]
    attempts: Sequence[int]
    lease: Lease


@dataclass(slots=True, unsafe_hash=True)  # not frozen for the same reason
class Settlement:
    """One verdict over the delivered tokens ``first … last`` (both included) of a lease.

    Attributes:
        delay: of NACK: hand it out again after this many seconds.
    """

    lease: Lease
    verdict: Verdict
    first: int
    last: int
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ReceiverOptions:
    """What the user asked of a receiver, as far as a driver must know it.

    Attributes:
        prefetch: how many messages may be held unsettled, buffered ones included.
        prefetch_bytes: the same in bytes.
        start: "earliest", "new", an offset or a time; None for the mode's own default.
        reset: whether ``start`` may move an existing subscription.
        at: the host this receiver binds, of several in the URL (brokerless).
        overflow: "block" or "drop", when a subscription's buffer is full (brokerless and memory topics).
        exclusive: one receiver at a time, so that order survives a takeover.
        extra: the driver's own receiver options.
    """

    prefetch: int = 500
    prefetch_bytes: int = 16 * 1024 * 1024
    start: str | int | datetime | None = None
    reset: bool = False
    at: str | None = None
    overflow: str = "block"
    exclusive: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


class Driver(ABC):
    """A transport at one URL in one mode: a factory that validates and does no I/O.

    Attributes:
        schemes: the URL schemes it serves.
        options: its URL parameters and keyword options, by name; anything else is refused before it is made.
        several: each host of a URL is an endpoint of its own, so that several of them make a pool; the driver is then
            made for one host at a time. Otherwise what several hosts mean is the driver's own business.
    """

    schemes: ClassVar[tuple[str, ...]]
    several: ClassVar[bool] = False
    options: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, target: Target, *, mode: Mode, **options: Any) -> None:
        """``options`` are checked and converted by ``options`` of the class, defaults filled in.

        Raises:
            NotSupported: the mode, or a promise asked for, cannot be had here.
            MissingExtra: the client library is not installed.
        """
        self.target = target
        self.mode = mode

    @property
    def url(self) -> str:
        """What it is called in messages; passwords masked."""
        return str(self.target)

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What is promised in this mode with these options."""

    @abstractmethod
    def sender(self) -> SenderDriver:
        """A new, unopened sending end."""

    @abstractmethod
    def receiver(self, subscription: str | None, options: ReceiverOptions) -> ReceiverDriver:
        """A new, unopened receiving end; on a topic of the named subscription, or of a private one for None."""

    def acquire(self) -> None:
        """The channel was entered: hold what its ends will share. No I/O. May be called again."""

    def release(self) -> None:
        """The channel is closed: let go of what its ends shared. Idempotent."""

    def purge(self, timeout: float) -> int:
        """Drop what the destination holds; how many messages, or -1 where the transport cannot say.

        Raises:
            NotSupported: there is nothing kept, or no way to drop it.
        """
        raise _not_supported(self, "purge()")

    def delete(self, timeout: float) -> None:
        """Remove the destination with all its subscriptions and whatever it holds; nothing if it is not there.

        Raises:
            NotSupported: there is nothing to remove.
        """
        raise _not_supported(self, "delete()")

    def delete_subscription(self, name: str, timeout: float) -> None:
        """Forget a named subscription; nothing if it is not there.

        Raises:
            NotSupported: subscriptions are not remembered here.
        """
        raise _not_supported(self, "delete_subscription()")


class SenderDriver(ABC):
    """The sending end. It never retries and never resends on its own account.

    Attributes:
        in_haste: a caller waits for the one message that is not confirmed yet. `outcomes` may then look for the answer
            for a fraction of a millisecond before it sleeps. Set by the portable end.
    """

    in_haste: bool = False

    @abstractmethod
    def open(self, timeout: float) -> None:
        """Connect. Called again after a retryable error: connect anew. What was in flight is then reported by
        `outcomes`: RETURNED where it must be submitted again, CONFIRMED or SETTLED where the peer says so.

        Raises:
            ConnectError: nobody there, or refused; ``retryable`` says whether calling again may help.
            ConnectTimeout: no answer in time.
        """

    @abstractmethod
    def submit(self, batch: Batch, position: int) -> None:
        """Hand over and return; the window above bounds what is in flight. The batch's messages have the positions
        ``position …`` without a gap; positions ascend by one from call to call, from 0 at the first.

        Raises:
            TransportError: the connection broke. What was handed over, this batch included, is reported by
                `outcomes` after the next `open`, or as UNKNOWN.
        """

    @abstractmethod
    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        """What became known since the last call; waits up to ``timeout`` for the first, empty when there is none.
        Does the pending I/O and keeps the link alive as well: it is called every few milliseconds while something is
        in flight, and every ``idle_interval`` when nothing is.

        Raises:
            TransportError: the connection broke, as in `submit`.
        """

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Flush what the client holds, for at most ``timeout``, and release everything. Idempotent, works on an
        unopened or broken end, and never raises for what could not be delivered: that stays unreported."""

    def wake(self) -> None:
        """Make a waiting `outcomes` return soon. May be called from any thread; the default does nothing, for
        drivers whose waits are short."""

    @property
    def idle_interval(self) -> float:
        """How often `outcomes` must be called when nothing is in flight, in seconds."""
        return 0.25

    @property
    def native(self) -> Any:
        """The client library's own object, for what simlink does not cover; None where there is none."""
        return None

    def stats(self) -> Mapping[str, Any]:
        """Figures of the driver's own: depths, reconnects, refused frames."""
        return {}

    # --- for a pool, which has one end for each of its endpoints; a driver may leave all of it as it is ------------

    def waits_for(self) -> Sequence[tuple[int, int]] | None:
        """``(descriptor, poll events)`` of what `outcomes` would wait for now, so that many ends can be waited for at
        once; None where there are none: then it is asked every few milliseconds, and when `listen` says so."""
        return None

    def rest(self) -> float:
        """For how many seconds `outcomes` need not be called if nothing comes: until the next heartbeat is due."""
        return self.idle_interval

    def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify``, from any thread, whenever `outcomes` may have something, if `waits_for` cannot tell."""

    def lease(self, seconds: float) -> None:
        """Before the first `open`: after so much silence, what its peer holds may be withdrawn. A peer that honours it
        asks before it hands out anything that is older."""

    def withdraw(self) -> Sequence[Outcome]:
        """Take back what is unresolved, to be sent to another endpoint, and drop the connection: RETURNED for each
        message that the peer has not resolved. A peer that comes back is told, and drops what it has not handed out.
        The default reports nothing: the pool takes all of it for ambiguous, or for unknown where the driver promises at
        most once. While this runs, a pool does nothing else; Kafka's clients take up to two seconds for it."""
        return ()

    @property
    def incarnation(self) -> bytes:
        """Which life of its peer it is connected to; empty where that is not told."""
        return b""

    @property
    def subscriptions(self) -> tuple[str, ...] | None:
        """Of a topic: what is subscribed to at the peer, private ones as empty text; None where that is not told. It
        may change with every `open` and `outcomes`."""
        return None

    @property
    def addressable(self) -> bool:
        """Whether `address` may be called: the peer heeds what a message is for."""
        return False

    def address(self, subscriptions: tuple[str, ...]) -> None:
        """What is submitted from now on is for these of `subscriptions` only; none: for all of them. Called only where
        `addressable` says so."""

    @property
    def pulse(self) -> tuple[int, int] | None:
        """How many signs of life of the peer were heard so far, and how many of them were heartbeats; None where
        there are none, and being connected has to do."""
        return None

    def obstacle(self) -> Exception | None:
        """Why nothing can go out now, for the error of a send that timed out; None where nothing is known."""
        return None


class ReceiverDriver(ABC):
    """The receiving end."""

    @abstractmethod
    def open(self, timeout: float) -> None:
        """Join: returns once subscribed, its assignment known and its start positions resolved.

        Raises:
            ConnectError, ConnectTimeout: as for a sender. An address in use is a ConnectError.
        """

    @abstractmethod
    def receive(self, limit: int, timeout: float) -> Sequence[Incoming]:
        """At most ``limit`` messages, as soon as there is one; empty on timeout, or any time before. Never hands out
        more than ``prefetch`` unsettled ones altogether, but at least one.

        Raises:
            TransportError: the connection broke. If ``retryable``, `open` is called again.
        """

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Record verdicts and return; they are sent soon, and by `close` at the latest. Never waits for the network.
        Those of a lost lease are dropped. May be called from any thread, also while `receive` waits."""

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Send the verdicts, give back what is unsettled, release everything. Idempotent; works on an unopened or
        broken end."""

    def tend(self) -> None:
        """Called about every 0.1 s while the application is busy with what it holds (never at the same time as
        `receive`): heartbeats, rebalances, sending verdicts. For drivers without a thread of their own."""

    def wake(self) -> None:
        """Make a waiting `receive` return soon. May be called from any thread."""

    def reserve(self, count: int) -> None:
        """Raise the number of messages that may be held unsettled to ``count`` (for ``take(n)``); back with the
        original number."""

    @property
    def address(self) -> str | None:
        """``host:port`` that was really bound (brokerless), None otherwise."""
        return None

    @property
    def assigned(self) -> bool:
        """Whether anything can come at all now (a consumer group may have given everything to others)."""
        return True

    @property
    def native(self) -> Any:
        """The client library's own object; None where there is none."""
        return None

    def stats(self) -> Mapping[str, Any]:
        """Figures of the driver's own: depths, blocked partitions, stale verdicts, gaps."""
        return {}


def _not_supported(driver: Driver, what: str) -> Exception:
    from simlink.errors import NotSupported

    return NotSupported(f"{what} is not supported by {driver.schemes[0]}://")

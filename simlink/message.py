"""Message, Batch and Delivery: what moves, and what the application gets hold of.

A Batch is columns: one sequence of bodies, one of keys, and so on. A column whose rows are all alike is a `Same`, so
that a batch of ten thousand messages without headers costs one object. A Message is a view of one row, made only when
somebody asks for that row.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from types import MappingProxyType
from typing import Any, Generic, TypeVar, overload

import msgspec

from simlink.errors import AlreadySettled, ConfigError, DecodeError, StateError

__all__ = ["EMPTY_HEADERS", "Batch", "Delivery", "Key", "Message", "Same", "Verdict", "encode_key", "has_line_break"]

T = TypeVar("T")
Key = str | bytes | int
"""What a user may give as a key: text is sent as UTF-8, bytes as they are, an integer as decimal text."""

EMPTY_HEADERS: Mapping[str, str] = MappingProxyType({})

Decoder = Callable[[Sequence[bytes]], list[Any]]
"""Bodies → values, one each, in order. A body that cannot be read yields its DecodeError in its place."""


class Verdict(enum.IntEnum):
    """What the application says of a message it was handed."""

    ACK = 1
    """Done; never again."""
    NACK = 2
    """Not now; hand it out again after a back-off."""
    REJECT = 3
    """Never; to the dead letters where there are some."""


def has_line_break(text: str) -> bool:
    """Whether a text ends a line or itself somewhere within, for those who read it so: it has a CR, an LF or a NUL."""
    return "\n" in text or "\r" in text or "\0" in text


def encode_key(key: Key | None) -> bytes | None:
    """The bytes that stand for a key on every transport.

    Raises:
        ConfigError: the key is neither str, bytes nor int, or a str with half a surrogate pair, CR, LF or NUL.
    """
    if key is None or isinstance(key, bytes):
        return key
    if isinstance(key, str):
        if has_line_break(key):
            raise ConfigError(f"a key of text has no CR, LF or NUL, as {key!r:.80} has; bytes travel as they are")
        try:
            return key.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"a key is text that UTF-8 can hold, not {key!r}") from error
    if isinstance(key, int) and not isinstance(key, bool):
        return b"%d" % key
    raise ConfigError(f"a key is str, bytes or int, not {type(key).__name__}: {key!r}")


class Same(Sequence[T], Generic[T]):
    """A column of ``length`` rows that are all ``value``."""

    __slots__ = ("length", "value")

    def __init__(self, value: T, length: int) -> None:
        self.value = value
        self.length = length

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Same[T]: ...
    def __getitem__(self, index: int | slice) -> T | Same[T]:
        if isinstance(index, slice):
            return Same(self.value, len(range(*index.indices(self.length))))
        if -self.length <= index < self.length:
            return self.value
        raise IndexError(index)

    def __iter__(self) -> Iterator[T]:
        return repeat(self.value, self.length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and (self.value, self.length) == (other.value, other.length)

    __hash__ = None  # type: ignore[assignment]  # a column is compared, never a key

    def __repr__(self) -> str:
        return f"Same({self.value!r}, {self.length})"


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message, immutable.

    Attributes:
        body: the serialised value, exactly as it is on the wire.
        key: what keeps messages together and in order, or None.
        headers: text → text.
        content_type: the media type of the body, or None when the transport does not carry one.
        producer: 16 random bytes that name the sending channel or run, or None from a foreign sender.
        sequence: the position in that producer's stream (in a run: the row index), or None from a foreign sender.
        timestamp: the intended send time, microseconds since 1970 UTC, or None where nobody stamped one.
    """

    body: bytes
    key: bytes | None = None
    headers: Mapping[str, str] = EMPTY_HEADERS
    content_type: str | None = None
    producer: bytes | None = None
    sequence: int | None = None
    timestamp: int | None = None

    def __repr__(self) -> str:
        body = self.body if len(self.body) <= 60 else self.body[:57] + b"..."
        shown = [f"body={body!r}"]
        if self.key is not None:
            shown.append(f"key={self.key!r}")
        if self.headers:
            shown.append(f"headers={dict(self.headers)!r}")
        if self.producer is not None:
            shown.append(f"producer={self.producer.hex()[:8]}…")
        if self.sequence is not None:
            shown.append(f"sequence={self.sequence}")
        return f"Message({', '.join(shown)})"


class Batch:
    """Many messages as parallel columns, all of the same length.

    Slicing gives a Batch that shares its cells, an integer index gives a Message, iterating gives Messages.

    Attributes:
        bodies: one bytes object a message.
        keys: bytes or None.
        headers: a mapping each; `EMPTY_HEADERS` where there are none.
        content_types: str or None.
        producers: 16 bytes or None.
        sequences: int or None; a ``range`` where they follow one another, a NumPy array where they do not.
        timestamps: intended send times in microseconds since 1970 UTC, or None.
    """

    __slots__ = (
        "_decode",
        "_nbytes",
        "_settle",
        "_values",
        "_whole",
        "bodies",
        "content_types",
        "headers",
        "keys",
        "producers",
        "sequences",
        "timestamps",
    )

    def __init__(
        self,
        bodies: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[Mapping[str, str]] | None = None,
        content_types: Sequence[str | None] | None = None,
        producers: Sequence[bytes | None] | None = None,
        sequences: Sequence[int | None] | None = None,
        timestamps: Sequence[int | None] | None = None,
        decode: Decoder | None = None,
    ) -> None:
        n = len(bodies)
        self.bodies = bodies
        self.keys: Sequence[bytes | None] = Same(None, n) if keys is None else keys
        self.headers: Sequence[Mapping[str, str]] = Same(EMPTY_HEADERS, n) if headers is None else headers
        self.content_types: Sequence[str | None] = Same(None, n) if content_types is None else content_types
        self.producers: Sequence[bytes | None] = Same(None, n) if producers is None else producers
        self.sequences: Sequence[int | None] = Same(None, n) if sequences is None else sequences
        self.timestamps: Sequence[int | None] = Same(None, n) if timestamps is None else timestamps
        self._decode = decode
        self._values: list[Any] | None = None
        self._settle: Callable[[Verdict], bool] | None = None
        self._whole: Batch | None = None
        self._nbytes = -1

    @classmethod
    def of(cls, messages: Iterable[Message]) -> Batch:
        """The batch with these messages as its rows."""
        rows = list(messages)
        return cls(
            [m.body for m in rows],
            keys=[m.key for m in rows],
            headers=[m.headers for m in rows],
            content_types=[m.content_type for m in rows],
            producers=[m.producer for m in rows],
            sequences=[m.sequence for m in rows],
            timestamps=[m.timestamp for m in rows],
        )

    @classmethod
    def concat(cls, batches: Sequence[Batch]) -> Batch:
        """One batch with the rows of all, in order."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            _chain([b.bodies for b in batches]),
            keys=_chain([b.keys for b in batches]),
            headers=_chain([b.headers for b in batches]),
            content_types=_chain([b.content_types for b in batches]),
            producers=_chain([b.producers for b in batches]),
            sequences=_chain([b.sequences for b in batches]),
            timestamps=_chain([b.timestamps for b in batches]),
        )

    def __len__(self) -> int:
        return len(self.bodies)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    def __getitem__(self, index: int | slice) -> Message | Batch:
        if isinstance(index, slice):
            part = Batch(
                self.bodies[index],
                keys=self.keys[index],
                headers=self.headers[index],
                content_types=self.content_types[index],
                producers=self.producers[index],
                sequences=self.sequences[index],
                timestamps=self.timestamps[index],
                decode=self._decode,
            )
            if self._values is not None:
                part._values = self._values[index]
            return part
        sequence, timestamp = self.sequences[index], self.timestamps[index]
        return Message(
            body=self.bodies[index],
            key=self.keys[index],
            headers=self.headers[index],
            content_type=self.content_types[index],
            producer=self.producers[index],
            sequence=None if sequence is None else int(sequence),
            timestamp=None if timestamp is None else int(timestamp),
        )

    def __iter__(self) -> Iterator[Message]:
        return (self[i] for i in range(len(self)))

    def take(self, rows: Sequence[int]) -> Batch:
        """A batch of the rows with these indices, in this order."""
        return Batch(
            [self.bodies[i] for i in rows],
            keys=_pick(self.keys, rows),
            headers=_pick(self.headers, rows),
            content_types=_pick(self.content_types, rows),
            producers=_pick(self.producers, rows),
            sequences=_pick(self.sequences, rows),
            timestamps=_pick(self.timestamps, rows),
            decode=self._decode,
        )

    def _view(self) -> Batch:
        """Another Batch with the same columns, which are not copied; what one of them decodes both have."""
        same = Batch(
            self.bodies,
            keys=self.keys,
            headers=self.headers,
            content_types=self.content_types,
            producers=self.producers,
            sequences=self.sequences,
            timestamps=self.timestamps,
            decode=self._decode,
        )
        same._whole = self
        same._nbytes = self._nbytes
        return same

    @property
    def nbytes(self) -> int:
        """The bytes of all bodies and keys; what bounds in bytes count."""
        if self._nbytes < 0:
            bodies, keys = self.bodies, self.keys
            total = len(bodies[0]) if len(bodies) == 1 else sum(map(len, bodies))
            if isinstance(keys, Same):
                if keys.value:
                    total += keys.length * len(keys.value)
            else:
                total += sum(map(len, filter(None, keys)))
            self._nbytes = total
        return self._nbytes

    @property
    def values(self) -> list[Any]:
        """The decoded values, one a message, decoded at once on first use.

        Raises:
            DecodeError: one of the bodies cannot be read; the error of the first such row, its ``row`` noted.
            StateError: the batch was never given a decoder (it does not come from a receiver).
        """
        values = self.outcomes
        # By exact type: a decoder never yields a DecodeError as a value of its own. The set of the types is a third of
        # the time of looking at each.
        if DecodeError in set(map(type, values)):
            raise next(value for value in values if type(value) is DecodeError)
        return values

    @property
    def outcomes(self) -> list[Any]:
        """Like `values`, with the DecodeError itself in the place of every body that cannot be read."""
        if self._values is None and self._whole is not None:
            self._values = self._whole.outcomes
        if self._values is None:
            if self._decode is None:
                raise StateError("this batch has no decoder; read .bodies")
            self._values = self._decode(self.bodies)
        return self._values

    def ack(self) -> bool:
        """Of a batch from a receiver: acknowledge all of it. False where the hold was lost meanwhile."""
        return self._say(Verdict.ACK)

    def nack(self) -> bool:
        """Of a batch from a receiver: hand all of it out again after a back-off."""
        return self._say(Verdict.NACK)

    def reject(self) -> bool:
        """Of a batch from a receiver: refuse all of it for good."""
        return self._say(Verdict.REJECT)

    def _say(self, verdict: Verdict) -> bool:
        if self._settle is None:
            raise StateError("this batch does not come from a receiver")
        return self._settle(verdict)

    def __repr__(self) -> str:
        return f"Batch({len(self)} messages, {self.nbytes} bytes)"


def _chain(columns: Sequence[Sequence[Any]]) -> Sequence[Any]:
    first = columns[0]
    if isinstance(first, Same) and all(isinstance(c, Same) and c.value == first.value for c in columns):
        return Same(first.value, sum(map(len, columns)))
    out: list[Any] = []
    for column in columns:
        out.extend(column)
    return out


def _pick(column: Sequence[Any], rows: Sequence[int]) -> Sequence[Any]:
    if isinstance(column, Same):
        return Same(column.value, len(rows))
    return [column[i] for i in rows]


class Hand:
    """The rows of one batch that the application holds, and what it said of each.

    The receiver makes one for every batch it hands out; a Delivery is a row of it. ``settle`` tells the receiver.
    """

    __slots__ = ("attempts", "batch", "marks", "on_settle", "open", "taken_back")

    def __init__(self, batch: Batch, attempts: Sequence[int], on_settle: Callable[[Hand, int, Verdict], bool]) -> None:
        self.batch = batch
        self.attempts = attempts
        self.marks = bytearray(len(batch))
        self.open = len(batch)
        self.on_settle = on_settle
        # The receiver took back what was open; a verdict comes too late then, and is no contradiction.
        self.taken_back = False

    def settle(self, row: int, verdict: Verdict) -> bool:
        mark = self.marks[row]
        if mark:
            if mark == verdict and not self.taken_back:
                return True
            if self.taken_back:
                return self.on_settle(self, row, verdict)
            raise AlreadySettled(f"this delivery was settled before, by {Verdict(mark).name.lower()}()")
        return self.on_settle(self, row, verdict)


class Delivery(msgspec.Struct, gc=False, eq=False):
    """One message in the application's hands.

    With ``settle="auto"`` asking for the next one acknowledges this one. With ``settle="manual"`` call exactly one of
    `ack`, `nack` and `reject`; the same verdict again does nothing, another one raises AlreadySettled. Each returns
    False, and does nothing, when the hold was lost meanwhile (the message comes again, here or elsewhere).
    """

    _hand: Hand
    _row: int

    @property
    def value(self) -> Any:
        """The decoded value.

        Raises:
            DecodeError: the serializer cannot read the body. If it escapes the loop the message is rejected.
        """
        raise self._hand.batch.outcomes[self._row]

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self._hand.batch[self._row]

    @property
    def attempt(self) -> int:
        """How often it was handed out, this time included. A lower bound: 1 = not known to have been out before."""
        return self._hand.attempts[self._row]

    def ack(self) -> bool:
        """Done; never hand it out again. Recorded at once, sent soon; ``close()`` guarantees that it was sent."""
        return self._hand.settle(self._row, Verdict.ACK)

    def nack(self) -> bool:
        """Not now: hand it out again after a back-off (0.1 s doubling to 30 s)."""
        return self._hand.settle(self._row, Verdict.NACK)

    def reject(self) -> bool:
        """Never: drop it, or send it to the dead letters where the receiver has some."""
        return self._hand.settle(self._row, Verdict.REJECT)

    def __repr__(self) -> str:
        return f"Delivery({self._hand.batch.outcomes[self._row]!r}, attempt={self.attempt})"


class Decoded(Delivery, gc=False, eq=False):
    """A delivery whose body could be read: its value is a plain field, which costs a fifth of a property."""

    value: Any

    def __repr__(self) -> str:
        return super().__repr__()


def delivery(hand: Hand, row: int, outcome: Any) -> Delivery:
    """The delivery of a row, given what decoding it came to."""
    return Delivery(hand, row) if type(outcome) is DecodeError else Decoded(hand, row, outcome)

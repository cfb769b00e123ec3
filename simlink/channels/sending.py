"""The sending side of a channel: from values to a batch with its identity, and from what became of it to a receipt."""

from __future__ import annotations

import copy
import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

from simlink.block import Block
from simlink.channels.driver import Capabilities, Driver, Mode
from simlink.channels.receipt import Receipt
from simlink.channels.sender import Sender
from simlink.channels.window import Entry, State, Totals, Window
from simlink.errors import (
    ConfigError,
    NoEndpoints,
    SendError,
    SendTimeout,
)
from simlink.message import EMPTY_HEADERS, Batch, Key, Message, Same, encode_key, has_line_break
from simlink.serializers.serializer import Serializer

if TYPE_CHECKING:
    from simlink.channels.cloudevents import CloudEvents

__all__ = ["Sending"]

log = logging.getLogger("simlink")

V = TypeVar("V")
_NO_KEY: Same[bytes | None] = Same(None, 1)
_CONFIRMED, _SETTLED = int(State.CONFIRMED), int(State.SETTLED)


class Sending:
    """What `Channel` is made of, for sending; it has these attributes when it is made."""

    url: str
    name: str
    mode: Mode
    capabilities: Capabilities
    _driver: Driver
    _options: Mapping[str, Any]
    _serializer: Serializer | None
    _envelope: CloudEvents | None
    _guard: threading.RLock
    _sender: Sender | None
    _producer: bytes
    _sequence: int
    _body_limit: int | None
    _bare: bool

    @abstractmethod
    def _check_open(self) -> None:
        """Raises ChannelClosed or ForkError."""

    @property
    def serializer(self) -> Serializer:
        """What turns values into bodies and back; `Json` unless another was given."""
        if self._serializer is None:
            from simlink.serializers.json import Json

            self._serializer = Json()
        return self._serializer

    def send(
        self,
        value: Any,
        *,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = 30.0,
        wait: bool = True,
    ) -> Receipt:
        """Send one value, or one ready `Message`.

        Args:
            value: what the serializer takes; a Message is sent as it is (``key`` and ``headers`` are then its own).
            key: keeps messages of the same key together and in order.
            headers: text → text, without CR, LF or NUL.
            timeout: seconds to wait for a peer, for room in the window and for the confirmation; None waits for ever.
            wait: False returns at once with a pending receipt.

        Returns:
            A confirmed receipt (or a pending one with ``wait=False``).

        Raises:
            EncodeError: the serializer cannot write the value.
            ConnectTimeout: nobody was there in time. SendTimeout: not confirmed in time; its ``receipt`` may yet be.
            SendError: refused by the other side. ChannelClosed, ForkError.
        """
        if isinstance(value, Message):
            if key is not None or headers is not None:
                raise ConfigError("a Message has its own key and headers; give them there")
            batch = self._stamp(Batch.of([_checked_message(value)]))
        else:
            serializer = self._serializer or self.serializer
            batch = self._compose(
                [serializer.dumps(value)], _NO_KEY if key is None else Same(encode_key(key), 1), headers
            )
        deadline = _deadline(timeout)
        entry = self.submit(batch, timeout, wait=wait)
        receipt = Receipt(entry, self._sender.wait)  # type: ignore[union-attr]  # there is one by now
        if wait and not (entry.counts[_CONFIRMED] or entry.counts[_SETTLED]):
            self._resolve(receipt, deadline, timeout)
        return receipt

    def send_many(
        self,
        values: Block | Batch | Iterable[Any],
        *,
        key: str | Callable[[Any], Key | None] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = 30.0,
        wait: bool = True,
    ) -> Receipt:
        """Send many values as one batch, or a ready `Batch`; like `send`, and never one round trip per message.

        Args:
            values: a Block, a Batch (sent as it is), or an iterable of values or of Messages, read to its end.
            key: the name of the field that is the key, or a function of the value.
            headers: of every message.
            timeout: as for `send`, for all of them.
            wait: False returns at once with a pending receipt.

        Raises:
            ConfigError: the values have no end, or are one text, bytes or mapping, which would be taken apart.
            BatchError: some were refused; ``failed`` has the rows. SendTimeout: as for `send`; where only the first of
                many were handed over in time, its ``receipt`` says which. Otherwise as `send`.
        """
        deadline = _deadline(timeout)
        rows: Block | Batch | list[Any] = values if isinstance(values, Block | Batch | list) else _read(values)
        if isinstance(rows, list) and any(isinstance(row, Message) for row in rows[:1]):
            rows = _batch_of(rows)
        elif isinstance(rows, Batch):
            _check_lines([rows.headers.value] if isinstance(rows.headers, Same) else rows.headers)
        if isinstance(rows, Batch):
            if key is not None or headers is not None:
                raise ConfigError("Messages and Batches have their own keys and headers; give them there")
            # A copy of the columns' table: the caller's batch stays as it is, and may be sent again.
            batch = self._stamp(copy.copy(rows))
        else:
            batch = self._compose(self.serializer.dumps_many(rows), self._keys(rows, key), headers)
        receipt = self._send_in_parts(batch, deadline)
        if wait:
            self._resolve(receipt, deadline, timeout)
        return receipt

    def _keys(self, values: Block | list[Any], key: str | Callable[[Any], Key | None] | None) -> Sequence[bytes | None]:
        if key is None:
            return Same(None, len(values))
        from simlink.generators.source import key_column

        return key_column(values, key)

    def _compose(self, bodies: list[bytes], keys: Sequence[bytes | None], headers: Mapping[str, str] | None) -> Batch:
        n = len(bodies)
        with self._guard:
            first = self._sequence
            self._sequence = first + n
        return Batch(
            bodies,
            keys=keys,
            headers=Same(_checked_headers(headers) if headers else EMPTY_HEADERS, n),
            content_types=Same((self._serializer or self.serializer).content_type, n),
            producers=Same(self._producer, n),
            sequences=range(first, first + n),
            timestamps=Same(time.time_ns() // 1000, n),
        )

    def _stamp(self, batch: Batch) -> Batch:
        """Give a batch this channel's identity, and the time, if it has none."""
        n = len(batch)
        if _empty(batch.producers):
            with self._guard:
                first = self._sequence
                self._sequence += n
            batch.producers = Same(self._producer, n)
            batch.sequences = range(first, first + n)
        if _empty(batch.timestamps):
            batch.timestamps = Same(time.time_ns() // 1000, n)
        return batch

    def _send_in_parts(self, batch: Batch, deadline: float | None) -> Receipt:
        if not len(batch):
            self._check_open()
            return Receipt(Entry(batch, 0, Totals()), lambda _entry, _timeout: True)
        limit = max(1, self._options["window"] // 2)
        if len(batch) <= limit and batch.nbytes <= self._options["window_bytes"]:
            return self._receipt(self.submit(batch, _left(deadline)))
        # One receipt for all: the parts share the marks of an entry that covers the whole batch.
        from simlink.channels.parts import PartedEntry

        self._check_sizes(batch)
        whole = PartedEntry(batch)
        try:
            for part in whole.parts(limit, self._options["window_bytes"] // 2):
                whole.add(self.submit(part, _left(deadline)))
        except SendTimeout as error:
            whole.give_up(error)
            error.receipt = self._receipt(whole)
            raise
        return self._receipt(whole)

    def submit(self, batch: Batch, timeout: float | None, totals: Totals | None = None, *, wait: bool = False) -> Entry:
        """For those who make batches themselves (a run): hand over a stamped batch and return as soon as the window
        has taken it. Waits up to ``timeout`` seconds for a peer and for room. ``wait``: as `Sender.submit`.

        Raises:
            SendError: a body is larger than ``max_message_bytes``. EncodeError: a header that the envelope cannot take.
            Otherwise as `send`.
        """
        self._check_open()
        self._check_sizes(batch)
        if self._bare:
            self._warn_of_losses(batch)
        if self._envelope is not None:
            batch = self._envelope.wrap(batch)
        return (self._sender or self.sender).submit(batch, timeout, totals, wait=wait)

    def _check_sizes(self, batch: Batch) -> None:
        limit = self._body_limit
        if limit is not None and batch.nbytes > limit:
            for row, body in enumerate(batch.bodies):
                if len(body) > limit:
                    raise SendError(
                        f"{self.url}: message {row} of the batch has {len(body)} bytes, the limit is {limit}",
                        url=self.url,
                    )
        key_limit = self.capabilities.max_key_bytes
        if key_limit is not None and any(k is not None and len(k) > key_limit for k in batch.keys):
            raise SendError(f"{self.url}: a key has more than {key_limit} bytes", url=self.url)

    def _warn_of_losses(self, batch: Batch) -> None:
        """Say once what this transport leaves out of messages."""
        lost = [
            what
            for what, carried, column in (
                ("keys", self.capabilities.keys, batch.keys),
                ("headers", self.capabilities.headers, batch.headers),
            )
            if not carried and any([column.value] if isinstance(column, Same) else column)
        ]
        if lost:
            self._bare = False
            log.warning("%s: this transport carries no %s: they are left out", self.url, " and no ".join(lost))

    @property
    def sender(self) -> Sender:
        """The sending end, made at first use."""
        with self._guard:
            self._check_open()
            if self._sender is None:
                window = Window(
                    max_messages=self._options["window"],
                    max_bytes=self._options["window_bytes"],
                    retains=self.capabilities.brokerless,
                )
                self._sender = Sender(self._driver.sender(), window, url=self.url)
            return self._sender

    def _receipt(self, entry: Entry) -> Receipt:
        sender = self._sender
        assert sender is not None
        return Receipt(entry, sender.wait)

    def _resolve(self, receipt: Receipt, deadline: float | None, timeout: float | None) -> None:
        receipt.wait(_left(deadline))
        if receipt.pending:
            obstacle = self.sender.driver.obstacle()
            if isinstance(obstacle, NoEndpoints):
                obstacle.receipt = receipt
                raise obstacle
            raise SendTimeout(
                f"{self.url}: {receipt.pending} of {len(receipt)} messages not confirmed within {timeout:g} s",
                url=self.url,
                receipt=receipt,
                retryable=True,
            )
        if receipt.failed or receipt.unknown:
            raise _failure(receipt, self.url)


def _batch_of(rows: list[Any]) -> Batch:
    for at, row in enumerate(rows):
        if not isinstance(row, Message):
            raise ConfigError(f"the first value is a Message, so all of them must be: value {at} is {row!r:.80}")
        _checked_message(row)
    return Batch.of(rows)


def _read(values: Iterable[Any]) -> list[Any]:
    """All of them."""
    from simlink.generators.generator import Generator

    if isinstance(values, Generator) and values.length is None:
        raise ConfigError(f"send_many sends all there is, and {values.name} has no end: give it take(n), or use run()")
    if isinstance(values, str | bytes | bytearray | Mapping):
        raise ConfigError(f"send_many takes many values: send one {type(values).__name__} with send()")
    if not isinstance(values, Iterable):
        raise ConfigError(f"send_many takes many values, not {values!r:.80}")
    return list(values)


def _checked_message(message: Message) -> Message:
    """A Message of the user's own. A column that no driver can write must not come as far as a driver."""
    if message.headers:
        _checked_headers(message.headers)
    # Written out: many Messages may be forwarded, and a loop over the columns takes twice as long.
    sound = (
        isinstance(message.body, bytes)
        and (message.key is None or isinstance(message.key, bytes))
        and (message.content_type is None or isinstance(message.content_type, str))
        and (message.producer is None or isinstance(message.producer, bytes))
        and (message.sequence is None or isinstance(message.sequence, int))
        and (message.timestamp is None or isinstance(message.timestamp, int))
    )
    if not sound:
        wrong = next(name for name, kinds in _COLUMNS.items() if not isinstance(getattr(message, name), kinds))
        kind = type(getattr(message, wrong)).__name__
        hint = "; a serializer's dumps() makes them" if wrong == "body" else ""
        raise ConfigError(f"a Message's {wrong} is {_COLUMNS[wrong][0].__name__}, not {kind}{hint}")
    if message.producer is not None and len(message.producer) != 16:
        raise ConfigError(f"a Message's producer has 16 bytes, not {len(message.producer)}")
    if message.sequence is not None and message.sequence < 0:
        raise ConfigError(f"a Message's sequence counts from 0, and is not {message.sequence}")
    return message


_COLUMNS: Mapping[str, tuple[type, ...]] = {
    "body": (bytes,),
    "key": (bytes, NoneType),
    "content_type": (str, NoneType),
    "producer": (bytes, NoneType),
    "sequence": (int, NoneType),
    "timestamp": (int, NoneType),
}


def _empty(column: Sequence[Any]) -> bool:
    """Whether no row of a column has a value."""
    if isinstance(column, Same):
        return column.value is None
    return isinstance(column, list | tuple) and all(value is None for value in column)


def _checked_headers(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    if not headers:
        return EMPTY_HEADERS
    if not isinstance(headers, Mapping):
        raise ConfigError(f"headers are a mapping, text → text, not {headers!r:.80}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"headers are text → text, not {name!r}: {value!r}")
        if name.startswith("simlink-"):
            raise ConfigError(f"the header {name!r} is simlink's own")
        if not (name.isascii() and value.isascii()):
            _check_utf8(name, value)
    _check_lines([headers])
    return dict(headers)


def _check_lines(rows: Iterable[Mapping[str, str]]) -> None:
    for headers in rows:
        if headers and has_line_break("".join(chain(headers, headers.values()))):
            name, value = next((n, v) for n, v in headers.items() if has_line_break(n) or has_line_break(v))
            raise ConfigError(f"headers have no CR, LF or NUL, as {name!r:.80}: {value!r:.80} has")


def _check_utf8(name: str, value: str) -> None:
    try:
        _ = (name.encode(), value.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(f"headers are text that UTF-8 can hold, not {name!r}: {value!r}") from error


def _failure(receipt: Receipt, url: str) -> SendError:
    why = f": {receipt.error}" if receipt.error is not None else ""
    count = receipt.failed + receipt.unknown
    if receipt.unknown:
        problem: SendError = SendTimeout(
            f"{url}: {receipt.unknown} of {len(receipt)} messages may or may not be there{why}",
            url=url,
            receipt=receipt,
            retryable=True,
        )
    elif len(receipt) == 1:
        problem = SendError(f"{url}: refused{why}", url=url)
    else:
        from simlink.errors import BatchError

        rows = receipt.failed_rows()
        cause = receipt.error or SendError("refused", url=url)
        problem = BatchError(
            f"{url}: {count} of {len(receipt)} messages were refused{why}", failed=dict.fromkeys(rows, cause), url=url
        )
    problem.__cause__ = receipt.error
    return problem


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())

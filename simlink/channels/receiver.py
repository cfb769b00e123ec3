"""The portable receiving end: what the application holds, and what it said of it.

Messages come from the driver in batches and are decoded a batch at a time in the application's own thread; one
Delivery a message is only made when the application reads one by one. Verdicts are marks in the `Hand` of a batch;
they reach the driver in runs. A thread (``simlink-recv-NAME``) sends verdicts and tends the driver while the
application is busy with what it holds.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Incoming, Kept, Lease, ReceiverDriver, Settlement
from simlink.errors import (
    ChannelClosed,
    ConfigError,
    ConnectError,
    ConnectTimeout,
    DecodeError,
    ForkError,
    ReceiveTimeout,
    StateError,
    TransportError,
)
from simlink.message import Batch, Delivery, Hand, Same, Verdict

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from simlink.channels.channel import Channel
    from simlink.channels.dedup import Deduplicator
    from simlink.serializers.serializer import Serializer

__all__ = ["Receiver"]

log = logging.getLogger("simlink")

_SLICE = 0.5
_TICK = 0.1
_FLUSH_AFTER = 0.02
_FIRST_CHUNK = 256
_MAX_CHUNK = 4_096
_SLOW, _QUICK = 0.05, 0.01
_NACK_FIRST, _NACK_MAX = 0.1, 30.0
_PATIENCE = 30.0


class _Held(Hand):
    """A hand with the driver's tokens for it."""

    __slots__ = ("adopted", "handed_at", "lease", "sent", "taken_back", "tokens")

    def __init__(self, incoming: Incoming, receiver: Receiver) -> None:
        super().__init__(incoming.batch, incoming.attempts, receiver._on_settle)  # type: ignore[arg-type]
        self.tokens = incoming.tokens
        self.lease = incoming.lease
        self.sent: bytearray | None = None
        self.adopted: dict[int, tuple[Lease, int]] | None = None
        self.handed_at = time.monotonic()
        self.taken_back = False

    def valid(self, row: int) -> bool:
        if self.taken_back:
            return False
        if self.lease.valid:
            return True
        return self.adopted is not None and row in self.adopted and self.adopted[row][0].valid


class Receiver:
    """One receiving end of a channel, made by `Channel.receiver`. It belongs to one thread.

    Asking for the next message (`get`, iteration, `batches`, `take`) acknowledges the previous one *before* it waits,
    unless ``settle="manual"``. Leaving the ``with`` block by an exception hands back what is in hand; leaving it
    cleanly acknowledges it.
    """

    def __init__(
        self,
        channel: Channel,
        driver: ReceiverDriver,
        serializer: Serializer,
        *,
        subscription: str | None,
        manual: bool,
        prefetch: int,
        idle: float | None,
        settle_timeout: float | None,
    ) -> None:
        self.channel = channel
        self.subscription = subscription
        self.closed = False
        self._driver = driver
        self._serializer = serializer
        self._manual = manual
        self._prefetch = prefetch
        self._idle = idle
        self._settle_timeout = settle_timeout
        self._pid = os.getpid()
        self._owner: int | None = None
        self._opened = False
        self._stopping = False
        self._io = threading.Lock()
        self._marks = threading.RLock()
        self._stop = threading.Event()
        self._tender: threading.Thread | None = None
        self._failure: Exception | None = None
        self._down_since = math.inf
        # The hand that is being given out row by row, and the row that the application holds now (-1: none yet).
        self._hand: _Held | None = None
        self._row = -1
        self._flushed_row = 0
        self._whole = False
        self._queue: deque[_Held] = deque()
        self._open_hands: dict[int, _Held] = {}
        self._dirty: dict[int, _Held] = {}
        self._last_flush = 0.0
        self._chunk = _FIRST_CHUNK
        self._dedup: Deduplicator | None = None
        caps = channel.capabilities
        self._dedups = caps.identity and not caps.brokerless and caps.kept is not Kept.IN_PROCESS
        self._counts = dict.fromkeys(
            ("received", "redelivered", "duplicates", "acked", "nacked", "rejected", "undecodable", "stale"), 0
        )

    # --- opening and closing ------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The channel's URL with the address that was really bound (brokerless, port 0)."""
        address = self._driver.address
        if address is None:
            return self.channel.url
        scheme, _, rest = self.channel.url.partition("://")
        return f"{scheme}://{address}/{rest.partition('/')[2]}"

    def open(self, timeout: float | None = 30.0) -> None:
        """Subscribe, at most ``timeout`` seconds; done by entering the ``with`` block or by the first call.

        Raises:
            ConnectError: refused, or the address is in use. ConnectTimeout: no answer in time.
        """
        self._check()
        if self._opened:
            return
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        pause = 0.05
        while True:
            try:
                self._driver.open(min(max(deadline - time.monotonic(), 0.001), 3600.0))
                break
            except ConnectError as error:
                left = deadline - time.monotonic()
                if not error.retryable:
                    raise
                if left <= pause or self._stop.wait(pause):
                    raise ConnectTimeout(
                        f"no answer in time: {error}", url=self.channel.url, endpoint=error.endpoint, retryable=True
                    ) from error
                pause = min(pause * 2, 1.0)
        self._opened = True
        self._tender = threading.Thread(target=self._tend, name=f"simlink-recv-{self.channel.url}", daemon=True)
        self._tender.start()

    def stop(self) -> None:
        """Make iteration, and a waiting `get`, end soon. May be called from any thread and from a signal handler."""
        self._stopping = True
        self._driver.wake()

    def close(self, timeout: float = 30.0) -> None:
        """Send the verdicts, give back what is unsettled, leave. Idempotent; from any thread.

        What the application holds right now is acknowledged (unless ``settle="manual"``), or handed back when this is
        called while an exception is being handled.
        """
        self._finish(sys.exception(), timeout)

    def _finish(self, error: BaseException | None, timeout: float) -> None:
        with self._marks:
            if self.closed:
                return
            self.closed = True
            self._stopping = True
        if self._pid != os.getpid():
            return
        self._driver.wake()
        self._stop.set()
        if self._tender is not None and self._tender is not threading.current_thread():
            self._tender.join(timeout)
        with self._io:
            try:
                if self._opened:
                    with self._marks:
                        self._last_verdict(error)
                        self._flush()
            finally:
                self._driver.close(timeout)

    def _last_verdict(self, error: BaseException | None) -> None:
        hand, row = self._hand, self._row
        if hand is None or self._manual:
            return
        if error is None:
            self._settle_current()
            return
        # What was in hand is given back by the driver as it closes, in order and ahead of anything new.
        first = max(row, 0)
        self._settle_seen(hand, first)
        if isinstance(error, DecodeError):
            # A body that cannot be read will not be readable next time; the others were not at fault.
            for r, value in enumerate(hand.batch.outcomes[first:], first):
                if value is error and not hand.marks[r]:
                    self._mark(hand, r, Verdict.REJECT)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(error, 30.0)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise ForkError(f"{self.channel.url} was opened in another process; open a new channel after the fork")
        if self.closed:
            raise ChannelClosed(f"the receiver of {self.channel.url} is closed")
        if self._failure is not None:
            raise self._failure

    def _enter_call(self) -> None:
        self._check()
        me = threading.get_ident()
        if self._owner is None:
            self._owner = me
        elif self._owner != me:
            raise StateError(f"the receiver of {self.channel.url} belongs to the thread that first used it")
        if not self._opened:
            self.open()

    # --- reading ------------------------------------------------------------------------------------------------

    def get(self, timeout: float | None = 5.0) -> Delivery:
        """The next message. Acknowledges the previous one first.

        Raises:
            ReceiveTimeout: nothing came within ``timeout`` seconds (None waits for ever).
        """
        self._enter_call()
        self._settle_current()
        if not self._next_row(timeout):
            if self._stopping:
                raise ChannelClosed(f"the receiver of {self.channel.url} was stopped")
            raise ReceiveTimeout(
                f"nothing came to {self.url} within {timeout:g} s", url=self.channel.url, retryable=True
            )
        assert self._hand is not None
        return Delivery(self._hand, self._row, self._hand.batch.outcomes[self._row])

    def take(self, n: int, timeout: float | None = 30.0) -> list[Any]:
        """``n`` decoded values, settled; or an error and all of them handed back at once.

        Raises:
            ConfigError: ``n`` is above the receiver's hard bound (65,536, or ``prefetch`` where that is larger).
            ReceiveTimeout: fewer came in time. DecodeError: one of them cannot be read (that one is rejected).
        """
        self._enter_call()
        hard = max(self._prefetch, 65_536)
        if n > hard:
            raise ConfigError(f"take({n}) is above the receiver's bound of {hard}; read in parts or raise prefetch=")
        self._settle_current()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        taken: list[tuple[_Held, int, int]] = []
        values: list[Any] = []
        self._driver.reserve(max(n, self._prefetch))
        try:
            while len(values) < n:
                if self._hand is None and not self._next_hand(deadline, limit=n - len(values)):
                    raise ReceiveTimeout(
                        f"{len(values)} of {n} messages came to {self.url} within {timeout:g} s; they were handed back",
                        url=self.channel.url,
                        retryable=True,
                    )
                hand = self._hand
                assert hand is not None
                first = self._row + 1
                stop = min(len(hand.batch), first + n - len(values))
                taken.append((hand, first, stop))
                outcomes = hand.batch.outcomes[first:stop]
                values += outcomes
                self._row = stop - 1
                if stop == len(hand.batch):
                    self._hand = None
                for value in outcomes:
                    if type(value) is DecodeError:
                        raise value
        except BaseException as error:
            self._hand_back(taken, error)
            raise
        finally:
            self._driver.reserve(self._prefetch)
        with self._marks:
            for hand, first, stop in taken:
                self._mark_run(hand, first, stop, Verdict.ACK)
            if self._hand is not None:
                self._flushed_row = self._row + 1
            self._flush()
        return values

    def _hand_back(self, taken: Sequence[tuple[_Held, int, int]], error: BaseException) -> None:
        with self._marks:
            for hand, first, stop in taken:
                values = hand.batch._values or ()
                for attempt, run in groupby(range(first, stop), key=lambda r, h=hand: (h.attempts[r], h.marks[r])):  # type: ignore[misc]
                    rows = list(run)
                    if not attempt[1]:
                        self._nack_run(hand, rows[0], rows[-1] + 1, [r for r in rows if values and values[r] is error])
            if self._hand is not None:
                self._flushed_row = self._row + 1
            self._flush()

    def _nack_run(self, hand: _Held, first: int, stop: int, poison: Sequence[int]) -> None:
        """Hand rows back at once; the poisonous ones among them are rejected."""
        start = first
        for row in [*poison, stop]:
            if row > start:
                hand.marks[start:row] = bytes([Verdict.NACK]) * (row - start)
                hand.open -= row - start
                self._count(Verdict.NACK, row - start)
                for r in range(start, row):
                    self._unmark_identity(hand, r)
                self._send_rows(hand, start, row, Verdict.NACK, 0.0)
            if row < stop:
                self._mark(hand, row, Verdict.REJECT)
            start = row + 1
        if not hand.open and id(hand) not in self._dirty:
            self._open_hands.pop(id(hand), None)

    def __iter__(self) -> Iterator[Delivery]:
        """Deliveries until the receiver is closed or stopped, or ``idle`` quiet seconds have passed."""
        while True:
            self._enter_call()
            self._settle_current()
            if self._hand is None or self._row + 1 >= len(self._hand.batch):
                if not self._next_row(None, iterating=True):
                    return
            else:
                self._row += 1
            hand = self._hand
            if hand is None:
                return
            values = hand.batch.outcomes
            manual, last = self._manual, len(values) - 1
            row = self._row
            # One hand, row by row; everything that may change under us is looked at again after each yield.
            while True:
                yield Delivery(hand, row, values[row])
                if self._hand is not hand or self._row != row or self.closed or row == last:
                    break
                row += 1
                self._row = row
                if not manual and not row & 15 and time.monotonic() - self._last_flush > _FLUSH_AFTER:
                    with self._marks:
                        self._settle_seen(hand, row)
                        self._flush()
            if self.closed:
                return

    def batches(self) -> Iterator[Batch]:
        """Batches, each settled as a whole when the next is asked for; ends as iteration does.

        The fast path: nothing is made per message. With ``settle="manual"`` read ``batch`` rows by iterating the
        receiver instead; here each batch must be settled by its ``ack()``.
        """
        while True:
            self._enter_call()
            self._settle_current()
            self._drop_finished()
            if self._hand is None and not self._next_hand(math.inf, limit=_MAX_CHUNK, iterating=True):
                return
            hand = self._hand
            assert hand is not None
            first = self._row + 1
            batch = hand.batch if first == 0 else hand.batch[first:]
            batch._settle = lambda verdict, h=hand, f=first: self._settle_rows(h, f, len(h.batch), verdict)
            self._row = first
            self._whole = True
            if self._manual:
                self._row = len(hand.batch) - 1
                self._hand = None
                self._whole = False
            yield batch
            if self.closed:
                return

    # --- the inside ---------------------------------------------------------------------------------------------

    def _settle_rows(self, hand: _Held, first: int, stop: int, verdict: Verdict) -> bool:
        with self._marks:
            done = [hand.settle(row, verdict) for row in range(first, stop)]
        return all(done)

    def _settle_current(self) -> None:
        """Acknowledge what the application was given last, if it said nothing else of it."""
        hand = self._hand
        if hand is None or self._manual:
            return
        stop = len(hand.batch) if self._whole else self._row + 1
        with self._marks:
            self._settle_seen(hand, stop)
            if self._whole:
                self._row = len(hand.batch) - 1
                self._whole = False
            self._drop_finished()
            if time.monotonic() - self._last_flush > _FLUSH_AFTER or self._hand is None:
                self._flush()

    def _settle_seen(self, hand: _Held, stop: int) -> None:
        if stop > self._flushed_row:
            self._mark_run(hand, self._flushed_row, stop, Verdict.ACK)
            self._flushed_row = stop

    def _drop_finished(self) -> None:
        if self._hand is not None and self._row + 1 >= len(self._hand.batch):
            self._adapt(self._hand)
            self._hand = None

    def _adapt(self, hand: _Held) -> None:
        """Fetch fewer at a time when the application is slow, so that competing receivers share fairly."""
        took = time.monotonic() - hand.handed_at
        if took > _SLOW:
            self._chunk = max(1, self._chunk // 2)
        elif took < _QUICK:
            self._chunk = min(_MAX_CHUNK, self._chunk * 2)

    def _next_row(self, timeout: float | None, *, iterating: bool = False) -> bool:
        self._drop_finished()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        # With a settle timeout every message has its own time, so each is fetched for itself.
        limit = self._chunk if self._settle_timeout is None else 1
        if self._hand is None and not self._next_hand(deadline, limit=limit, iterating=iterating):
            return False
        self._row += 1
        return True

    def _next_hand(self, deadline: float, *, limit: int, iterating: bool = False) -> bool:
        """Wait for a hand until ``deadline``; False on timeout, when stopped, or idle."""
        with self._marks:
            self._flush()
        quiet_since = time.monotonic()
        while not self._queue:
            if self._stopping or self.closed:
                return False
            now = time.monotonic()
            if iterating and self._idle is not None:
                if not self._driver.assigned:
                    quiet_since = now
                if now - quiet_since >= self._idle:
                    return False
                wait = min(quiet_since + self._idle - now, _SLICE)
            else:
                wait = _SLICE
            self._fetch(limit, max(0.0, min(wait, deadline - now)))
            if not self._queue and time.monotonic() >= deadline:
                return False
        self._hand = self._queue.popleft()
        self._hand.handed_at = time.monotonic()
        self._row = -1
        self._flushed_row = 0
        self._whole = False
        return True

    def _fetch(self, limit: int, timeout: float) -> None:
        with self._io:
            if self.closed:
                return
            try:
                incoming = self._driver.receive(limit, timeout)
            except TransportError as error:
                if not error.retryable:
                    self._failure = error
                    raise
                self._rejoin(error, timeout)
                return
            self._down_since = math.inf
        for part in incoming:
            self._accept(part)

    def _rejoin(self, error: TransportError, timeout: float) -> None:
        """The connection broke: try again, for ``_PATIENCE`` seconds in all before the application hears of it."""
        now = time.monotonic()
        self._down_since = min(self._down_since, now)
        log.warning("%s: %s; joining again", self.channel.url, error)
        try:
            self._driver.open(max(timeout, 0.1))
        except ConnectError as again:
            if not again.retryable or time.monotonic() - self._down_since > _PATIENCE:
                raise
            self._stop.wait(min(timeout, _TICK))

    def _accept(self, incoming: Incoming) -> None:
        batch = incoming.batch
        if not len(batch):
            return
        fresh = isinstance(incoming.attempts, Same) and incoming.attempts.value == 1
        again = 0 if fresh else sum(1 for a in incoming.attempts if a > 1)
        self._counts["received"] += len(batch)
        self._counts["redelivered"] += again
        drop: list[int] = []
        if again:
            drop += self._adopt(incoming)
        if self._dedups:
            drop += self._duplicates(incoming, set(drop))
        if drop:
            gone = set(drop)
            keep = [row for row in range(len(batch)) if row not in gone]
            if not keep:
                return
            incoming = Incoming(
                batch.take(keep),
                [incoming.tokens[row] for row in keep],
                [incoming.attempts[row] for row in keep],
                incoming.lease,
            )
        incoming.batch._decode = self._decode
        hand = _Held(incoming, self)
        with self._marks:
            self._open_hands[id(hand)] = hand
        self._queue.append(hand)

    def _decode(self, bodies: Sequence[bytes]) -> list[Any]:
        values = self._serializer.loads_many(bodies)
        bad = sum(1 for value in values if type(value) is DecodeError)
        if bad:
            self._counts["undecodable"] += bad
        return values

    def _adopt(self, incoming: Incoming) -> list[int]:
        """Rows that the application still holds under a lost lease: their new tokens are taken over instead of
        delivering them twice."""
        with self._marks:
            lost = [h for h in self._open_hands.values() if not h.lease.valid and h.open and not h.taken_back]
            if not lost:
                return []
            mine: dict[tuple[bytes, int], tuple[_Held, int]] = {}
            for hand in lost:
                for row, (producer, sequence) in enumerate(
                    zip(hand.batch.producers, hand.batch.sequences, strict=True)
                ):
                    if producer is not None and sequence is not None and not hand.marks[row]:
                        mine[producer, int(sequence)] = (hand, row)
            rows: list[int] = []
            for row, (producer, sequence) in enumerate(
                zip(incoming.batch.producers, incoming.batch.sequences, strict=True)
            ):
                found = mine.get((producer, int(sequence))) if producer is not None and sequence is not None else None
                if found is not None:
                    hand, held_row = found
                    if hand.adopted is None:
                        hand.adopted = {}
                    hand.adopted[held_row] = (incoming.lease, incoming.tokens[row])
                    rows.append(row)
            return rows

    def _duplicates(self, incoming: Incoming, adopted: set[int]) -> list[int]:
        """Second copies at another place in the broker's log; they are acknowledged at once."""
        if self._dedup is None:
            from simlink.channels.dedup import Deduplicator

            self._dedup = Deduplicator()
        batch = incoming.batch
        rows: list[int] = []
        for producer, run in _by_producer(batch):
            sequences = batch.sequences if run is None else [batch.sequences[r] for r in run]
            found = self._dedup.check(producer, sequences)
            if found is not None:
                for at, duplicate in enumerate(found):
                    row = at if run is None else run[at]
                    # The same identity at the same position of the log is a redelivery, not a duplicate.
                    if duplicate and incoming.attempts[row] == 1 and row not in adopted:
                        rows.append(row)
            self._dedup.mark(producer, sequences)
        if rows:
            self._counts["duplicates"] += len(rows)
            self._driver.settle(
                [Settlement(incoming.lease, Verdict.ACK, incoming.tokens[r], incoming.tokens[r]) for r in rows]
            )
        return rows

    # --- verdicts -----------------------------------------------------------------------------------------------

    def _on_settle(self, hand: _Held, row: int, verdict: Verdict) -> bool:
        """A delivery's own ack, nack or reject, from any thread."""
        with self._marks:
            if hand.marks[row]:
                return hand.marks[row] == verdict
            if self.closed or not hand.valid(row):
                self._counts["stale"] += 1
                return False
            self._mark(hand, row, verdict)
            if verdict is not Verdict.ACK or not hand.open or time.monotonic() - self._last_flush > _FLUSH_AFTER:
                self._flush()
            return True

    def _mark(self, hand: _Held, row: int, verdict: Verdict) -> None:
        hand.marks[row] = verdict
        hand.open -= 1
        self._count(verdict, 1)
        if verdict is Verdict.NACK:
            # Sent at once: its back-off is its own, and it says that the hold is over.
            wait = min(_NACK_FIRST * 2 ** min(hand.attempts[row] - 1, 20), _NACK_MAX)
            self._unmark_identity(hand, row)
            self._send_rows(hand, row, row + 1, verdict, wait)
        else:
            self._dirty[id(hand)] = hand
        if not hand.open and id(hand) not in self._dirty:
            self._open_hands.pop(id(hand), None)

    def _unmark_identity(self, hand: _Held, row: int) -> None:
        if self._dedup is not None:
            producer, sequence = hand.batch.producers[row], hand.batch.sequences[row]
            if producer is not None and sequence is not None:
                self._dedup.unmark(producer, [int(sequence)])

    def _mark_run(self, hand: _Held, first: int, stop: int, verdict: Verdict) -> None:
        if hand.taken_back:
            return
        untouched = hand.marks.count(0, first, stop)
        if untouched == stop - first:
            hand.marks[first:stop] = bytes([verdict]) * (stop - first)
        else:
            for row in range(first, stop):
                if not hand.marks[row]:
                    hand.marks[row] = verdict
        hand.open -= untouched
        self._count(verdict, untouched)
        self._dirty[id(hand)] = hand

    def _count(self, verdict: Verdict, n: int) -> None:
        self._counts["acked" if verdict is Verdict.ACK else "nacked" if verdict is Verdict.NACK else "rejected"] += n

    def _flush(self) -> None:
        """Give the driver every verdict that it has not got yet. Called with ``_marks`` held."""
        self._last_flush = time.monotonic()
        if not self._dirty:
            return
        for hand in self._dirty.values():
            n = len(hand.batch)
            if hand.sent is None and hand.adopted is None and hand.marks.count(Verdict.ACK) == n:
                self._send_rows(hand, 0, n, Verdict.ACK, 0.0)
            else:
                if hand.sent is None:
                    hand.sent = bytearray(n)
                row = 0
                sent = hand.sent
                for (mark, was), run in groupby(zip(hand.marks, sent, strict=True)):
                    length = sum(1 for _ in run)
                    if mark and not was:
                        self._send_rows(hand, row, row + length, Verdict(mark), 0.0)
                    row += length
            if not hand.open:
                self._open_hands.pop(id(hand), None)
        self._dirty.clear()

    def _send_rows(self, hand: _Held, first: int, stop: int, verdict: Verdict, delay: float) -> None:
        if hand.sent is None and (first, stop) != (0, len(hand.batch)):
            hand.sent = bytearray(len(hand.batch))
        if hand.sent is not None:
            hand.sent[first:stop] = b"\x01" * (stop - first)
        if hand.adopted:
            self._driver.settle(
                [
                    Settlement(lease, verdict, token, token, delay)
                    for row in range(first, stop)
                    for lease, token in (hand.adopted.get(row, (hand.lease, hand.tokens[row])),)
                ]
            )
            return
        self._driver.settle([Settlement(hand.lease, verdict, hand.tokens[first], hand.tokens[stop - 1], delay)])

    # --- the thread ---------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        while not self._stop.wait(_TICK):
            try:
                with self._marks:
                    if self._settle_timeout is not None:
                        self._take_back(time.monotonic() - self._settle_timeout)
                    self._flush()
                if self._io.acquire(blocking=False):
                    try:
                        if not self.closed:
                            self._driver.tend()
                    finally:
                        self._io.release()
            except TransportError as error:
                # The application meets it at its next call; here it would be lost.
                if not error.retryable:
                    self._failure = error
                log.warning("%s: %s", self.channel.url, error)
            except Exception as error:
                log.exception("%s: tending the receiver failed", self.channel.url)
                self._failure = error

    def _take_back(self, before: float) -> None:
        waiting = {id(hand) for hand in self._queue}
        for hand in list(self._open_hands.values()):
            if hand.handed_at < before and hand.open and id(hand) not in waiting:
                if hand is self._hand and not self._manual:
                    self._settle_seen(hand, max(self._row, 0))
                for row in range(len(hand.batch)):
                    if not hand.marks[row]:
                        self._nack_run(hand, row, row + 1, ())
                hand.taken_back = True
                self._open_hands.pop(id(hand), None)

    # --- to look at ---------------------------------------------------------------------------------------------

    @property
    def native(self) -> Any:
        """The client library's own receiving object; None where there is none."""
        return self._driver.native

    def stats(self) -> dict[str, Any]:
        """Counts, what is in hand, and the driver's own figures."""
        with self._marks:
            in_hand = sum(h.open for h in self._open_hands.values())
        return {**self._counts, "in_hand": in_hand, "driver": dict(self._driver.stats())}

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self._opened else "unopened"
        name = f" subscription {self.subscription!r}" if self.subscription else ""
        return f"<receiver of {self.url}{name} {state}, {self._counts['received']} received>"


def _by_producer(batch: Batch) -> Iterator[tuple[bytes, list[int] | None]]:
    """The identified rows by producer; None stands for all rows, in the common case of one producer."""
    producers = batch.producers
    if isinstance(producers, Same):
        if producers.value is not None:
            yield producers.value, None
        return
    runs: dict[bytes, list[int]] = {}
    for row, producer in enumerate(producers):
        if producer is not None and batch.sequences[row] is not None:
            runs.setdefault(producer, []).append(row)
    for producer, rows in runs.items():
        yield producer, None if len(rows) == len(batch) else rows

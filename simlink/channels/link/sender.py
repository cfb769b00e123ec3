"""The sending end of a link: which positions are queued, sent, accepted and settled. No I/O, no clock.

The layer above numbers what it submits from 0 without a gap; the link numbers the same messages per incarnation of the
receiver. The two differ by a constant, ``base``, because nothing is ever left out: what an end gives up is voided.
Everything in here is in the layer's numbers; they are translated where a frame is written or read.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice, repeat
from operator import add
from typing import cast

import numpy as np

from simlink.channels.driver import Mode, Outcome, OutcomeKind
from simlink.channels.link.runs import Runs
from simlink.channels.wire.codec import HEAD, MAX_FRAME_BYTES, encode, encode_payload
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    FrameError,
    Heartbeat,
    Hello,
    Moved,
    Returned,
    Run,
    Settle,
    Subscribed,
    Void,
    Welcome,
)
from simlink.errors import SendError
from simlink.message import Batch, Same

__all__ = ["SenderLink"]

FRAME_MESSAGES = 4096
"""Longer batches are cut, and shorter ones joined, so that accepting stays fine-grained and decoding cheap."""
FRAME_BYTES = 512 * 1024


class SenderLink:
    """What one sender knows of one receiver.

    Args:
        sender: 16 bytes that name this end; the same through all its connections.
        destination, mode, subscription: what the receiver is asked for.
        heartbeat_ms: how often the receiver shall be heard at least.
        max_frame_bytes: the longest frame, ours and, once it has said so, the receiver's.
        frame_messages, frame_bytes: how much one frame joins, or is cut to.
        headed: whether `produce` puts a head before each frame; without, what carries them tells where they end.
        option: what the user calls the bound of a frame.
    """

    def __init__(
        self,
        sender: bytes,
        destination: str,
        mode: Mode,
        *,
        subscription: str = "",
        heartbeat_ms: int = 1000,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        frame_messages: int = FRAME_MESSAGES,
        frame_bytes: int = FRAME_BYTES,
        headed: bool = True,
        option: str = "max_frame_bytes",
    ) -> None:
        self._encode = encode if headed else encode_payload
        self._head = HEAD.size if headed else 0
        self._option = option
        self.sender = sender
        self.destination = destination
        self.mode = mode
        self.subscription = subscription
        self.heartbeat_ms = heartbeat_ms
        self.max_frame_bytes = max_frame_bytes
        self.frame_messages = self._frame_limit = frame_messages
        self.frame_bytes = frame_bytes
        self.incarnation = b""
        self.peer_heartbeat_ms = heartbeat_ms
        self.peer_max_frame_bytes = max_frame_bytes
        self.connected = False
        self.next = 0
        """The next position that `submit` takes."""
        self.sent = 0
        self.accepted = 0
        self.resolved = Runs()
        """Settled, rejected, returned and failed ones."""
        self.waiting: deque[tuple[int, int, Batch | None]] = deque()
        """What is not sent yet: (first, stop, the messages, or None where they are voided)."""
        self.queued = 0
        self.queued_bytes = 0
        self._base = 0
        self._failed: deque[Run] = deque()  # those at or above `accepted`: an accept does not confirm them
        self._credit = 0
        self._credit_bytes = 0  # that may still be sent
        self._bytes_sent = 0
        self._lows = _Lows()
        self.subscriptions: tuple[str, ...] = ()
        """What is subscribed to at the receiver, as it said last; private ones as empty text."""
        self.addressable = False
        """The receiver heeds what a batch is for."""
        self._for: deque[tuple[int, tuple[str, ...]]] = deque()  # from which position on it is for which subscriptions
        self.lease_ms = 0
        """After so much silence what the receiver holds may be withdrawn; 0 for never."""
        self._moved: list[Run] = []  # that were withdrawn from this incarnation, which may not know
        self.telling: list[Run] | None = None  # those of them that it holds, and must be told of before anything else

    # --- connecting ---------------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """The first frame on a new connection."""
        self.connected = False
        return Hello(
            sender=self.sender,
            destination=self.destination,
            mode=self.mode,
            subscription=self.subscription,
            incarnation=self.incarnation,
            low=self.low,
            next=self.next - self._base,
            heartbeat_ms=self.heartbeat_ms,
            max_frame_bytes=self.max_frame_bytes,
            lease_ms=self.lease_ms,
        )

    def welcome(self, frame: Welcome) -> list[Outcome]:
        """Take up what the receiver knows. What it does not have is RETURNED, in order, and so is what was queued.

        Raises:
            FrameError: it claims what was never sent.
        """
        out: list[Outcome] = []
        if self.incarnation and frame.incarnation == self.incarnation:
            self._accept(frame.accepted, out, resumed=True)
            self._resolve(frame.rejected, OutcomeKind.REJECTED, out)
            self._resolve(frame.returned, OutcomeKind.RETURNED, out)
            self._resolve(frame.returned_handed, OutcomeKind.RETURNED, out, ambiguous=True)
            self._resolve([(self.low, frame.settled), *frame.settled_runs], OutcomeKind.SETTLED, out)
            self._give_up(self.accepted, out, ambiguous=False)
            if self.accepted < self.next:
                self.waiting.append((self.accepted, self.next, None))
            self.sent = self.accepted
            # What the queue voids is voided for good; were the connection lost again, it is told again.
            self._failed = deque([(self.accepted, self.next)] if self.accepted < self.next else [])
            self._tell_moved(frame.settled + self._base)
        else:
            self._moved = []
            self.telling = None
            self._give_up(self.resolved.mark, out, ambiguous=True)
            self.incarnation = frame.incarnation
            self._base = self.sent = self.accepted = self.next
            self.resolved.forget_below(self.next)
            self._failed.clear()
        self.subscriptions = tuple(frame.subscriptions)
        self.addressable = frame.addressable
        self._credit = self._base + frame.credit
        self._bytes_sent = 0
        self._credit_bytes = frame.credit_bytes
        self.peer_heartbeat_ms = frame.heartbeat_ms
        self.peer_max_frame_bytes = min(frame.max_frame_bytes or MAX_FRAME_BYTES, self.max_frame_bytes)
        self.connected = True
        return out

    def withdraw(self) -> list[Outcome]:
        """Take back everything unresolved, for it goes elsewhere. The connection must be given up first; when the same
        incarnation is met again it is told, before anything else, what of that it has accepted meanwhile."""
        assert not self.connected
        self._moved += self.resolved.missing(self._base, self.sent)
        out: list[Outcome] = []
        self._give_up(self.resolved.mark, out, ambiguous=True)
        return out

    def _tell_moved(self, settled: int) -> None:
        """It hands out nothing of what it holds before it was told, even if there is nothing to tell."""
        self._moved = [run for run in self._moved if run[1] > settled]
        if not self.lease_ms and not self._moved:
            return
        self.telling = [
            (first - self._base, min(stop, self.accepted) - self._base)
            for first, stop in self._moved
            if first < self.accepted
        ]

    def lost(self) -> None:
        """The connection is gone: what became of the rest is told by the next `welcome`."""
        self.connected = False

    def closing(self) -> list[Outcome]:
        """The receiver said, as its last word, that it closes: what it did not accept is surely not there."""
        out: list[Outcome] = []
        self._give_up(self.accepted, out, ambiguous=False)
        self.connected = False
        return out

    def _give_up(self, position: int, out: list[Outcome], *, ambiguous: bool) -> None:
        """RETURNED for everything unresolved from a position on, and an empty queue."""
        for first, stop in self.resolved.missing(position, self.next):
            # What was never put on the wire cannot be there.
            if first < self.sent:
                out.append(Outcome(OutcomeKind.RETURNED, first, min(stop, self.sent), ambiguous=ambiguous))
            if stop > self.sent:
                out.append(Outcome(OutcomeKind.RETURNED, max(first, self.sent), stop))
            self._lows.returned(first, stop)
        self.resolved.add(position, self.next)
        for _, _, batch in self.waiting:
            if batch is not None:
                self._lows.unsent(batch)
        self.waiting.clear()
        self.queued = self.queued_bytes = 0

    # --- sending ------------------------------------------------------------------------------------------------

    @property
    def low(self) -> int:
        """The lowest link position not known to be settled."""
        return self.resolved.mark - self._base

    def address(self, subscriptions: tuple[str, ...]) -> None:
        """What is submitted from now on is for these only, private ones as empty text; none: for every one."""
        if subscriptions != (self._for[-1][1] if self._for else ()):
            self._for.append((self.next, subscriptions))

    def _address(self, position: int) -> tuple[tuple[str, ...], int]:
        """What the message at a position is for, and how many messages from there on are. Positions ascend."""
        marks = self._for
        while len(marks) > 1 and marks[1][0] <= position:
            marks.popleft()
        if marks[0][0] > position:
            return (), marks[0][0] - position
        return marks[0][1], marks[1][0] - position if len(marks) > 1 else self.next - position

    def submit(self, batch: Batch, position: int) -> None:
        """Queue messages. Their positions follow those before."""
        if position != self.next:
            raise ValueError(f"position {position} submitted, and {self.next} is the next one")
        count = len(batch.bodies)
        self.waiting.append((position, position + count, batch))
        self.next = position + count
        self.queued += count
        self.queued_bytes += batch.nbytes

    def sendable(self) -> bool:
        """Whether `produce` would give something."""
        if self.telling is not None and self.connected:
            return True
        if not self.connected or not self.waiting:
            return False
        return self.waiting[0][2] is None or (self.sent < self._credit and self._bytes_sent < self._credit_bytes)

    def produce(self, out: list[Outcome]) -> bytes | None:
        """The next frame as bytes, as far as the credit goes; FAILED outcomes are put into ``out``."""
        while self.sendable():
            if self.telling is not None:
                telling, self.telling = self.telling, None
                return self._encode(Moved(telling))
            first, stop, batch = self.waiting[0]
            if batch is None:
                self.waiting.popleft()
                self.sent = stop
                return self._encode(Void(first - self._base, stop - self._base))
            names, alike = self._address(first) if self._for else ((), self.next - first)
            batch = self._next_batch(alike)
            stop = first + len(batch.bodies)
            base, mark = self._base, self.resolved.mark
            frame = BatchFrame(first - base, batch, mark - base, self._lows.of(batch, first, mark), names)
            error: Exception | None = None
            try:
                data = self._encode(frame)
            except ValueError as cause:
                error = SendError(f"a message cannot be framed: {cause}")
                error.__cause__ = cause
            else:
                if len(data) - self._head + 1 > self.peer_max_frame_bytes:
                    error = SendError(
                        f"a message of {batch.nbytes} bytes does not fit into a frame of {self.peer_max_frame_bytes}"
                        f" bytes, which is the receiver's limit ({self._option})"
                    )
            if error is None:
                self.sent = stop
                self._bytes_sent += batch.nbytes
                return data
            # One message of them may be to blame: halve until it stands alone.
            middle = first + len(batch) // 2
            if len(batch) > 1:
                self._put_back(middle, batch[middle - first :])
                self._put_back(first, batch[: middle - first])
                self._frame_limit = max(len(batch) // 2, 1)
                continue
            out.append(Outcome(OutcomeKind.FAILED, first, stop, error=error))
            self.resolved.add(first, stop)
            self._failed.append((first, stop))
            self.waiting.appendleft((first, stop, None))
        return None

    def _next_batch(self, alike: int) -> Batch:
        """Take from the queue what fits into one frame and the credit: a part of a batch, or several joined; at most
        ``alike`` messages, for the next ones are for others."""
        # The limit is lowered for one frame while a message that cannot be framed is being looked for.
        messages = min(self._frame_limit, self._credit - self.sent, alike)
        self._frame_limit = self.frame_messages
        first, stop, head = self.waiting[0]
        room = min(self.frame_bytes, self.peer_max_frame_bytes * 3 // 4, self._credit_bytes - self._bytes_sent)
        if len(self.waiting) == 1 and stop - first <= messages and self.queued_bytes <= room and head is not None:
            # It is all there is. One message that somebody waits for takes this way: the less to do the better.
            self.waiting.clear()
            self.queued = self.queued_bytes = 0
            return head
        parts: list[Batch] = []
        while self.waiting and messages > 0 and room > 0:
            first, _, batch = self.waiting[0]
            if batch is None:
                break
            take = min(len(batch), messages)
            if take < len(batch) or batch.nbytes > room:
                take = _fitting(batch, take, room)
            if take < len(batch) and parts:
                break  # joining is for small ones; a cut would copy for nothing
            self.waiting.popleft()
            part = batch
            if take < len(batch):
                part = batch[:take]
                self.waiting.appendleft((first + take, first + len(batch), batch[take:]))
            parts.append(part)
            messages -= take
            room -= part.nbytes
            self.queued -= take
            self.queued_bytes -= part.nbytes
        return parts[0] if len(parts) == 1 else _join(parts)

    def _put_back(self, first: int, batch: Batch) -> None:
        self.waiting.appendleft((first, first + len(batch), batch))
        self.queued += len(batch)
        self.queued_bytes += batch.nbytes

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self.low)

    # --- hearing ------------------------------------------------------------------------------------------------

    def receive(self, frame: Accept | Settle | Returned | Subscribed) -> list[Outcome]:
        """What a frame of the receiver says of our positions, or of what is subscribed to.

        Raises:
            FrameError: it speaks of what was never sent.
        """
        out: list[Outcome] = []
        if isinstance(frame, Accept):
            self._accept(frame.below, out)
            self._grant(frame.credit, frame.credit_bytes)
        elif isinstance(frame, Settle):
            # Rejections are told before, or together with, the mark that passes them.
            if frame.rejected:
                self._resolve(frame.rejected, OutcomeKind.REJECTED, out)
            self._resolve([(self.low, frame.below), *frame.settled], OutcomeKind.SETTLED, out)
            self._grant(frame.credit, frame.credit_bytes)
        elif isinstance(frame, Subscribed):
            self.subscriptions = tuple(frame.subscriptions)
        else:
            self._resolve(frame.fresh, OutcomeKind.RETURNED, out)
            self._resolve(frame.handed, OutcomeKind.RETURNED, out, ambiguous=True)
        return out

    def _grant(self, credit: int, credit_bytes: int) -> None:
        credit += self._base
        self._credit = max(self._credit, credit)
        self._credit_bytes = max(self._credit_bytes, credit_bytes)

    def _accept(self, below: int, out: list[Outcome], *, resumed: bool = False) -> None:
        stop = below + self._base
        if stop > (self.next if resumed else self.sent):
            raise FrameError(f"the receiver accepts position {below - 1}, which was never sent")
        first = self.accepted
        if stop <= first:
            return
        self.accepted = stop
        while self._failed and self._failed[0][0] < stop:
            a, b = self._failed.popleft()
            if a > first:
                out.append(Outcome(OutcomeKind.CONFIRMED, first, a))
            first = max(first, min(b, stop))
            if b > stop:
                self._failed.appendleft((stop, b))
        if first < stop:
            out.append(Outcome(OutcomeKind.CONFIRMED, first, stop))

    def _resolve(self, runs: Iterable[Run], kind: OutcomeKind, out: list[Outcome], *, ambiguous: bool = False) -> None:
        for first, stop in runs:
            if stop + self._base > self.accepted:
                raise FrameError(f"the receiver settles position {stop - 1}, which it did not accept")
            for a, b in self.resolved.add(first + self._base, stop + self._base):
                out.append(Outcome(kind, a, b, ambiguous=ambiguous))
                if kind is OutcomeKind.RETURNED:
                    self._lows.returned(a, b)


class _Lows:
    """Per producer, the lowest sequence that may still be sent again: of what is on the link and unsettled, and of
    what was returned and not submitted again yet."""

    def __init__(self) -> None:
        self._open: dict[bytes, list[tuple[int, int, int, int]]] = {}  # a heap of (lowest, highest, first, stop)
        self._returned: dict[bytes, Run] = {}  # lowest and highest

    def of(self, batch: Batch, position: int, settled: int) -> dict[bytes, int]:
        """Note a batch that is about to be sent; the lows of its producers."""
        out: dict[bytes, int] = {}
        stop = position + len(batch.bodies)
        for producer, lowest, highest in _spans(batch):
            heap = self._open.get(producer)
            if heap is None:
                heap = self._open[producer] = []
            heapq.heappush(heap, (lowest, highest, position, stop))
            while heap[0][3] <= settled:
                heapq.heappop(heap)
            low = heap[0][0]
            back = self._returned.get(producer)
            if back is not None:
                # What was returned is submitted again before anything newer of its producer.
                if lowest > back[1]:
                    del self._returned[producer]
                else:
                    low = min(low, back[0])
            out[producer] = low
        # Producers come and go; one with nothing open costs nothing for long.
        if len(self._open) > 64:
            self._open = {p: h for p, h in self._open.items() if any(e[3] > settled for e in h)}
        return out

    def returned(self, first: int, stop: int) -> None:
        for producer, heap in self._open.items():
            for lowest, highest, a, b in heap:
                if a < stop and first < b:
                    self._note(producer, lowest, highest)

    def unsent(self, batch: Batch) -> None:
        for producer, lowest, highest in _spans(batch):
            self._note(producer, lowest, highest)

    def _note(self, producer: bytes, lowest: int, highest: int) -> None:
        back = self._returned.get(producer, (lowest, highest))
        self._returned[producer] = (min(back[0], lowest), max(back[1], highest))


def _spans(batch: Batch) -> Iterable[tuple[bytes, int, int]]:
    """``(producer, lowest sequence, highest)`` of a batch."""
    producers, sequences = batch.producers, batch.sequences
    if isinstance(producers, Same):
        if producers.value is None:
            return ()
        if isinstance(sequences, range):
            if not sequences:
                return ()
            a, b = sequences[0], sequences[-1]
            return ((producers.value, a, b) if a <= b else (producers.value, b, a),)
        if isinstance(sequences, np.ndarray):
            return ((producers.value, int(sequences.min()), int(sequences.max())),) if len(sequences) else ()
    spans: dict[bytes, Run] = {}
    for producer, sequence in zip(producers, sequences, strict=True):
        if producer is not None and sequence is not None:
            span = spans.get(producer, (sequence, sequence))
            spans[producer] = (min(span[0], sequence), max(span[1], sequence))
    return [(producer, int(lowest), int(highest)) for producer, (lowest, highest) in spans.items()]


def _fitting(batch: Batch, most: int, room: int) -> int:
    """How many of the first ``most`` messages fit into ``room`` bytes; at least one, whatever its size."""
    # Without a step of the interpreter for each: that took half a microsecond a message of every batch that is cut.
    sizes: Iterable[int] = map(len, islice(batch.bodies, most))
    keys = batch.keys
    if not isinstance(keys, Same):
        sizes = map(add, sizes, [0 if key is None else len(key) for key in islice(keys, most)])
    elif keys.value:
        sizes = map(add, sizes, repeat(len(keys.value)))
    return max(bisect_right(list(accumulate(sizes)), room), 1)


def _join(parts: Sequence[Batch]) -> Batch:
    """`Batch.concat` that keeps sequences a range where they follow one another."""
    joined = Batch.concat(parts)
    at: int | None = None
    start = 0
    for part in parts:
        numbers = part.sequences
        if not isinstance(numbers, range) or numbers.step != 1 or (at is not None and numbers.start != at):
            return joined
        if at is None:
            start = numbers.start
        at = numbers.stop
    joined.sequences = cast("Sequence[int | None]", range(start, at if at is not None else start))
    return joined

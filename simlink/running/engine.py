"""One run: takes encoded chunks from the feed, hands them to the channel when they are due, keeps the books."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from simlink.channels.window import Entry, Totals
from simlink.errors import SendTimeout
from simlink.generators.arrivals.schedule import Arrivals
from simlink.ledger.latency import Latencies
from simlink.message import Batch, Key, Same
from simlink.running.feed import Chunk, Encoder, Feed
from simlink.running.pacing import LAG_BOUND, Due, Pacer, Seconds, held
from simlink.running.progress import Meter, Progress, Show
from simlink.running.report import Report
from simlink.running.ring import Ring
from simlink.running.signals import Interrupted

if TYPE_CHECKING:
    from simlink.channels.channel import Channel
    from simlink.channels.sender import Sender
    from simlink.generators.source import Source

__all__ = ["Engine"]

_BATCH_ROWS = 2_048
_BATCH_BYTES = 1024 * 1024
_TICK = 0.000_5
"""Seconds from one release to the next at least: what falls due in between goes out together."""
_SLICE = 0.2
_TELL = 0.1
_SCAN = 512
_SCAN_ALL = 0.05
_GRACE = 1.0
"""Seconds beyond its duration that a run which is behind still sends what was due within it."""


class _Stop(BaseException):
    """Leaves a source, or a connection attempt, that may block for ever, when the run is told to stop."""


class Engine:
    """Runs once, in one thread; `stop` and `report` are for any thread.

    Args:
        asked_rate: for the report.
        since: the instant of the schedule's second 0, in seconds since 1970; the start of the run where it is None.
        close: the channel is the run's own: close it at the end.
        show: told of progress.
    """

    def __init__(
        self,
        source: Source,
        channel: Channel,
        *,
        count: int | None,
        duration: float | None,
        arrivals: Due | None,
        asked_rate: float | None,
        since: float | None = None,
        key: str | Callable[[Any], Key | None] | None,
        headers: Mapping[str, str],
        on_overload: str,
        timeout: float | None,
        close: bool,
        show: Show | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.channel = channel
        self.producer = secrets.token_bytes(16)
        self.totals = Totals()
        self.meter = Meter()
        self.error: BaseException | None = None
        self.ended = False
        self.interrupted = False
        self.before_start: Callable[[], None] = lambda: None
        lengths = [n for n in (count, source.length) if n is not None]
        self.total = min(lengths) if lengths else None
        self._duration = duration
        self._pacer = None if arrivals is None else Pacer(arrivals, on_overload=on_overload, duration=duration)
        self._drop = on_overload == "drop"
        self._asked_rate = asked_rate
        self._since = since
        self._headers = headers
        self._timeout = timeout
        self._close = close
        self._show = show
        self._clock = clock
        self._arrivals = arrivals
        encoder = Encoder(channel.serializer, key)
        self._stop = threading.Event()
        self._feed: Feed | Ring
        if arrivals is None:
            self._feed = Feed(source, encoder, stop=count, reading=self._mark_reading)
        else:
            rate, self._load = _pace_of(arrivals, self.total)
            reading = self._mark_reading
            self._feed = Ring(source, encoder, stop=count, rows=self._load, rate=rate, reading=reading, clock=clock)
        self._blocking = False
        self._started: float | None = None
        self._first_due: float | None = None
        self._last_sent = self._finished = 0.0
        self._sender: Sender  # once connected; the channel looks at itself whenever it is asked for it
        self._rows = self._most = _BATCH_ROWS
        self._lag, self._latency = Latencies(1), Latencies(2)
        # How many rows were late beyond the bound by the run's own fault.
        self.own_late = 0
        self._out: deque[tuple[Entry, Seconds | float]] = deque()
        self._resolved = -1
        self._scanned = 0.0
        self._told = 0.0
        self._behind = 0
        self._stalled = 0.0

    # --- from outside --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Make no more records; may be called from any thread and from a signal handler."""
        self.interrupted = True
        self._stop.set()

    def on_signal(self) -> None:
        """As `stop`, in the thread that runs: also leaves a source that blocks."""
        self.stop()
        if self._blocking:
            raise _Stop

    def discard(self) -> None:
        """Let go of it without a run."""
        if self._close:
            self.channel.close(timeout=0.0)

    def _mark_reading(self, reading: bool) -> None:
        self._blocking = reading
        if reading and self._stop.is_set():
            raise _Stop

    # --- the run -------------------------------------------------------------------------------------------------

    def execute(self, *, drain: Callable[[], bool] = lambda: True) -> None:
        """Send everything, then wait for the receipts. What went wrong is in `error` afterwards.

        Args:
            drain: asked at the end: whether to wait for what is out.
        """
        try:
            try:
                self._feed.begin()
                self._connect()
                self.before_start()
                self._started = self._last_sent = self._clock()
                if isinstance(self._feed, Feed):
                    self._send_unpaced(self._feed)
                elif self._pacer is not None:
                    self._send_paced(self._pacer, self._feed)
            except _Stop:
                pass
            if drain():
                self._drain(self._timeout)
        except BaseException as error:
            self.error = error
            if not isinstance(error, Interrupted):
                self._drain(5.0 if self._timeout is None else min(5.0, self._timeout))
        finally:
            self._finish(drain())

    def _finish(self, drain: bool) -> None:
        self._finished = self._clock()
        try:
            if self._close:
                hurried = self.error is not None or not drain
                self.channel.close(timeout=1.0 if hurried else None)
        except BaseException as error:
            self.error = self.error or error
        finally:
            self._reap(self._clock(), everything=True)
            self.ended = True
            try:
                if self._show is not None and self._started is not None:
                    self._tell(self._clock(), done=True)
            except BaseException as error:
                self.error = self.error or error

    def _connect(self) -> None:
        """Wait for a peer before the schedule starts, so that the wait is nobody's lag."""
        sender = self._sender = self.channel.sender
        self._mark_reading(True)
        try:
            sender.connect(self._timeout)
        finally:
            self._blocking = False
        self._rows = self._most = min(_BATCH_ROWS, sender.window.max_messages)

    def _send_unpaced(self, feed: Feed) -> None:
        assert self._started is not None
        until = float("inf") if self._duration is None else self._started + self._duration
        while not self._stop.is_set() and (chunk := feed.pop()) is not None:
            at = 0
            while at < len(chunk.bodies):
                now = self._clock()
                if self._stop.is_set() or now >= until:
                    return
                count = min(self._rows, len(chunk.bodies) - at)
                self._hand_over(chunk, at, count, now, None)
                at += count

    def _send_paced(self, pacer: Pacer, ring: Ring) -> None:
        start = self._clock()
        epoch = time.time() - start
        pacer.begin(start, 0.0 if self._since is None else time.time() - self._since)
        self._started = start
        end = float("inf") if self._duration is None else start + self._duration
        released = start
        window = self._sender.window
        while not self._stop.is_set():
            ring.prepare()
            if not ring.check():
                # No more records: there is nothing to wait for, whatever the duration.
                return
            asked = min(ring.rows, max(self._load, ring.hurry))
            inside = pacer.load(asked)
            while pacer.left and not self._stop.is_set():
                now = self._clock()
                if now > end + _GRACE:
                    self._behind = pacer.behind(self.total)
                    return
                if now < released + _TICK and pacer.caught_up(released):
                    # From release to release, and not of sleep: that would make whoever is late late again. Even where
                    # a hand-over takes longer than the next row has to wait.
                    self._rest(max(pacer.next_due(), released + _TICK), ring)
                    continue
                if self._drop and not self._room():
                    ring.skip(pacer.release(now, 0)[0])
                    continue
                # What fits goes out, and does not wait for what does not. Read without the sender's lock: a hint.
                room = window.room()
                skipped, count = pacer.release(now, min(self._rows, max(room, 1)))
                if skipped:
                    ring.skip(skipped)
                if count:
                    released = now
                    first = pacer.position - count
                    for chunk in ring.take(count):
                        self._hand_over(chunk, 0, len(chunk), pacer.due_of(first, len(chunk)), epoch)
                        first += len(chunk)
                elif not skipped:
                    self._rest(max(pacer.next_due(), released + _TICK), ring)
            if inside < asked:
                break
        if self._duration is not None and not self._stop.is_set():
            self._rest(end, None)

    def _room(self) -> bool:
        """For "drop": whether the channel takes a message now; waits a moment where it does not."""
        sender = self._sender
        if sender.has_room():
            return True
        before = self._clock()
        sender.pump(0.005)
        now = self._clock()
        if not sender.has_room():
            # A pump that returns at once (the link is down) must not spin.
            time.sleep(max(0.0, 0.001 - (now - before)))
            self._waited(self._clock() - before)
            self._housekeeping(now)
            return False
        return True

    def _hand_over(self, chunk: Chunk, at: int, count: int, due: Seconds | float, epoch: float | None) -> None:
        whole = at == 0 and count == len(chunk.bodies)
        bodies = chunk.bodies if whole else chunk.bodies[at : at + count]
        stamps: Any
        if epoch is None:
            stamps = Same(time.time_ns() // 1000, count)
        elif isinstance(due, float):
            stamps = Same(int((due + epoch) * 1e6), count)
        else:
            stamps = ((due + epoch) * 1e6).astype(np.int64).tolist()
        first = chunk.first + at
        batch = Batch(
            bodies,
            keys=chunk.keys if whole else chunk.keys[at : at + count],
            headers=Same(self._headers, count),
            content_types=Same(self.channel.serializer.content_type, count),
            producers=Same(self.producer, count),
            sequences=range(first, first + count),
            timestamps=stamps,
        )
        entry = self._submit(batch)
        now = self._clock()
        if self._first_due is None:
            self._first_due = due if isinstance(due, float) else float(due[0])
        self._last_sent = now
        self._adapt(batch.nbytes, count)
        if self._pacer is not None:
            self._book_lag(self._pacer, now, due, count)
        self._out.append((entry, due))
        self._housekeeping(now)

    def _submit(self, batch: Batch) -> Entry:
        """In slices, so that a stop is heard while the window is full."""
        before = self._clock()
        deadline = float("inf") if self._timeout is None else before + self._timeout
        # Read without the sender's lock: it only decides to whom the wait is booked.
        full = self._sender.window.room() < len(batch.bodies)
        try:
            while True:
                left = deadline - self._clock()
                try:
                    return self.channel.submit(batch, max(0.0, min(_SLICE, left)), self.totals)
                except SendTimeout:
                    if self._stop.is_set():
                        raise _Stop from None
                    if left <= _SLICE:
                        raise
                    self._housekeeping(self._clock())
        finally:
            if full:
                self._waited(self._clock() - before)

    def _waited(self, seconds: float) -> None:
        if self._pacer is None:
            self._stalled += seconds
        else:
            self._pacer.waited(seconds)

    def _adapt(self, nbytes: int, count: int) -> None:
        """Keep a batch below a mebibyte, so that one batch is never most of the window."""
        fits = max(1, _BATCH_BYTES * count // max(nbytes, 1))
        self._rows = min(fits, self._most)

    def _rest(self, until: float, ring: Ring | None) -> None:
        """Wait, and use the time: make what is sent later, read confirmations, tell of progress."""
        fresh = True
        if ring is not None:
            ring.relax()
        while not self._stop.is_set():
            left = until - self._clock()
            if left <= 0:
                return
            if ring is not None and ring.worth(left, fresh=fresh):
                ring.step()
                fresh = False
                if self._out:
                    self._sender.pump(0.0)
                self._housekeeping(self._clock())
                continue
            if self._out:
                # Clients wait in whole milliseconds; the last two are slept exactly.
                self._sender.pump(0.0 if left < 0.003 else min(left - 0.002, 0.02))
            self._housekeeping(self._clock())
            left = until - self._clock()
            if left > 0:
                if left < 0.005:
                    time.sleep(left)
                else:
                    self._stop.wait(min(left - 0.001, 0.02 if self._out else 0.25))

    # --- the books ------------------------------------------------------------------------------------------------

    def _book_lag(self, pacer: Pacer, now: float, due: Seconds | float, count: int) -> None:
        """How late rows went out; ``due`` is a number where all were due at once."""
        lag = now - due
        if isinstance(lag, float):
            self._lag.add_same(lag, count)
            if lag > LAG_BOUND and pacer.own(np.array([lag]))[0] > LAG_BOUND:
                self.own_late += count
            return
        self._lag.add(lag)
        if lag[0] > LAG_BOUND:  # the most late of them, for due times ascend
            self.own_late += int(np.count_nonzero(pacer.own(lag) > LAG_BOUND))

    def _housekeeping(self, now: float) -> None:
        self._reap(now)
        if self._show is not None and now - self._told >= _TELL:
            self._tell(now)
        elif now - self._told >= _TELL:
            self._told = now
            self.meter.add(now, self.totals.sent)

    def _reap(self, now: float, *, everything: bool = False) -> None:
        """Book the latency of what has been confirmed since the last look."""
        totals = self.totals
        resolved = totals.confirmed + totals.failed + totals.unknown
        if resolved == self._resolved and not everything:
            return
        out = self._out
        while out and not out[0][0].pending:
            self._book(*out.popleft(), now)
        if len(out) > 1 and (everything or len(out) <= _SCAN or now - self._scanned > _SCAN_ALL):
            # Confirmations overtake one another where a channel has several partitions or endpoints.
            self._scanned = now
            still: deque[tuple[Entry, Seconds | float]] = deque()
            for entry, due in out:
                if entry.pending:
                    still.append((entry, due))
                else:
                    self._book(entry, due, now)
            self._out = still
            self._resolved = resolved
        elif len(out) <= 1:
            self._resolved = resolved

    def _book(self, entry: Entry, due: Seconds | float, now: float) -> None:
        # Another thread may have heard of it while the source, or the channel, made this one wait.
        now = min(now, entry.at)
        gone = entry.counts[2] + entry.counts[3]
        if not gone:
            if isinstance(due, float):
                self._latency.add_same(now - due, len(entry.batch.bodies))
            else:
                self._latency.add(now - due)

    def _drain(self, timeout: float | None) -> None:
        deadline = float("inf") if timeout is None else self._clock() + timeout
        while self._out:
            left = deadline - self._clock()
            entry = self._out[0][0]
            done = self._sender.wait(entry, max(0.0, min(_SLICE, left)))
            self._housekeeping(self._clock())
            if not done and (left <= _SLICE or self._sender.failure is not None):
                return

    def _tell(self, now: float, *, done: bool = False) -> None:
        assert self._show is not None
        self._told = now
        try:
            self._show(self.progress(now, done=done))
        except BaseException:
            # That ends the run; whoever cannot be told is told no more.
            self._show = None
            raise

    def progress(self, now: float | None = None, *, done: bool = False, peek: bool = False) -> Progress:
        """How far it is; to ``peek`` leaves no point in the history of the rate."""
        if now is None:
            now = self._finished if self.ended else self._clock()
        totals = self.totals
        started = now if self._started is None else self._started
        return Progress(
            source=self.source.name,
            url=self.channel.url,
            sent=totals.sent,
            confirmed=totals.confirmed,
            failed=totals.failed,
            unknown=totals.unknown,
            dropped=self._pacer.dropped if self._pacer else 0,
            total=self.total,
            seconds=now - started,
            limit=self._duration,
            rate=self.meter.rate if peek else self.meter.add(now, totals.sent),
            report=self.report,
            done=done,
        )

    def latencies(self) -> tuple[Latencies, Latencies]:
        """Send lag and confirm latency."""
        return self._lag, self._latency

    def span(self) -> tuple[float, float] | None:
        """When the first message was due, and when the last one had gone out; None before that."""
        return None if self._first_due is None else (self._first_due, self._last_sent)

    def report(self) -> Report:
        """What it did so far."""
        totals, pacer = self.totals, self._pacer
        now = self._finished if self.ended else self._clock()
        seconds = now - self._started if self._started is not None else 0.0
        pending = totals.sent - totals.confirmed - totals.failed - totals.unknown
        span = 0.0 if self._first_due is None else self._last_sent - self._first_due
        if pacer is not None and totals.sent > 1 and span > 0:
            rate = (totals.sent - 1) / span
        else:
            rate = totals.sent / seconds if seconds > 0 else 0.0
        brokerless = self.channel.capabilities.brokerless
        arrivals = self._arrivals
        return Report(
            source=self.source.name,
            url=self.channel.url,
            producer=self.producer.hex(),
            seed=self.source.seed,
            sent=totals.sent,
            confirmed=totals.confirmed,
            failed=totals.failed,
            # At the end, what nobody said anything of may be there or not.
            unknown=totals.unknown + (pending if self.ended else 0),
            settled=totals.settled,
            rejected=totals.rejected,
            unsettled=totals.confirmed - totals.settled - totals.rejected if brokerless else 0,
            resent=totals.resent,
            dropped=pacer.dropped if pacer else 0,
            behind=self._behind,
            backfilled=pacer.backfilled if pacer else 0,
            seconds=round(seconds, 6),
            rate=round(rate, 3),
            asked_rate=self._asked_rate,
            bytes=totals.bytes,
            valid=held(self.own_late, self._lag.count),
            send_lag_ms=self._lag.as_ms(),
            latency_ms=self._latency.as_ms(),
            stall_seconds=round(pacer.stalled if pacer else self._stalled, 6),
            bad_lines=int(getattr(self.source, "bad_count", 0)),
            negative_gaps=arrivals.stepped_back(pacer.position) if pacer and isinstance(arrivals, Arrivals) else 0,
            interrupted=self.interrupted,
            running=not self.ended,
            error=None if self.error is None else str(self.error) or type(self.error).__name__,
            endpoints=self.channel.endpoint_counts(),
        )


def _pace_of(arrivals: Due, total: int | None) -> tuple[float, int]:
    """Rows a second at the start (0 where there is no telling), and how many of them to look up at a time: about 20 ms
    worth, 64 … 4,096."""
    due = arrivals.due(0, 1024 if total is None else min(1024, total))
    span = float(due[-1]) if len(due) else 0.0
    if span <= 0:
        return 0.0, 4096
    rate = len(due) / span
    return rate, int(min(4096.0, max(64.0, 0.02 * rate)))

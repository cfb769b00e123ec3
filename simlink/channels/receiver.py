"""The portable receiving end: what the application holds, and what it said of it.

Messages come from the driver in batches and are decoded a batch at a time in the application's own thread; one
Delivery a message is only made when the application reads one by one. Its verdicts go
through `Hands`. A thread (``simlink-recv-NAME``) sends verdicts and tends the driver while the
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
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Kept, ReceiverDriver
from simlink.channels.hands import FLUSH_AFTER, Held
from simlink.channels.intake import Intake
from simlink.errors import (
    ChannelClosed,
    ConfigError,
    ConnectError,
    ConnectTimeout,
    DecodeError,
    ForkError,
    ReceiveError,
    ReceiveTimeout,
    StateError,
    TransportError,
)
from simlink.message import Batch, Decoded, Delivery, Verdict, delivery

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from simlink.channels.channel import Channel
    from simlink.channels.cloudevents import CloudEvents
    from simlink.channels.deadletters import DeadLetters
    from simlink.serializers.serializer import Serializer

__all__ = ["Receiver"]

log = logging.getLogger("simlink")

_SLICE = 0.5
_TICK = 0.1
_FIRST_CHUNK = 256
_MAX_CHUNK = 4_096
_SLOW, _QUICK = 0.05, 0.01
_PATIENCE = 30.0
_FOREVER = 1e6
"""Seconds: eleven days. Libraries that count milliseconds in 32 bits can still wait that long."""
_REOPEN = 2.0
"""Seconds that joining again may take at least: a handshake must not fail because somebody asks every 0.1 s."""


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
        dead: DeadLetters | None = None,
        envelope: CloudEvents | None = None,
    ) -> None:
        self.channel = channel
        self.subscription = subscription
        self.serializer = serializer
        self.closed = False
        self._driver = driver
        self.manual = manual
        self._prefetch = prefetch
        self.idle = idle
        self._settle_timeout = settle_timeout
        self._pid = os.getpid()
        self._owner: int | None = None
        self._opened = False
        self._stopping = False
        self._io = threading.Lock()
        self._stop = threading.Event()
        self._tender: threading.Thread | None = None
        self._failure: Exception | None = None
        self._down = False
        self._down_since = math.inf
        # The hand that is being given out row by row, and the row that the application holds now (-1: none yet).
        self._hand: Held | None = None
        self._walked: Held | None = None
        """The hand that is being iterated: what lies before its row was asked to pass, and so is acknowledged."""
        self._row = -1
        self._flushed_row = 0
        self._whole = False
        self._queue: deque[Held] = deque()
        self._chunk = _FIRST_CHUNK
        caps = channel.capabilities
        brokered = caps.identity and not caps.brokerless and caps.kept is not Kept.IN_PROCESS
        self._dead = dead
        self._intake = Intake(driver.settle, serializer, deduplicates=brokered, dead=dead, envelope=envelope)
        self._hands = self._intake.hands

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
                self._open_driver(min(max(deadline - time.monotonic(), 0.001), 3600.0))
                break
            except ConnectError as error:
                left = deadline - time.monotonic()
                if not error.retryable:
                    raise
                if left <= pause or self._stop.wait(pause):
                    raise ConnectTimeout(
                        f"no connection in time: {error}", url=self.channel.url, endpoint=error.endpoint, retryable=True
                    ) from error
                pause = min(pause * 2, 1.0)
        self._opened = True
        if self._dead is not None:
            self._dead.came_to(self.url)
        self._tender = threading.Thread(target=self._tend, name=f"simlink-recv-{self.channel.url}", daemon=True)
        self._tender.start()

    def _open_driver(self, timeout: float) -> None:
        try:
            self._driver.open(timeout)
        except TransportError:
            raise
        except OSError as error:
            # A driver need not translate what the operating system says; it does where trying again may help.
            raise ConnectError(f"{self.channel.url}: {error}", url=self.channel.url) from error

    def stop(self) -> None:
        """Make iteration, and a waiting `get`, end soon. May be called from any thread and from a signal handler."""
        self._stopping = True
        self._driver.wake()

    def close(self, timeout: float | None = 30.0) -> None:
        """Send the verdicts, give back what is unsettled, leave, within ``timeout`` seconds (None waits for ever).
        Idempotent; from any thread.

        What the application holds right now is acknowledged (unless ``settle="manual"``), or handed back when this is
        called while an exception is being handled.
        """
        self._finish(sys.exception(), _FOREVER if timeout is None else timeout)

    def _finish(self, error: BaseException | None, timeout: float) -> None:
        with self._hands.lock:
            if self.closed:
                return
            self.closed = True
            self._stopping = True
        if self._pid != os.getpid():
            return
        self._driver.wake()
        self._stop.set()
        self._hands.busy.set()
        if self._tender is not None and self._tender is not threading.current_thread():
            self._tender.join(timeout)
        with self._io:
            try:
                if self._opened:
                    with self._hands.lock:
                        self._last_verdict(error)
                        self._hands.flush()
                        self._hands.closed = True
            finally:
                self._hand = None
                if self._dead is not None:
                    started = time.monotonic()
                    self._dead.close(timeout / 2)
                    timeout = max(0.0, timeout - (time.monotonic() - started))
                self._driver.close(timeout)

    def _last_verdict(self, error: BaseException | None) -> None:
        hand, row = self._hand, self._row
        if hand is None or self.manual:
            return
        if error is None:
            self.acknowledge()
            return
        # What was in hand is given back by the driver as it closes, in order and ahead of anything new.
        first = max(row, 0)
        self._settle_seen(hand, first)
        if self._dead is not None and row >= 0 and not self._whole and self._dead.spent(hand.attempts[row]):
            self._hands.nack_run(hand, row, row + 1, 0.0, failed=True)
        if isinstance(error, DecodeError):
            # A body that cannot be read will not be readable next time; the others were not at fault.
            for r, value in enumerate(hand.batch.outcomes[first:], first):
                if value is error:
                    self._hands.mark_run(hand, r, r + 1, Verdict.REJECT)

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
        self.acknowledge()
        if not self._next_row(timeout):
            if self._stopping:
                raise ChannelClosed(f"the receiver of {self.channel.url} was stopped")
            raise ReceiveTimeout(
                f"nothing came to {self.url} within {timeout:g} s", url=self.channel.url, retryable=True
            )
        assert self._hand is not None
        return delivery(self._hand, self._row, self._hand.batch.outcomes[self._row])

    def take(self, n: int, timeout: float | None = 30.0) -> list[Any]:
        """``n`` decoded values, settled; or an error and all of them handed back at once.

        Raises:
            ConfigError: ``n`` is no number from 0 up, or above the receiver's hard bound (65,536, or ``prefetch`` where
                that is larger).
            ReceiveTimeout: fewer came in time. ChannelClosed: `stop` or `close` was called meanwhile.
            DecodeError: one of them cannot be read (that one is rejected).
        """
        self._enter_call()
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ConfigError(f"take() takes a number of messages from 0 up, not {n!r}")
        hard = max(self._prefetch, 65_536)
        if n > hard:
            raise ConfigError(f"take({n}) is above the receiver's bound of {hard}; read in parts or raise prefetch=")
        self.acknowledge()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        taken: list[tuple[Held, int, int]] = []
        values: list[Any] = []
        self._driver.reserve(max(n, self._prefetch))
        try:
            while len(values) < n:
                self._drop_revoked()
                if self._hand is None and not self._next_hand(deadline, limit=n - len(values)):
                    if self._stopping:
                        raise ChannelClosed(
                            f"the receiver of {self.channel.url} was stopped; {len(values)} of {n} messages had come"
                            " and were handed back"
                        )
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
        with self._hands.lock:
            for hand, first, stop in taken:
                self._hands.mark_run(hand, first, stop, Verdict.ACK)
            if self._hand is not None:
                self._flushed_row = self._row + 1
            self._hands.flush()
        return values

    def _hand_back(self, taken: Sequence[tuple[Held, int, int]], error: BaseException) -> None:
        with self._hands.lock:
            for hand, first, stop in taken:
                for row, value in enumerate((hand.batch._values or ())[first:stop], first):
                    if value is error:
                        self._hands.mark_run(hand, row, row + 1, Verdict.REJECT)
                self._hands.nack_run(hand, first, stop, 0.0)
            if self._hand is not None:
                self._flushed_row = self._row + 1
            self._hands.flush()

    def __iter__(self) -> Iterator[Delivery]:
        """Deliveries until the receiver is closed or stopped, or ``idle`` quiet seconds have passed."""
        while True:
            self._enter_call()
            self.acknowledge()
            if self._hand is None or self._row + 1 >= len(self._hand.batch) or not self._hand.lease.valid:
                if not self._next_row(None, iterating=True):
                    return
            else:
                self._row += 1
            hand = self._hand
            if hand is None:
                return
            outcomes, lease = hand.batch.outcomes, hand.lease
            unasked = not self.manual
            self._walked = hand if unasked else None
            # One hand, row by row; what may change under us is looked at again after each yield.
            for row in range(self._row, len(outcomes)):
                self._row = row
                outcome = outcomes[row]
                if type(outcome) is DecodeError:
                    yield Delivery(hand, row)
                else:
                    yield Decoded(hand, row, outcome)
                if self._row != row or self._hand is not hand or not lease.valid:
                    break
                if not row & 15 and unasked and time.monotonic() - self._hands.last_flush > FLUSH_AFTER:
                    with self._hands.lock:
                        self._settle_seen(hand, row)
                        self._hands.flush()
            if self.closed:
                return

    def batches(self) -> Iterator[Batch]:
        """Batches, each settled as a whole when the next is asked for; ends as iteration does.

        The fast path: nothing is made per message. With ``settle="manual"`` read ``batch`` rows by iterating the
        receiver instead; here each batch must be settled by its ``ack()``.
        """
        while True:
            self._enter_call()
            self.acknowledge()
            self._drop_finished()
            self._drop_revoked()
            if self._hand is None and not self._next_hand(math.inf, limit=_MAX_CHUNK, iterating=True):
                return
            hand = self._hand
            assert hand is not None
            first = self._row + 1
            # Never the hand's own batch: that and the hand would refer to each other, and stay, with all their bodies,
            # until the garbage collector comes by. It counts objects, and 4,096 bodies are one.
            batch = hand.batch._view() if first == 0 else hand.batch[first:]
            batch._settle = lambda verdict, h=hand, f=first: self._settle_rows(h, f, len(h.batch), verdict)
            self._row = first
            self._whole = True
            if self.manual:
                self._row = len(hand.batch) - 1
                self._hand = None
                self._whole = False
            yield batch
            if self.closed:
                return

    # --- the inside ---------------------------------------------------------------------------------------------

    def _settle_rows(self, hand: Held, first: int, stop: int, verdict: Verdict) -> bool:
        with self._hands.lock:
            done = [hand.settle(row, verdict) for row in range(first, stop)]
        return all(done)

    def acknowledge(self) -> None:
        """Acknowledge what was given last without asking for more; nothing with ``settle="manual"``."""
        hand = self._hand
        if hand is None or self.manual:
            return
        stop = len(hand.batch) if self._whole else self._row + 1
        with self._hands.lock:
            self._walked = None
            self._settle_seen(hand, stop)
            if self._whole:
                self._row = len(hand.batch) - 1
                self._whole = False
            self._drop_finished()
            if time.monotonic() - self._hands.last_flush > FLUSH_AFTER or self._hand is None:
                self._hands.flush()

    def _settle_seen(self, hand: Held, stop: int) -> None:
        if stop > self._flushed_row:
            if self._dead is not None:
                self._hands.reject_unreadable(hand, self._flushed_row, stop)
            self._hands.mark_run(hand, self._flushed_row, stop, Verdict.ACK)
            self._flushed_row = stop

    def _drop_finished(self) -> None:
        if self._hand is not None and self._row + 1 >= len(self._hand.batch):
            self._adapt(self._hand)
            self._hand = None

    def _adapt(self, hand: Held) -> None:
        """Fetch fewer at a time when the application is slow, so that competing receivers share fairly."""
        took = time.monotonic() - hand.handed_at
        if took > _SLOW:
            self._chunk = max(1, self._chunk // 2)
        elif took < _QUICK:
            self._chunk = min(_MAX_CHUNK, self._chunk * 2)

    def _drop_revoked(self) -> None:
        """What waits here under a lost hold is somebody else's now, and must not be handed out late."""
        if self._hand is not None and not self._hand.lease.valid:
            self._hands.revoke(self._hand, self._row + 1)
            self._hand = None
        if self._queue:
            for held in [held for held in self._queue if not held.lease.valid]:
                self._hands.revoke(held, 0)
                self._queue.remove(held)

    def _next_row(self, timeout: float | None, *, iterating: bool = False) -> bool:
        self._drop_finished()
        self._drop_revoked()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        # With a settle timeout every message has its own time, so each is fetched for itself.
        limit = self._chunk if self._settle_timeout is None else 1
        if self._hand is None and not self._next_hand(deadline, limit=limit, iterating=iterating):
            return False
        self._row += 1
        return True

    def _next_hand(self, deadline: float, *, limit: int, iterating: bool = False) -> bool:
        """Wait for a hand until ``deadline``; False on timeout, when stopped, or idle."""
        with self._hands.lock:
            self._hands.flush()
        quiet_since = time.monotonic()
        looked = False
        self._drop_revoked()
        while not self._queue:
            if self._stopping or self.closed:
                return False
            now = time.monotonic()
            if iterating and self.idle is not None:
                if not self._driver.assigned:
                    quiet_since = now
                if looked and now - quiet_since >= self.idle:
                    return False
                wait = min(max(0.0, quiet_since + self.idle - now), _SLICE)
            else:
                wait = _SLICE
            self._fetch(limit, max(0.0, min(wait, deadline - now)))
            looked = True
            if not self._queue and time.monotonic() >= deadline:
                return False
        with self._hands.lock:  # the tender settles what lies before the row
            self._walked = None
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
            if self._down:
                # A driver that could not be opened again has nothing to receive from.
                self._reopen(timeout)
                return
            try:
                incoming = self._driver.receive(limit, timeout)
            except TransportError as error:
                if not error.retryable:
                    self._failure = error
                    raise
                self._rejoin(error, timeout)
                return
            except OSError as error:
                self._failure = ReceiveError(f"{self.channel.url}: {error}", url=self.channel.url)
                raise self._failure from error
            self._down_since = math.inf
        if incoming:
            # Before what comes again is compared with what is held.
            self._drop_revoked()
        for part in incoming:
            held = self._intake.take(part)
            if held is not None:
                self._queue.append(held)

    def _rejoin(self, error: TransportError, timeout: float) -> None:
        """The connection broke: try again, for ``_PATIENCE`` seconds in all before the application hears of it."""
        self._down = True
        self._down_since = min(self._down_since, time.monotonic())
        log.warning("%s: %s; joining again", self.channel.url, error)
        self._reopen(timeout)

    def _reopen(self, timeout: float) -> None:
        try:
            self._open_driver(max(timeout, _REOPEN))
        except ConnectError as again:
            if not again.retryable or time.monotonic() - self._down_since > _PATIENCE:
                raise
            self._stop.wait(min(timeout, _TICK))
        except ReceiveError:
            # Joined again, but not without a gap: that is told once.
            self._down = False
            raise
        else:
            self._down = False

    # --- the thread ---------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        # A driver with a thread of its own has nothing to do here while nothing is held, and then this thread sleeps.
        alone = type(self._driver).tend is ReceiverDriver.tend
        while not self._stop.is_set():  # asked after `rest`, which may undo what close() set to wake this thread
            if alone:
                self._hands.busy.wait()
            if self._stop.wait(_TICK):
                return
            try:
                with self._hands.lock:
                    if self._walked is not None and self._walked is self._hand:
                        # Iteration marks some at a time; a slow handler must not keep back those before its own.
                        self._settle_seen(self._walked, self._row)
                    if self._settle_timeout is not None:
                        unseen = {id(held) for held in self._queue}
                        self._hands.take_back(time.monotonic() - self._settle_timeout, unseen)
                    self._hands.flush()
                    if alone:
                        self._hands.rest()
                if self._io.acquire(blocking=False):
                    try:
                        if not self.closed and not self._down:
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

    # --- to look at ---------------------------------------------------------------------------------------------

    @property
    def native(self) -> Any:
        """The client library's own receiving object; None where there is none."""
        return self._driver.native

    def stats(self) -> dict[str, Any]:
        """Counts, what is in hand, and the driver's own figures."""
        counts: dict[str, Any] = {**self._intake.counts, **self._hands.counts}
        if self._dead is not None:
            counts["dead_letters"] = self._dead.stats()
        return {**counts, "in_hand": self._hands.in_hand, "driver": dict(self._driver.stats())}

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self._opened else "unopened"
        name = f" subscription {self.subscription!r}" if self.subscription else ""
        return f"<receiver of {self.url}{name} {state}, {self._intake.counts['received']} received>"

"""The portable sending end: opens, reconnects with back-off, keeps the window, sends again what came back.

The caller's thread does the I/O wherever it can. A backstop thread (``simlink-send-NAME``) looks after the link while
no caller is in here: it reads confirmations, keeps heartbeats alive, and sends again what a dead peer gave back. It
exists only while something is in flight or the driver has a link to keep.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simlink.channels.window import Entry, Totals, Window
from simlink.errors import ChannelClosed, ConnectError, ConnectTimeout, SendError, SendTimeout, TransportError

if TYPE_CHECKING:
    from simlink.channels.driver import SenderDriver
    from simlink.message import Batch

__all__ = ["Sender"]

log = logging.getLogger("simlink")

_BUSY_TICK = 0.005
_SLICE = 0.1
_FIRST_BACKOFF = 0.02
_MAX_BACKOFF = 1.0
_OPEN_SLICE = 5.0


class _Entered:
    """The way into a sender. A class of its own because a generator would cost a waiting send a tenth of its time."""

    __slots__ = ("_sender",)

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def __enter__(self) -> None:
        sender = self._sender
        if not sender._lock.acquire(blocking=False):
            sender._waiting += 1
            try:
                sender.driver.wake()
                sender._lock.acquire()
            finally:
                sender._waiting -= 1

    def __exit__(self, *_: object) -> None:
        self._sender._lock.release()


class Sender:
    """One driver end with its window. Thread-safe.

    Args:
        driver: unopened.
        window: its bookkeeping, used under this object's lock only.
        url: for error messages; masked.
        clock: seconds, monotonic.
    """

    def __init__(
        self, driver: SenderDriver, window: Window, *, url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.driver = driver
        self.window = window
        self.url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._door = _Entered(self)
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._dozers = 0
        self._opened = False
        self._broken = False
        self._fatal: Exception | None = None
        self._cause: Exception | None = None
        self._backoff = _FIRST_BACKOFF
        self._retry_at = 0.0
        self._last_pump = -math.inf
        self._closing = False
        self._closed = False
        self._stopped = False
        self._nudge = threading.Event()
        self._dozing = False
        self._backstop: threading.Thread | None = None
        self.reconnects = 0

    # --- sending ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, timeout: float | None, totals: Totals | None = None, *, wait: bool = False) -> Entry:
        """Hand a batch over, waiting up to ``timeout`` seconds for a peer and for room in the window.

        With ``wait`` the first round of waiting for its outcome is done on the way, which spares a second entrance;
        whether that was enough, `wait` tells.

        Raises:
            ConnectTimeout, ConnectError: nobody there. SendTimeout: no room. ChannelClosed.
        """
        deadline = math.inf if timeout is None else self._clock() + timeout
        window = self.window
        with self._door:
            if self._closing or self._fatal is not None:
                self._check()
            if not self._opened:
                self._connect(deadline)
            limit = min(len(batch.bodies), window.max_messages)
            while window.room() < limit:
                self._pump(min(_SLICE, max(0.0, deadline - self._clock())))
                self._check()
                if window.room() < limit and self._clock() >= deadline:
                    raise self._no_room()
            try:
                if window.waiting or self._broken:
                    entry = window.add(batch, totals)
                    self._push()
                else:
                    entry, position = window.launch(batch, totals)
                    try:
                        self.driver.submit(batch, position)
                    except TransportError as error:
                        self._break(error)
            except BaseException:
                # It is in the window all the same, and a pool's balancer may do better next time.
                self._watch_later()
                raise
            # Only with a backstop, which looks after the link should this wait be interrupted.
            waited = wait and self._backstop is not None and entry.pending > 0
            if waited:
                self.driver.in_haste = window.unconfirmed == 1
                try:
                    self._pump(min(_SLICE, max(0.0, deadline - self._clock())))
                finally:
                    self.driver.in_haste = False
            elif window.messages * 2 > window.max_messages or window.nbytes * 2 > window.max_bytes:
                self._pump(0.0)
        if self._dozing or self._backstop is None:
            self._watch()
        if waited:
            self._yield()
        return entry

    def connect(self, timeout: float | None) -> None:
        """Wait for a peer before there is anything to send, so that what is sent then does not wait for one.

        Raises:
            ConnectTimeout, ConnectError: nobody there. ChannelClosed.
        """
        deadline = math.inf if timeout is None else self._clock() + timeout
        with self._entered():
            self._check()
            self._connect(deadline)
        self._watch()

    def entered(self) -> _Entered:
        """A context in which nobody else uses the driver, for what only it knows."""
        return self._door

    def look_after(self) -> None:
        """Something has begun that must go on without a caller."""
        self._watch()

    @property
    def failure(self) -> Exception | None:
        """What ended this end for good; None while it lives."""
        return self._fatal

    def has_room(self) -> bool:
        """Whether a message could be submitted now without waiting; does pending I/O on the way."""
        with self._entered():
            self._check()
            if self._opened and not self.window.room():
                self._pump(0.0)
            return self._opened and not self._broken and self.window.room() > 0

    def pump(self, timeout: float = 0.0) -> None:
        """Do pending I/O and book outcomes, waiting up to ``timeout`` seconds for the first."""
        with self._entered():
            self._pump(timeout)

    def wait(self, entry: Entry, timeout: float | None) -> bool:
        """Wait until no row of an entry is pending; False on timeout."""
        return self._wait_until(lambda: entry.pending == 0, timeout)

    def wait_confirmed(self, timeout: float | None) -> bool:
        """Wait until nothing is pending."""
        return self._wait_until(lambda: self.window.unconfirmed == 0, timeout)

    def wait_resolved(self, timeout: float | None, *, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the window is empty, or ``give_up`` says that it never will be."""
        return self._wait_until(lambda: self.window.messages == 0 or give_up(), timeout) and not self.window.messages

    def _wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        deadline = math.inf if timeout is None else self._clock() + timeout
        while True:
            with self._entered():
                if done():
                    return True
                if self._closed or self._fatal is not None:
                    return False
                left = deadline - self._clock()
                if left <= 0:
                    self._pump(0.0)
                    return done()
                self._pump(min(_SLICE, left))
            self._yield()

    # --- the inside; everything below is called with the lock held, unless it says otherwise ---------------------

    def _entered(self) -> _Entered:
        """Take the lock; a thread that waits inside the driver meanwhile is woken to make room."""
        return self._door

    def _yield(self) -> None:
        """Called without the lock, between two rounds of waiting: locks are not fair, so let others in."""
        if self._waiting:
            time.sleep(0.0002)

    def _check(self) -> None:
        if self._closing:
            raise ChannelClosed(f"{self.url} is closed")
        if self._fatal is not None:
            raise self._fatal

    def _connect(self, deadline: float) -> None:
        """Open at first use, waiting for a peer; later only note that the link is down (the window bounds that)."""
        told: ConnectError | None = None
        while not self._opened:
            left = deadline - self._clock()
            try:
                self._open_driver(min(max(left, 0.001), _OPEN_SLICE))
            except ConnectError as error:
                if not error.retryable:
                    raise
                # That the deadline has cut an attempt short tells nothing; what the one before it came to does.
                if told is None or left >= _OPEN_SLICE or not isinstance(error, ConnectTimeout):
                    told = error
                left = deadline - self._clock()
                if left <= 0:
                    raise self._nobody(told) from told
                pause = self._next_backoff()
                self._doze(min(pause, left))
                if self._closing:
                    raise ChannelClosed(f"{self.url} was closed while it waited for a peer") from error
            else:
                self._opened = True
                self._backoff = _FIRST_BACKOFF

    def _open_driver(self, timeout: float) -> None:
        try:
            self.driver.open(timeout)
        except TransportError:
            raise
        except OSError as error:
            # A driver need not translate what the operating system says; it does where trying again may help.
            raise ConnectError(f"{self.url}: {error}", url=self.url) from error

    def _nobody(self, error: ConnectError) -> TransportError:
        obstacle = self.driver.obstacle()
        if isinstance(obstacle, TransportError):
            return obstacle
        return ConnectTimeout(f"no connection in time: {error}", url=self.url, endpoint=error.endpoint, retryable=True)

    def _next_backoff(self) -> float:
        """Exponential back-off with full jitter over its upper half, so that many senders do not come at once."""
        pause = self._backoff * random.uniform(0.5, 1.0)
        self._backoff = min(self._backoff * 2, _MAX_BACKOFF)
        return pause

    def _no_room(self) -> TransportError:
        obstacle = self.driver.obstacle()
        if isinstance(obstacle, TransportError):
            return obstacle
        held = f"{self.window.messages} messages, {self.window.nbytes} bytes"
        down = f"; the link is down: {self._cause}" if self._broken else ""
        hint = "read concurrently or raise the bound with window= or window_bytes="
        return SendTimeout(f"{self.url}: the window is full ({held}){down}; {hint}", url=self.url, retryable=True)

    def _push(self) -> None:
        """Submit whatever waits, in order."""
        if self._broken or not self._opened or self._fatal is not None:
            return
        try:
            while (flight := self.window.next_flight()) is not None:
                self.driver.submit(*flight)
        except TransportError as error:
            self._break(error)

    def _pump(self, timeout: float) -> None:
        if self._fatal is not None or self._closed:
            return
        if not self._opened:
            self._doze(timeout)
            return
        if self._broken and not self._reopen(timeout):
            return
        window = self.window
        if window.waiting:
            self._push()
            if self._broken:
                return
        try:
            outcomes = self.driver.outcomes(timeout)
        except TransportError as error:
            self._break(error)
            return
        self._last_pump = window.now = self._clock()
        if outcomes:
            window.apply(outcomes)
            if window.waiting:
                self._push()
            if self._dozers:
                self._changed.notify_all()

    def _doze(self, timeout: float) -> None:
        """Let go of the lock until something changes."""
        self._dozers += 1
        try:
            self._changed.wait(timeout)
        finally:
            self._dozers -= 1

    def _break(self, error: TransportError) -> None:
        self._cause = error
        if not error.retryable:
            self._fatal = error
            self.window.abandon(error)
            self._changed.notify_all()
            return
        if not self._broken:
            log.warning("%s: the link broke: %s", self.url, error)
        self._broken = True
        self._retry_at = self._clock() + self._next_backoff()

    def _reopen(self, timeout: float) -> bool:
        wait = self._retry_at - self._clock()
        if wait > 0:
            if timeout > 0:
                self._doze(min(wait, timeout))
            if self._clock() < self._retry_at or self._closed:
                return False
        try:
            self._open_driver(max(timeout, 1.0))
        except TransportError as error:
            self._break(error)
            return False
        try:
            # What comes back goes out first, so it must be known before anything that waits is submitted.
            outcomes = self.driver.outcomes(0.0)
        except TransportError as error:
            self._break(error)
            return False
        self.window.now = self._clock()
        self.window.apply(outcomes)
        self._broken = False
        self._backoff = _FIRST_BACKOFF
        self.reconnects += 1
        self._changed.notify_all()
        log.info("%s: connected again", self.url)
        return True

    # --- the backstop --------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Called without the lock: start the backstop if the link needs looking after from now on."""
        if self._dozing:
            self._nudge.set()
        if self._backstop is None and (self.window.messages or self.driver.idle_interval < math.inf):
            with self._lock:
                self._watch_later()

    def _watch_later(self) -> None:
        """As `_watch`, with the lock held."""
        if self._backstop is None and not self._closing:
            self._backstop = threading.Thread(target=self._look_after, name=f"simlink-send-{self.url}", daemon=True)
            self._backstop.start()

    def _look_after(self) -> None:
        while True:
            self._dozing = not (self.window.messages or self._broken)
            # Looked at again: what came in between did not see that this thread would doze.
            if self._dozing and not self.window.messages:
                self._nudge.wait(min(self.driver.idle_interval, 60.0))
            else:
                self._nudge.wait(_BUSY_TICK)
            self._dozing = False
            self._nudge.clear()
            if self._stopped:
                return
            if self._clock() - self._last_pump < _BUSY_TICK / 2 or not self._lock.acquire(blocking=False):
                continue
            try:
                self._pump(0.0)
            except Exception as error:
                # A defect in a driver must reach the caller, not end this thread in silence.
                self._fatal = error if isinstance(error, TransportError) else _wrap(error, self.url)
                self.window.abandon(self._fatal)
                self._changed.notify_all()
            finally:
                self._lock.release()

    # --- the end --------------------------------------------------------------------------------------------------

    def reachable(self) -> bool:
        """Whether the peer is there, as far as is known."""
        return self._opened and not self._broken and self._fatal is None

    def close(self, timeout: float) -> int:
        """Wait until everything is resolved, at most ``timeout`` seconds, then release the driver.

        Without a peer it does not wait. Returns how many messages stayed unresolved. Idempotent.
        """
        if self._closed:
            return self.window.messages
        deadline = self._clock() + timeout
        with self._entered():
            self._closing = True
            self._changed.notify_all()
        if self._opened:
            # A link that broke gets one more chance to come back; after that nobody is there to wait for.
            grace = min(deadline, self._clock() + 1.0)
            self.wait_resolved(timeout, give_up=lambda: self._broken and self._clock() > grace)
        self._stopped = True
        self._nudge.set()
        if self._backstop is not None:
            self._backstop.join(5.0)
        with self._entered():
            if self._closed:
                return self.window.messages
            left = self.window.messages
            try:
                if self._opened:
                    self.driver.close(max(0.0, deadline - self._clock()))
                    if not self._broken and self._fatal is None:
                        self._last_words()
                else:
                    self.driver.close(0.0)
            finally:
                self._closed = True
                left = self.window.messages
                self.window.abandon(self._cause)
                self._changed.notify_all()
        return left

    def _last_words(self) -> None:
        """Outcomes that the driver learned while it closed."""
        try:
            outcomes = self.driver.outcomes(0.0)
        except TransportError as error:
            self._cause = error
        else:
            self.window.now = self._clock()
            self.window.apply(outcomes)

    def stats(self) -> dict[str, Any]:
        """Depths and counts; see `Channel.stats`."""
        return {
            **self.window.totals.as_dict(),
            "in_flight": self.window.messages,
            "in_flight_bytes": self.window.nbytes,
            "unconfirmed": self.window.unconfirmed,
            "reconnects": self.reconnects,
            "connected": self.reachable(),
            "driver": dict(self.driver.stats()),
        }


def _wrap(error: Exception, url: str) -> SendError:
    wrapped = SendError(f"{url}: the transport failed: {error!r}", url=url)
    wrapped.__cause__ = error
    return wrapped

"""Dead letters: what a receiver cannot use goes to another channel, on any transport, and is acknowledged only then.

Rule 35 of the semantics: publish, await the confirmation, acknowledge; where that fails, hold the message and back off.
A dead letter is the message as it was, body, key, headers and content type, under an identity of its own, with headers
that tell where it comes from:

=======================  ============================================================================================
``simlink-reason``       ``rejected``, ``undecodable: …``, or ``handed out too often``
``simlink-attempts``     how often it was handed out here, at least
``simlink-origin``       its first identity, ``producer/sequence/time`` as in `simlink.channels.identity`, if it had one
``simlink-origin-url``   the URL it was received from, without secrets; ``#NAME`` behind it names a subscription
=======================  ============================================================================================
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simlink.channels.channel import Channel
from simlink.channels.channel import queue as open_queue
from simlink.channels.identity import format_identities
from simlink.errors import ConfigError, DecodeError, NotSupported, SimlinkError
from simlink.message import Batch, has_line_break

if TYPE_CHECKING:
    from simlink.channels.hands import Hands, Held

__all__ = ["ATTEMPTS_HEADER", "ORIGIN_HEADER", "ORIGIN_URL_HEADER", "REASON_HEADER", "DeadLetters"]

log = logging.getLogger("simlink")

REASON_HEADER = "simlink-reason"
ATTEMPTS_HEADER = "simlink-attempts"
ORIGIN_HEADER = "simlink-origin"
ORIGIN_URL_HEADER = "simlink-origin-url"

TOO_OFTEN = "handed out too often"
MOST = 256
"""Dead letters in a batch."""
LONGEST = 200
"""Characters of a reason."""
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 30.0
_SLICE = 0.1


class DeadLetters:
    """The dead letters of one receiver, sent by a thread of their own (``simlink-dead-NAME``), made for the first one.

    Args:
        target: a URL, which is opened as a queue and closed with the receiver; or an open channel, left open.
        max_attempts: hand-outs after which a message that fails again goes here; None never counts them.
        origin: the channel that the receiver belongs to.
        subscription: the receiver's.

    Raises:
        ConfigError: the target is the origin itself; ``max_attempts`` is below 1. What opening the URL raises.
        NotSupported: the target carries no headers, so nobody would know why the letter is there.
    """

    def __init__(
        self, target: str | Channel, *, max_attempts: int | None, origin: Channel, subscription: str | None
    ) -> None:
        if max_attempts is not None and max_attempts < 1:
            raise ConfigError(f"max_attempts must be at least 1, not {max_attempts}")
        self.max_attempts = max_attempts
        self._owned = isinstance(target, str)
        self._channel = open_queue(target) if isinstance(target, str) else target
        if self._channel.url == origin.url and self._channel.mode is origin.mode:
            raise ConfigError(f"dead_letter={self._channel.url} is the channel that the letters come from")
        if not self._channel.capabilities.headers:
            raise NotSupported(f"dead_letter={self._channel.url}: it carries no headers, so no reason and no origin")
        self._subscription = subscription
        self.came_to(origin.url)
        self._waiting: deque[_Letter] = deque()
        self._sending = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None
        self._most = MOST
        self.counts = {"sent": 0, "failures": 0, "stale": 0}

    def came_to(self, url: str) -> None:
        """Which URL the letters say that they come from: the receiver's own, once it is bound."""
        self._origin = url if self._subscription is None else f"{url}#{self._subscription}"

    def spent(self, attempt: int) -> bool:
        """Whether a message that fails now, handed out so often, is not to come again."""
        return self.max_attempts is not None and attempt >= self.max_attempts

    def stats(self) -> dict[str, int]:
        """How many letters are confirmed, how many wait, and how often sending some failed."""
        return {**self.counts, "waiting": len(self._waiting) + self._sending}

    def add(self, hands: Hands, held: Held, first: int, stop: int) -> None:
        """These rows are dead letters. Called with the hands' lock held; never waits."""
        with self._changed:
            self._waiting.extend(_Letter(hands, held, row) for row in range(first, stop))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name=f"simlink-dead-{self._channel.url}", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """Send what waits, for at most ``timeout`` seconds; what is left stays unsettled, and so comes again."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._deadline = deadline
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout + 2 * _SLICE)
        if self._owned:
            self._channel.close(timeout=max(0.0, deadline - time.monotonic()))
            if self._thread is not None:
                self._thread.join(1.0)  # it may have been waiting for a peer, which closing ends

    # --- the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while some := self._next():
            try:
                done = self._send(some)
            except SimlinkError as error:
                done = False
                log.warning("dead letters of %s: %s", self._origin, error)
            except Exception:
                # A defect must not end the thread in silence: the letters would be held for ever.
                done = False
                log.exception("dead letters of %s", self._origin)
            with self._changed:
                self._sending = 0
                if done:
                    pause, self._most = _FIRST_PAUSE, min(MOST, 2 * self._most)
                    continue
                # One that the other side will not have must not hold up the others: one by one, in turn.
                self.counts["failures"] += 1
                self._most = 1
                self._waiting.extend(some)
                self._changed.wait(self._left(pause))
            pause = min(2 * pause, _LAST_PAUSE)

    def _next(self) -> list[_Letter]:
        """The letters to send next; none when it is over."""
        with self._changed:
            while True:
                while self._waiting and not self._waiting[0].held.valid(self._waiting[0].row):
                    # Its hold was lost: it is somebody else's now, or comes again.
                    self._waiting.popleft()
                    self.counts["stale"] += 1
                if self._deadline is not None and (not self._waiting or time.monotonic() >= self._deadline):
                    return []
                if self._waiting:
                    self._sending = min(self._most, len(self._waiting))
                    return [self._waiting.popleft() for _ in range(self._sending)]
                self._changed.wait()

    def _send(self, some: list[_Letter]) -> bool:
        """Send, wait for the confirmation, acknowledge; False where it is not confirmed."""
        for letter in some:
            # Once only: sent again it keeps its identity, so that a copy which did arrive is known as one.
            letter.batch = letter.batch or self._channel._stamp(self._written(letter.held, letter.row))
        batch = Batch.concat([letter.batch for letter in some if letter.batch is not None])
        receipt = self._channel.send_many(batch, timeout=self._left(5.0), wait=False)
        while receipt.pending and not (self._deadline is not None and time.monotonic() >= self._deadline):
            receipt.wait(_SLICE)
        if receipt.state != "confirmed":
            log.warning("dead letters of %s: %r", self._origin, receipt)
            return False
        for letter in some:
            letter.hands.published(letter.held, letter.row)
        self.counts["sent"] += len(some)
        return True

    def _left(self, wish: float) -> float:
        return wish if self._deadline is None else max(0.0, min(wish, self._deadline - time.monotonic()))

    def _written(self, held: Held, row: int) -> Batch:
        message = held.batch[row]
        headers = {_line(name): _line(value) for name, value in message.headers.items() if name != ORIGIN_HEADER}
        headers[REASON_HEADER] = _reason(held, row)
        headers[ATTEMPTS_HEADER] = str(held.attempts[row])
        headers[ORIGIN_URL_HEADER] = self._origin
        (identity,) = format_identities([message.producer], [message.sequence], [message.timestamp])
        if identity is not None:
            headers[ORIGIN_HEADER] = identity.decode()
        return Batch([message.body], keys=[message.key], headers=[headers], content_types=[message.content_type])


_ESCAPES = str.maketrans({"\\": "\\\\", "\r": "\\r", "\n": "\\n", "\0": "\\0"})


def _line(text: str) -> str:
    """A header that another program gave a broker may have what no sender of ours takes: as Python writes it."""
    return text.translate(_ESCAPES) if has_line_break(text) else text


@dataclass(slots=True)
class _Letter:
    hands: Hands
    held: Held
    row: int
    batch: Batch | None = None


def _reason(held: Held, row: int) -> str:
    if held.spent is not None and held.spent[row]:
        return TOO_OFTEN
    value = None if held.batch._values is None else held.batch._values[row]
    if type(value) is DecodeError:
        # One line of plain text: it travels as a header.
        text = "".join(c if c.isprintable() else " " for c in f"undecodable: {value}")
        return text[:LONGEST]
    return "rejected"

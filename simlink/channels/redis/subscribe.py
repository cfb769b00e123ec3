"""Subscribing: what comes is read when there is room for it; the server buffers the rest, within its own limit.

(``client-output-buffer-limit pubsub``: 32 MiB by default. It drops the connection of a subscriber above it, which is
told as a gap.)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from simlink.channels.driver import Incoming, ReceiverDriver, ReceiverOptions, Settlement
from simlink.channels.redis.failures import Lost, Refusal, connect_failure, receive_failure
from simlink.channels.redis.holds import ClaimLease, Hold
from simlink.channels.redis.sender import native_client
from simlink.channels.redis.settings import Address
from simlink.channels.redis.wire import NOTHING, Waker, Wire, connect
from simlink.errors import ConnectTimeout, ReceiveError, StateError
from simlink.message import Batch

__all__ = ["Subscriber"]


class Subscriber(ReceiverDriver):
    """Made by `RedisPubSubDriver.receiver`."""

    def __init__(self, address: Address, channel: str, options: ReceiverOptions) -> None:
        self._address = address
        self._channel = channel.encode()
        self._options = options
        self._prefetch = max(1, options.prefetch)
        self._hold = Hold(ClaimLease(channel, None, 0.0))
        self._numbers = count()
        self._verdicts: deque[Settlement] = deque()
        self._waker = Waker()
        self._woken = False
        self._listening = False
        self._wire: Wire | None = None
        self._joined = False
        self._gaps = 0
        self._closed = False

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._drop()
        wire = connect(self._address, timeout)
        try:
            wire.send(wire.pack((b"SUBSCRIBE", self._channel)))
            while (reply := wire.next()) is NOTHING:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectTimeout(
                        f"Redis at {wire.endpoint} did not confirm the subscription",
                        url=self._address.url,
                        endpoint=wire.endpoint,
                        retryable=True,
                    )
                wire.wait(left)
            if isinstance(reply, Refusal):
                raise reply
        except (Lost, Refusal, OSError) as error:
            wire.close()
            raise connect_failure(error, url=self._address.url, endpoint=wire.endpoint) from error
        except BaseException:
            wire.close()
            raise
        self._wire = wire
        again, self._joined = self._joined, True
        if again:
            self._gaps += 1
            # Told once; reading goes on behind it.
            raise ReceiveError(
                f"{self._address.url}: the connection was lost for a while, and what was published meanwhile with it",
                url=self._address.url,
            )

    def receive(self, limit: int, timeout: float) -> Sequence[Incoming]:
        wire = self._wire
        if wire is None:
            raise StateError("this Redis subscriber is not open")
        deadline = time.monotonic() + timeout
        looked = False  # even without time to wait, what is there is read once
        try:
            while True:
                self._waker.clear()
                self._apply()
                self._take(wire)
                now = time.monotonic()
                held = self._hold.in_hand
                room = min(limit, self._prefetch - held)
                nbytes = self._options.prefetch_bytes - self._hold.in_hand_bytes
                out = self._hold.hand_out(room, nbytes, now) if room > 0 and (nbytes > 0 or not held) else []
                if out or self._woken or (looked and now >= deadline):
                    self._woken = False
                    return out
                looked = True
                due = self._hold.next_due
                self._listen(wire, max(0.0, min(deadline, deadline if due is None else due) - now))
        except (Lost, OSError) as error:
            raise receive_failure(error, url=self._address.url, retryable=True) from error
        except Refusal as error:
            raise receive_failure(error, url=self._address.url, retryable=False) from error

    def _listen(self, wire: Wire, wait: float) -> None:
        self._listening = True
        try:
            # Looked at again now that `settle` knows that we wait.
            if self._verdicts:
                return
            if self._room() > 0:
                wire.wait(wait, self._waker)
            else:
                self._waker.wait(wait)
        finally:
            self._listening = False

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self._verdicts.extend(settlements)
        if self._listening:
            self._waker.set()

    def wake(self) -> None:
        self._woken = True
        self._waker.set()

    def reserve(self, count: int) -> None:
        self._prefetch = max(1, count)

    def close(self, timeout: float) -> None:
        if not self._closed:
            self._closed = True
            self._hold.lease.valid = False
            self._drop()
            self._waker.close()

    @property
    def native(self) -> Any:
        return native_client(self._address)

    def stats(self) -> Mapping[str, Any]:
        hold = self._hold
        return {"in_hand": hold.in_hand, "buffered": hold.buffered, "delayed": hold.delayed, "gaps": self._gaps}

    def _room(self) -> int:
        return self._prefetch - self._hold.in_hand - self._hold.buffered

    def _take(self, wire: Wire) -> None:
        """Messages that are here already, as many as there is room for."""
        room = self._room()
        bodies: list[bytes] = []
        following = wire.next
        while len(bodies) < room:
            reply = following()
            if reply is NOTHING:
                break
            if isinstance(reply, Refusal):
                raise reply
            if reply[0] == b"message":
                bodies.append(reply[2])
        if bodies:
            self._hold.add([b"%d" % next(self._numbers) for _ in bodies], Batch(bodies))

    def _apply(self) -> None:
        now = time.monotonic()
        while self._verdicts:
            settlement = self._verdicts.popleft()
            if settlement.lease is self._hold.lease:
                due = now + settlement.delay
                self._hold.settle(settlement.verdict, settlement.first, settlement.last, due)

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

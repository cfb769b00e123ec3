"""The receiving end: asking, handing out, taking verdicts.

One connection reads, and may be waiting for an answer inside the server. Acknowledgements travel with the next read.
While as much comes as was asked for, a second read is on its way before the answer to the first is taken apart, so that
the server need not wait for us. A second connection, opened when it is first needed, ends such a wait (CLIENT UNBLOCK),
so that the first is free again when `receive` returns. Should the server be too slow even for that, the answer stays
outstanding and the next call goes on waiting for it.

Everything happens in the caller's thread, inside `receive` and `tend`; only `settle` and `wake` may come from others,
and they leave a note.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simlink.channels.driver import Incoming, ReceiverDriver, ReceiverOptions, Settlement
from simlink.channels.redis.failures import Lost, Refusal, connect_failure, is_transient, receive_failure
from simlink.channels.redis.lanes import Lane
from simlink.channels.redis.layout import check_streams
from simlink.channels.redis.sender import native_client
from simlink.channels.redis.settings import Settings
from simlink.channels.redis.sources import Source
from simlink.channels.redis.wire import NOTHING, Waker, Wire, connect
from simlink.errors import ConnectError, ReceiveError, StateError, TransportError

__all__ = ["RedisReceiver"]

logger = logging.getLogger("simlink.redis")

AHEAD = 100
"""How many messages the application must be ready to take, for the next to be asked for while it works on these."""
DEPTH = 2
"""How many reads may be under way, where the source allows it: while one answer is taken apart and worked on here, the
server is at the next."""
LONGEST = 10.0
"""Seconds that a read may wait inside the server."""
SLACK = 0.5
"""Seconds by which that exceeds our own wait, so that it is ended by us, to the millisecond, and not by the server's
slower clock."""
GRACE = 0.2
"""Seconds that the end of a wait may take before the answer is left outstanding."""


class RedisReceiver(ReceiverDriver):
    """Made by `RedisDriver.receiver`."""

    def __init__(self, settings: Settings, source: Source, options: ReceiverOptions) -> None:
        self._settings = settings
        self._source = source
        self._options = options
        self._prefetch = max(1, options.prefetch)
        self._wire: Wire | None = None
        self._control: Wire | None = None
        self._client = 0
        self._expected: deque[Callable[[Any], None]] = deque()
        self._reads: deque[tuple[float, int]] = deque()  # under way: when each was sent, and for how many
        self._answers: list[Any] = []
        self._answer_due = 0.0
        self._verdicts: deque[Settlement] = deque()
        self._waker = Waker()
        self._listening = False
        self._woken = False
        self._mean = 0.0  # bytes of a message, roughly
        self._blocks = False
        self._more = False  # whether the last read brought all that it was asked for
        self._turn = 0
        self._stale = 0
        self._rejoined = 0
        self._told_gaps = 0
        self._closed = False

    # --- joining ------------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        again = self._client != 0
        self._drop()
        wire = connect(self._settings.address, timeout)
        try:
            loads = [("SCRIPT", "LOAD", script.source) for script in self._source.scripts]
            left = max(0.1, deadline - time.monotonic())
            if not again:
                check_streams(wire, self._settings, left)
            self._client = int(wire.call_many([("CLIENT", "ID"), *loads], timeout=left)[0])
            missed = self._source.open(wire, max(0.1, deadline - time.monotonic()))
        except (Lost, Refusal, OSError) as error:
            wire.close()
            raise connect_failure(error, url=self._settings.url, endpoint=wire.endpoint) from error
        except BaseException:
            wire.close()
            raise
        self._wire = wire
        self._rejoined += again
        if missed:
            # Told once, as an error, because nothing else would show it; reading goes on behind it.
            self._told_gaps += missed
            raise ReceiveError(
                f"{self._settings.url}: {missed} messages were trimmed away while the connection was lost",
                url=self._settings.url,
            )

    # --- ReceiverDriver -----------------------------------------------------------------------------------------

    def receive(self, limit: int, timeout: float) -> Sequence[Incoming]:
        wire = self._opened()
        deadline = time.monotonic() + timeout
        try:
            return self._receive(wire, limit, deadline)
        except (Lost, OSError) as error:
            raise receive_failure(error, url=self._settings.url, retryable=True) from error
        except Refusal as error:
            raise receive_failure(error, url=self._settings.url, retryable=is_transient(error)) from error

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self._verdicts.extend(settlements)
        if self._listening:
            self._waker.set()

    def tend(self) -> None:
        wire = self._wire
        if wire is None:
            return
        try:
            self._read(wire)
            while self._expected and wire.wait(0.0):
                self._read(wire)
            self._apply()
            if not self._expected:
                self._source.chores(wire, time.monotonic(), 0)
                self._send_acknowledgements(wire)
        except (Lost, OSError) as error:
            raise receive_failure(error, url=self._settings.url, retryable=True) from error
        except Refusal as error:
            raise receive_failure(error, url=self._settings.url, retryable=is_transient(error)) from error

    def wake(self) -> None:
        self._woken = True
        self._waker.set()

    def reserve(self, count: int) -> None:
        self._prefetch = max(1, count)

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._leave(time.monotonic() + timeout)
        except (Lost, Refusal, OSError, TransportError) as error:
            # What was not given back is claimed when it has been idle for long enough.
            logger.warning("%s: leaving failed: %s", self._settings.url, error)
        finally:
            for lane in self._source.lanes:
                lane.let_go()
            self._drop()
            self._waker.close()

    def _leave(self, deadline: float) -> None:
        wire = self._wire
        if wire is None:
            return
        self._apply()
        self._cancel(wire)
        self._drain(wire, min(deadline, time.monotonic() + self._settings.address.request_timeout))
        self._send_acknowledgements(wire)
        self._drain(wire, min(deadline, time.monotonic() + self._settings.address.request_timeout))
        if not self._expected:
            self._source.close(wire)

    @property
    def assigned(self) -> bool:
        return self._source.assigned

    @property
    def native(self) -> Any:
        return native_client(self._settings.address)

    def stats(self) -> Mapping[str, Any]:
        holds = [lane.hold for lane in self._source.lanes]
        return {
            "in_hand": sum(hold.in_hand for hold in holds),
            "buffered": sum(hold.buffered for hold in holds),
            "delayed": sum(hold.delayed for hold in holds),
            "stale": self._stale,
            "gaps": sum(lane.gaps for lane in self._source.lanes),
            "rejoined": self._rejoined,
            **self._source.stats(),
        }

    # --- receiving ----------------------------------------------------------------------------------------------

    def _receive(self, wire: Wire, limit: int, deadline: float) -> list[Incoming]:
        source = self._source
        asked = False  # even without time to wait, what is there is asked for once
        while True:
            self._waker.clear()
            self._apply()
            if self._flows(limit):
                # Before the answer to the last one is taken apart, which takes as long as the server takes for one.
                self._ask_ahead(wire, limit)
            self._read(wire)
            now, room = time.monotonic(), self._room()
            due = source.next_chore(room) if self._sound() else now
            if now >= due:
                self._cancel(wire)
                if self._expected:
                    return []
                source.chores(wire, now, self._room())
                room = self._room()
                due = source.next_chore(room)
            out = self._hand_out(self._at_once(limit), now)
            if out or self._woken or (asked and now >= deadline):
                self._woken = False
                if self._expected and not out:
                    # Left waiting, it would take messages that nobody is here to read.
                    self._cancel(wire)
                    out = self._hand_out(limit, now)
                elif out and self._flows(limit):
                    # A connection that breaks here must not take those with it that are on their way to the
                    # application: to us they are handed out, so nobody would hand them out again. The next call meets
                    # the error.
                    with contextlib.suppress(Lost, OSError):
                        self._ask_ahead(wire, limit)
                return out
            until = min([deadline, due, *self._dues()])
            asked = True
            if self._expected and self._blocks and any(lane.settled for lane in source.lanes):
                self._cancel(wire)  # verdicts came while it waits; they go with the next read
            if not self._expected:
                if room > 0 and source.ready:
                    self._ask(wire, min(limit, room), max(0.0, until - now))
                else:
                    self._send_acknowledgements(wire)
            self._listen(wire, until)
            if self._expected and time.monotonic() >= until:
                self._cancel(wire)

    def _flows(self, limit: int) -> bool:
        """Whether to ask before it is known what the last read brings."""
        if not self._more or limit < AHEAD:
            return False
        return not self._expected or (self._source.deep and not self._blocks and len(self._reads) < DEPTH)

    def _ask_ahead(self, wire: Wire, limit: int) -> None:
        """Let the server look for the next messages while the application works on these."""
        room = self._room()
        least = AHEAD if self._reads else 1
        if room >= least and self._source.ready and self._sound():
            self._ask(wire, min(limit, room), None)

    def _sound(self) -> bool:
        return all(lane.sound for lane in self._source.lanes)

    def _room(self) -> int:
        """How many more messages may be asked for; at least one where there are none."""
        holds = [lane.hold for lane in self._source.lanes]
        in_hand, coming = sum(hold.in_hand for hold in holds), sum(count for _, count in self._reads)
        coming += sum(hold.buffered for hold in holds)
        left = self._bytes_left()
        if in_hand and left <= 0:
            return 0
        room = self._prefetch - in_hand - coming
        if self._mean:
            room = min(room, max(1, int(left / self._mean)) - coming)
        return room if in_hand or coming else max(1, room)

    def _at_once(self, limit: int) -> int:
        """In a flow half of what may be in hand, so that the server works for the other half meanwhile."""
        return min(limit, max(1, self._prefetch // 2)) if self._more else limit

    def _bytes_left(self) -> int:
        return self._options.prefetch_bytes - sum(lane.hold.in_hand_bytes for lane in self._source.lanes)

    def _hand_out(self, limit: int, now: float) -> list[Incoming]:
        lanes = self._source.lanes
        held = sum(lane.hold.in_hand for lane in lanes)
        room = min(limit, self._prefetch - held) if held else min(limit, self._prefetch)
        nbytes = self._bytes_left()
        out: list[Incoming] = []
        # Another stream begins each time, so that a full one starves no other.
        self._turn += 1
        for i in range(len(lanes)):
            if room <= 0:
                break
            given = lanes[(self._turn + i) % len(lanes)].hand_out(room, nbytes, now)
            for incoming in given:
                room -= len(incoming.tokens)
                nbytes -= incoming.batch.nbytes
            out += given
            if nbytes <= 0 and (out or held):
                break
        return out

    def _dues(self) -> list[float]:
        return [due for lane in self._source.lanes if (due := lane.hold.next_due) is not None]

    def _apply(self) -> None:
        """Take the verdicts that were left for us."""
        verdicts, now = self._verdicts, time.monotonic()
        while verdicts:
            settlement = verdicts.popleft()
            lane = next((lane for lane in self._source.lanes if lane.lease is settlement.lease), None)
            if lane is None or not lane.sound:
                self._stale += 1
            else:
                lane.settle(settlement, now)

    # --- asking and listening -----------------------------------------------------------------------------------

    def _ask(self, wire: Wire, count: int, wait: float | None) -> None:
        """Send what is acknowledged, and a read that may wait (None: that may not), in one go."""
        # By halves, so that one can be on its way while the other is in hand.
        count = min(count, max(1, self._prefetch // 2))
        self._blocks = wait is not None
        block = 0 if wait is None else max(1, int((min(wait, LONGEST) + SLACK) * 1000))
        now = time.monotonic()
        self._reads.append((now, count))
        commands = self._source.ask(count, block, self._reads[0][0])
        packed = self._acknowledgements(wire)
        for command in commands:
            packed.append(wire.pack(command))
            self._expected.append(self._answer)
        self._expected[-1] = self._last_answer
        self._answer_due = now + block / 1000 + self._settings.address.request_timeout
        wire.send(b"".join(packed))

    def _acknowledgements(self, wire: Wire) -> list[bytes]:
        packed: list[bytes] = []
        for lane, count, command in self._source.acknowledge():
            packed.append(wire.pack_ids(command))
            self._expected.append(_acknowledged(lane, count))
        return packed

    def _send_acknowledgements(self, wire: Wire) -> None:
        packed = self._acknowledgements(wire)
        if packed:
            self._answer_due = time.monotonic() + self._settings.address.request_timeout
            wire.send(b"".join(packed))

    def _answer(self, reply: Any) -> None:
        if isinstance(reply, Refusal):
            raise reply
        self._answers.append(reply)

    def _last_answer(self, reply: Any) -> None:
        answers, self._answers = [*self._answers, reply], []
        _, asked = self._reads.popleft()
        if isinstance(reply, Refusal):
            if reply.code == "UNBLOCKED":
                return
            raise reply
        before = self._buffered()
        size = self._source.take(answers)
        count = self._buffered() - before
        self._more = count >= asked
        if count:
            mean = size / count
            self._mean = mean if not self._mean else 0.8 * self._mean + 0.2 * mean

    def _buffered(self) -> int:
        return sum(lane.hold.buffered for lane in self._source.lanes)

    def _read(self, wire: Wire) -> None:
        """Take the answers that are complete."""
        while self._expected:
            reply = wire.next()
            if reply is NOTHING:
                if time.monotonic() > self._answer_due:
                    raise Lost(f"{wire.endpoint} did not answer in time")
                return
            self._expected.popleft()(reply)

    def _listen(self, wire: Wire, until: float) -> None:
        """Wait for the answers, or for nothing but a sign, until the time, a verdict or `wake`."""
        self._listening = True
        try:
            while not self._verdicts and not self._woken:
                left = until - time.monotonic()
                if left <= 0:
                    return
                if self._expected:
                    came = wire.wait(left, self._waker)
                    self._read(wire)
                    if not self._expected or not came:
                        return
                else:
                    self._waker.wait(left)
                    return
        finally:
            self._listening = False

    def _cancel(self, wire: Wire) -> None:
        """End a read that waits inside the server; its answer comes at once, or stays outstanding."""
        self._read(wire)
        if not self._expected:
            return
        if not self._blocks:
            self._drain(wire, time.monotonic() + GRACE)
            return
        if self._control is None:
            try:
                self._control = connect(self._settings.address, GRACE)
            except ConnectError:
                return  # too slow even for that
        control = self._control
        while control.next() is not NOTHING:
            pass  # the answers to earlier ones tell nothing
        control.wait(0.0)
        control.send(control.pack(("CLIENT", "UNBLOCK", self._client)))
        self._drain(wire, time.monotonic() + GRACE)

    def _drain(self, wire: Wire, until: float) -> None:
        """Wait for what is outstanding, and not for more than that."""
        while self._expected:
            left = until - time.monotonic()
            if left <= 0:
                return
            wire.wait(left)
            self._read(wire)

    # --- helpers ------------------------------------------------------------------------------------------------

    def _opened(self) -> Wire:
        if self._wire is None:
            raise StateError("this Redis receiver is not open")
        return self._wire

    def _drop(self) -> None:
        self._expected.clear()
        self._reads.clear()
        self._answers.clear()
        for wire in (self._wire, self._control):
            if wire is not None:
                wire.close()
        self._wire = self._control = None


def _acknowledged(lane: Lane, count: int) -> Callable[[Any], None]:
    def done(reply: Any) -> None:
        if isinstance(reply, Refusal):
            raise reply
        lane.acknowledged(count)

    return done

"""Encoded rows ready ahead of the sender, in a bounded ring that is filled in small steps between two rows.

A block of 4,096 rows takes some ten milliseconds to make and to encode, and a step of that a fraction of one: a
column, a part of an epoch, a slice of bodies. Each step has a name by which its cost is known from before; the sender
begins one where it will be done when the next row is due, and sleeps otherwise. What cannot be done in any gap is left
until the ring runs low, and then delays the rows that are due in it by no more than itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from simlink.block import Block
from simlink.generators.faults.stretches import Altered
from simlink.message import Same
from simlink.running.feed import Chunk, Encoder

if TYPE_CHECKING:
    from simlink.generators.source import Source

__all__ = ["MARGIN", "Costs", "Ring"]

ROWS = 8_192
"""From this many rows on that are ready no more are made."""
BYTES = 4 * 1024 * 1024
"""And from this many bytes of bodies on."""
MARGIN = 0.000_05
"""Seconds before the next row is due at which a step should be done."""
_FIRST_ROWS = 64
_MOST_ROWS = 2_048
_PIECE_BYTES = 256 * 1024
_UNKNOWN = 0.000_3
"""Seconds that a step is taken to last of which nothing is known yet."""
_BATCH_SECONDS = 0.004


class Costs:
    """What steps took, by name: the median of the latest five, which a step that was interrupted does not change.

    Names beyond 1,024 are forgotten, the oldest first.
    """

    def __init__(self) -> None:
        self._known: dict[str, deque[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        """It took so long."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= 1_024:
                del self._known[next(iter(self._known))]
            known = self._known[name] = deque(maxlen=5)
        known.append(seconds)

    def of(self, name: str) -> float:
        """What it is expected to take."""
        known = self._known.get(name)
        return sorted(known)[(len(known) - 1) // 2] if known else _UNKNOWN


class Ring:
    """The rows of a source, encoded, in order.

    A record that cannot be encoded, and an error of the source itself, are raised once everything before them has been
    taken.

    Args:
        stop: rows from there on are not asked for.
        rows: how many make a chunk: what is there before the run begins, and what a source is asked for at a time
            that gives rows as they come.
        rate: rows a second, roughly; bodies are encoded in slices that suit it.
        reading: called with True before the source is asked for rows and with False behind it.
        limit: of rows, and of bytes.

    Attributes:
        rows: how many are ready.
        nbytes: of their bodies.
        hurry: rows that are encoded and sent together while the sender is behind; 0 while it is not.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        *,
        stop: int | None,
        rows: int,
        rate: float,
        reading: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
        limit: tuple[int, int] = (ROWS, BYTES),
    ) -> None:
        self._source = source.in_steps(stop, rows)
        self._encoder = encoder
        self._reading = reading
        self._clock = clock
        self._limit = limit
        self._waits = source.waits
        # A slice takes a part of the gap between two rows. Where rows come so fast that they go out in batches, the
        # slice is a batch of some milliseconds at least: small ones cost more a row.
        self._aim = min(0.002, max(0.000_35, 0.4 / rate)) if rate > 0 else 0.002
        self._least = int(min(rate * _BATCH_SECONDS, _MOST_ROWS))
        self._lookup = rows
        self.hurry = 0
        self._costs = Costs()
        self._pieces: deque[Chunk] = deque()
        self._sizes: deque[int] = deque()
        self._at = 0
        self.rows = self.nbytes = 0
        self._row = 0
        self._failure: Exception | None = None
        self._per_row = 0.0
        self._row_bytes = 0
        self._work = self._steps()
        self._size = 0
        # The name of the step that is next; None behind the last one.
        self._next: str | None = next(self._work)

    # --- filling

    @property
    def over(self) -> bool:
        """Whether all rows have been made."""
        return self._next is None

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        if self._waits:
            return len(self._pieces) > 1
        return self.rows >= self._limit[0] or self.nbytes >= self._limit[1]

    def worth(self, left: float, *, fresh: bool) -> bool:
        """Whether to do a step now.

        Args:
            left: seconds until the next row is due.
            fresh: nothing has been done yet since the latest release: no longer gap than this will come.
        """
        if self.over or self.full:
            return False
        if self._waits:
            # It may wait for ever, or not at all: nobody knows, and nothing of it is made far ahead.
            return True
        if self.expected + MARGIN <= left:
            return True
        # It will fit no gap, or not this one. The ring running low, it comes first in a gap, for the longest there is;
        # with only some milliseconds' worth of rows left, at once.
        rows, nbytes = self._limit
        low = self.rows * 2 < rows and self.nbytes * 2 < nbytes
        return (low and fresh) or self.rows < self._lookup

    @property
    def expected(self) -> float:
        """Seconds that the next step is expected to take."""
        if self._size and self._per_row:
            return self._per_row * self._size
        return 0.0 if self._next is None else self._costs.of(self._next)

    def step(self) -> None:
        """Do the next step, if there is one."""
        name, size = self._next, self._size
        if name is None:
            return
        self._size = 0
        begun = self._clock()
        self._next = next(self._work, None)
        took = self._clock() - begun
        if size:
            self._costs.add(name, took / size)
            self._per_row = self._costs.of(name)
        else:
            self._costs.add(name, took)

    def begin(self) -> None:
        """Before the run begins: make what it sends first, a chunk's worth."""
        while self.rows < self._lookup and not self.full and not (self._waits and self.rows) and not self.over:
            self.step()

    def prepare(self) -> None:
        """Steps until there is a row, or the end. Who has to wait for this is behind, and is behind again soon: the
        slices grow, for large ones take less time a row."""
        if not self.rows:
            while not self.rows and not self.over:
                self.step()
            self.hurry = min(max(self.hurry * 2, _FIRST_ROWS), _MOST_ROWS)

    def relax(self) -> None:
        """There is time: the slices are those that suit the rate."""
        self.hurry = 0

    def _steps(self) -> Generator[str, None, None]:
        """All the work; the name of each step before it is done."""
        yield "begin"
        while True:
            self._reading(True)
            try:
                made = next(self._source, None)
            except Exception as error:
                self._failure = error
                return
            finally:
                self._reading(False)
            if made is None:
                return
            if isinstance(made, str):
                yield made
                continue
            first = made.start if isinstance(made, Block | Altered) else self._row
            self._row = first + len(made)
            at = 0
            while at < len(made):
                size = min(len(made) - at, len(made) if self._waits else self._slice())
                if not self._waits:
                    self._size = size
                    yield "encode"
                whole = at == 0 and size == len(made)
                chunk, failure = self._encoder(made if whole else made[at : at + size], first + at)
                if chunk is not None:
                    self._add(chunk)
                if failure is not None:
                    self._failure = failure
                    return
                at += size
            if self._waits:
                # Whatever the source says: the next chunk is a step of its own.
                yield "ask"

    def _slice(self) -> int:
        fits = _FIRST_ROWS if not self._per_row else int(self._aim / self._per_row)
        most = _MOST_ROWS if not self._row_bytes else max(1, _PIECE_BYTES // self._row_bytes)
        return max(1, min(max(fits, self._least, self.hurry, 8), most, _MOST_ROWS))

    def _add(self, chunk: Chunk) -> None:
        size = sum(map(len, chunk.bodies))
        self._row_bytes = size // len(chunk)
        self._pieces.append(chunk)
        self._sizes.append(size)
        self.rows += len(chunk)
        self.nbytes += size

    # --- emptying

    def check(self) -> bool:
        """Whether a row is ready; False means the end.

        Raises:
            EncodeError: the next record cannot be encoded; ``row`` is its index in the source.
            Exception: whatever the source raised.
        """
        if self.rows:
            return True
        if self._failure is not None:
            raise self._failure
        return False

    def take(self, count: int) -> list[Chunk]:
        """The next ``count`` rows, which are ready: in as few chunks as the numbers of their rows allow."""
        piece, upto = self._pieces[0], self._at + count
        if upto < len(piece.bodies):  # as a rule a row, or a few, of the first piece
            part = piece.part(self._at, upto)
            self.rows -= count
            self._at = upto
            return [part]
        runs: list[list[Chunk]] = []
        while count > 0:
            piece = self._pieces[0]
            upto = min(len(piece), self._at + count)
            part = piece if upto - self._at == len(piece) else piece.part(self._at, upto)
            count -= len(part)
            self._drop(piece, upto)
            if runs and runs[-1][-1].first + len(runs[-1][-1]) == part.first:
                runs[-1].append(part)
            else:
                runs.append([part])
        return [run[0] if len(run) == 1 else _joined(run) for run in runs]

    def skip(self, count: int) -> None:
        """Let go of the next ``count`` rows, which are ready."""
        while count > 0:
            piece = self._pieces[0]
            upto = min(len(piece), self._at + count)
            count -= upto - self._at
            self._drop(piece, upto)

    def _drop(self, piece: Chunk, upto: int) -> None:
        """The first piece's rows before ``upto`` are gone."""
        self.rows -= upto - self._at
        self._at = upto
        if upto == len(piece):
            self._pieces.popleft()
            self.nbytes -= self._sizes.popleft()
            self._at = 0


def _joined(run: list[Chunk]) -> Chunk:
    bodies = [body for part in run for body in part.bodies]
    keys: Sequence[Any]
    if all(isinstance(part.keys, Same) for part in run):
        keys = Same(None, len(bodies))
    else:
        keys = [key for part in run for key in part.keys]
    return Chunk(run[0].first, bodies, keys)

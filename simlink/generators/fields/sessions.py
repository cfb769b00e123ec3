"""Sessions: visitors who come, go through a Markov chain of steps with pauses in between, and leave.

Event time is divided into epochs of 65,536 rows (16 blocks); their bounds in time follow from the rate. Every epoch has
sessions of its own, which begin in it, and whose steps may go on into the next one, where they are taken up. So an
epoch is made from its own random numbers and those of the epoch before, and from nothing else. That its rows come to
exactly 65,536 is seen to by the shortest sessions, those of a single event: the law says how many there are of all
others, and they fill what is left.

What the seam of two epochs costs:

- the share of sessions of one event is right on average, and differs from epoch to epoch by a few per cent;
- a session ends at the latest with the epoch after the one it began in, and after 64 events;
- one block made alone needs two epochs, some ten milliseconds each; in order each is made once, and the last few are
  kept.

Row 0 is the first event of the first visitor of all. So that the rows do not swell slowly, as many visitors come in at
once as would be there, later, already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Pool, Schema, Struct
from simlink.errors import ConfigError
from simlink.generators import portable, seeding
from simlink.generators.field import BLOCK_ROWS, Bound, Context, Field, Scope
from simlink.generators.fields.chains import Chain, draws_of
from simlink.generators.fields.draws import cumulative
from simlink.generators.fields.rhythm import Micros, Rhythm
from simlink.generators.fields.times import in_format, time_type
from simlink.generators.steps import Kept, Steps, at_once

__all__ = ["EPOCH_ROWS", "LONGEST", "Journey", "Moment", "Part", "Sessions"]

EPOCH_ROWS: Final = 16 * BLOCK_ROWS
"""Rows in an epoch. Part of the data's definition: never changes."""
LONGEST: Final = 64
"""Events in a session, at most."""
_CROWDED: Final = 0.25
"""Of an epoch, how long a session may last on average; more, and too many would be cut at the end of the next one."""
_KEPT: Final = 3
_GAP_BITS: Final = 14
_PARTS: Final = 16

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Journey:
    """What the sessions do.

    Attributes:
        start: the weights of the first step.
        moves: for each step the weights of the next one; that of None is to leave.
        pauses: for each step the median of the pause before it, in seconds. Pauses are log-normal.
        spread: the standard deviation of the logarithm of the pauses.
        single: the step of which the sessions of one event consist that fill an epoch.
        turns: the steps at which something new begins, such as another product or page; see `Sessions`.
    """

    start: Mapping[str, float]
    moves: Mapping[str, Mapping[str | None, float]]
    pauses: Mapping[str, float]
    spread: float
    single: str
    turns: frozenset[str]

    def lengths(self) -> tuple[float, float]:
        """The mean number of events in a session, and the sum of the median pauses of a session on average."""
        names = list(self.moves)
        moves = {a: {b: w / math.fsum(row.values()) for b, w in row.items()} for a, row in self.moves.items()}
        total = math.fsum(self.start.values())
        here = {name: self.start.get(name, 0.0) / total for name in names}
        events, pauses = [], []
        for _ in range(LONGEST):
            events.append(math.fsum(here.values()))
            here = {b: math.fsum(here[a] * moves[a].get(b, 0.0) for a in names) for b in names}
            pauses += [here[b] * self.pauses[b] for b in names]
        return math.fsum(events), math.fsum(pauses) - math.fsum(here[b] * self.pauses[b] for b in names)

    def paused(self, factor: float) -> Journey:
        """The same with pauses so many times as long."""
        return replace(self, pauses={name: pause * factor for name, pause in self.pauses.items()})

    def longest_pauses(self, rate: float) -> float:
        """By how much the pauses may be multiplied so that sessions still fit an epoch."""
        mean = self.lengths()[1] * float(portable.exp(np.array([self.spread**2 / 2]))[0])
        return _CROWDED * EPOCH_ROWS / rate / mean


class _Events(NamedTuple):
    """Events of sessions: when, and in the bits of one integer the rest, from the lowest: the kind (8), the number of
    the step where the turn began (6), the number of the step (6), whose it is among its epoch's sessions (20), and
    whether that is the epoch before (1)."""

    at: Micros
    what: Ints

    def take(self, rows: Ints | npt.NDArray[np.bool_]) -> _Events:
        return _Events(self.at[rows], self.what[rows])

    @property
    def session(self) -> Ints:
        return (self.what >> 20) & (_MOST - 1)


_MOST: Final = 1 << 20
"""More sessions than an epoch can have: less than 2**18, and the sessions of one event are counted from 2**19."""
_BEFORE: Final = 1 << 40


def _joined(parts: Sequence[_Events]) -> _Events:
    return _Events(np.concatenate([p.at for p in parts]), np.concatenate([p.what for p in parts]))


class Sessions(Field):
    """The events of all sessions in the order of time, as a nested record.

    ======== ==================================================================================
    at       when, in microseconds since 1970 UTC; ascending
    session  a number of 64 bits that only the events of this session have
    step     0, 1, 2, … within the session
    action   the step of the journey
    event    a number of 64 bits that only this event has
    turn     that of the event with which the last turn of the session began
    ======== ==================================================================================

    What belongs to a session is an attribute of ``session`` (`ref`), what belongs to a product or page one of ``turn``.

    Args:
        journey: what sessions do.
        rhythm: when rows happen.

    Raises:
        ConfigError: the pauses are too long for the rate.
    """

    def __init__(self, journey: Journey, rhythm: Rhythm) -> None:
        room = journey.longest_pauses(rhythm.rate)
        if room < 1:
            raise ConfigError(
                f"at {rhythm.rate:g} rows a second sessions do not fit an epoch of {EPOCH_ROWS:,} rows: "
                f"pauses can be {room:.3g} times as long at most"
            )
        self.rhythm = rhythm
        self.names = list(journey.moves)
        ends = [*self.names, None]
        rows = [[journey.moves[name].get(end, 0.0) for end in ends] for name in self.names]
        self.single = self.names.index(journey.single)
        self.chain = Chain("sessions", rows)
        leaves = rows[self.single][-1] / math.fsum(rows[self.single])
        stays = [list(row) for row in rows]
        # Where that step is always the last one, no other session begins with it, and its row is not asked.
        stays[self.single][-1] = 0.0 if any(stays[self.single][:-1]) else 1.0
        self.chain_first = Chain("sessions", stays)
        total = math.fsum(journey.start.values())
        start = [journey.start.get(name, 0.0) / total for name in self.names]
        singles = start[self.single] * leaves
        start[self.single] *= 1 - leaves
        self.start = cumulative("sessions: start", start)
        self.count = round(EPOCH_ROWS / journey.lengths()[0] * (1 - singles))
        self.turns = np.array([name in journey.turns for name in self.names])
        levels = (np.arange(1 << _GAP_BITS) + 0.5) / (1 << _GAP_BITS)
        self.quantiles = portable.exp(portable.normal_quantile(levels) * journey.spread)
        self.medians = np.array([journey.pauses[name] * 1e6 for name in self.names])

    def bind(self, scope: Scope) -> Bound:
        if scope.counts != "stream":
            raise ConfigError(
                f"{scope.path}: sessions follow the stream's rows: they have no place in a list or entity"
            )
        epoch_of = Kept(_Epochs(self, scope.seed, scope.path).events, _KEPT)
        pool = Pool(self.names)

        def make(context: Context) -> Column:
            return at_once(steps(context))

        def steps(context: Context) -> Steps[Column]:
            number, block = divmod(context.block, EPOCH_ROWS // BLOCK_ROWS)
            events = yield from epoch_of.steps(number)
            first = block * BLOCK_ROWS
            what = events.what[first : first + context.length]
            session = ((number << 20) + (what >> 20) - ((what >> 40) << 21) + _MOST).view(np.uint64)
            step = (what >> 14) & 63
            names = seeding.hash_words(context.seed, f"{scope.path}#event", session)
            columns: dict[str, Column] = {
                "at": events.at[first : first + context.length],
                "session": session,
                "step": step,
                "action": Coded(what & 255, pool),
                "event": names + step.view(np.uint64),
                "turn": names + ((what >> 8) & 63).view(np.uint64),
            }
            return Struct(columns, context.length)

        kinds = {"at": Kind.INT, "session": Kind.UINT, "step": Kind.INT, "action": Kind.STR}
        kinds |= {"event": Kind.UINT, "turn": Kind.UINT}
        schema = Schema("sessions", {name: FieldType(kind) for name, kind in kinds.items()})
        return Bound(FieldType(Kind.RECORD, fields=schema), make, steps)


class _Epochs:
    """The epochs of one seed and path."""

    def __init__(self, law: Sessions, seed: int, path: str) -> None:
        self.law, self.seed, self.path = law, seed, path
        # Made in order, an epoch's own sessions are needed twice: for itself, and for what goes on in the next one.
        self._own = Kept(self._make_own, _KEPT)

    def _words(self, use: str, epoch: int, count: int) -> seeding.Words:
        # The epoch before the first one counts too; see `_begins`.
        return seeding.words(self.seed, f"{self.path}#{use}", epoch + 1, count)

    def _bound(self, epoch: int) -> int:
        return int(self.law.rhythm.times(epoch * EPOCH_ROWS, np.zeros(1))[0])

    def _spread_out(self, use: str, epoch: int, count: int) -> Steps[Micros]:
        """``count`` points in time within the epoch, after the rhythm."""
        yield f"sessions: {use}"
        offsets = seeding.to_uniform(self._words(use, epoch, count)) * EPOCH_ROWS
        parts = []
        for first in range(0, count, BLOCK_ROWS):
            yield "sessions: times"
            parts.append(self.law.rhythm.times(epoch * EPOCH_ROWS, offsets[first : first + BLOCK_ROWS]))
        yield "sessions: all times"
        times = np.concatenate(parts) if parts else np.empty(0, np.int64)
        return np.clip(times, self._bound(epoch), self._bound(epoch + 1) - 1)

    def _begins(self, epoch: int) -> Steps[Micros]:
        begins = yield from self._spread_out("begin", epoch, self.law.count)
        if epoch == 0:
            # Those who would be there already, had there been a time before: they begin with what would be their next.
            earlier = yield from self._walk(-1, (yield from self._spread_out("begin", -1, self.law.count)))
            bound = self._bound(0)
            ongoing = np.flatnonzero(earlier.at >= bound)
            _, first = np.unique(earlier.session[ongoing], return_index=True)
            begins = np.concatenate([begins, earlier.at[ongoing[first]]])
        return begins

    def _walk(self, epoch: int, begins: Micros) -> Steps[_Events]:
        """All events of the sessions with these beginnings, session by session within each step."""
        law = self.law
        draws = seeding.to_uniform(self._words("start", epoch, len(begins)))
        at, state = begins, np.searchsorted(law.start, draws, side="right").astype(np.int64)
        rest = np.arange(len(begins)) << 20  # whose, and since which step
        parts = []
        for step in range(LONGEST):
            if not len(at):
                break
            yield f"sessions: walk {step}"
            parts.append(_Events(at, rest + (step << 14) + state))
            words = self._words(f"step{step}", epoch, len(at))
            cuts = draws_of(words)
            yield f"sessions: state {step}"
            state = (law.chain_first if step == 0 else law.chain).step(state, cuts)
            yield f"sessions: stay {step}"
            stays = np.flatnonzero(state < len(law.names))
            state, rest = state[stays], rest[stays]
            level = words[stays] & np.uint64((1 << _GAP_BITS) - 1)
            yield f"sessions: pause {step}"
            pause = law.medians[state] * law.quantiles[level.view(np.int64)]
            at = at[stays] + np.maximum(np.rint(pause), 1.0).astype(np.int64)
            rest = np.where(law.turns[state], (rest & ~0x3FFF) + (step + 1 << 8), rest)
        yield "sessions: join"
        return _joined(parts)

    def _make_own(self, epoch: int) -> Steps[tuple[_Events, _Events]]:
        """Of the sessions that begin in this epoch: what happens in it, and what in the next one."""
        events = yield from self._walk(epoch, (yield from self._begins(epoch)))
        yield "sessions: now"
        middle, end = self._bound(epoch + 1), self._bound(epoch + 2)
        now = events.at < middle
        here = events.take(now)
        yield "sessions: later"
        return here, events.take(~now & (events.at < end))

    def events(self, epoch: int) -> Steps[_Events]:
        """The 65,536 events of an epoch, in the order of time; ``session`` is unique among all epochs."""
        # The one before first: it is made first where they are made in order.
        earlier = (yield from self._own.steps(epoch - 1))[1] if epoch else None
        here, later = yield from self._own.steps(epoch)
        before = here.take(np.empty(0, np.int64)) if earlier is None else earlier
        yield "sessions: singles"
        missing = EPOCH_ROWS - len(here.at) - len(before.at)
        if missing < 0:
            here = _thinned(here, later, -missing)
            missing = EPOCH_ROWS - len(here.at) - len(before.at)
        names = np.arange(_MOST // 2, _MOST // 2 + missing)
        times = yield from self._spread_out("single", epoch, missing)
        singles = _Events(times, (names << 20) + self.law.single)
        yield "sessions: merge"
        merged = _joined([before._replace(what=before.what + _BEFORE), here, singles])
        order = yield from self._order(epoch, merged.at)
        yield "sessions: in order"
        at = merged.at[order]
        yield "sessions: what in order"
        return _Events(at, merged.what[order])

    def _order(self, epoch: int, at: Micros) -> Steps[Ints]:
        """How to sort the events of an epoch; of equal ones the first stays first. Part by part of the epoch's time,
        for the whole is the longest step of all."""
        begin, end = self._bound(epoch), self._bound(epoch + 1)
        yield "sessions: parts"
        part = (at - begin) // max(-((begin - end) // _PARTS), 1)
        rows = []
        for number in range(_PARTS):
            yield "sessions: order"
            mine = np.flatnonzero(part == number)
            rows.append(mine[_order(at[mine])])
        return np.concatenate(rows)


def _order(at: Micros) -> Ints:
    """How to sort these; of equal ones the first stays first."""
    if not len(at):
        return np.empty(0, np.int64)
    since = at - at.min()
    if int(since.max()) >> (63 - 17):
        return np.argsort(at, kind="stable")
    # Four times as fast: the rows go along in the lower bits.
    return np.sort((since << 17) + np.arange(len(at))) & ((1 << 17) - 1)


def _thinned(here: _Events, later: _Events, surplus: int) -> _Events:
    """Without so many whole sessions that at least ``surplus`` events go: the last ones that do not go on in the next
    epoch. It happens once in many thousand epochs, if at all."""
    session = here.session
    sizes = np.bincount(session)
    ongoing = np.unique(later.session)
    sizes[ongoing[ongoing < len(sizes)]] = 0
    gone = np.cumsum(sizes[::-1])[::-1]
    last = int(np.flatnonzero(gone >= surplus)[-1])
    return here.take((session < last) | (sizes[session] == 0))


class Part(Field):
    """One column of an earlier nested record, as it is."""

    def __init__(self, field: str, name: str) -> None:
        self.field, self.name = field, name

    def needs(self) -> Iterator[str]:
        yield self.field

    def bind(self, scope: Scope) -> Bound:
        schema = scope.lookup(self.field).fields
        if schema is None or self.name not in schema.fields:
            raise ConfigError(f"{scope.path}: {self.field!r} has no field {self.name!r}")

        def make(context: Context) -> Column:
            column = context.column(self.field)
            assert isinstance(column, Struct)
            return column.columns[self.name]

        return Bound(schema.fields[self.name], make)


class Moment(Field):
    """When each event of earlier `Sessions` happened, in a format of `event_time`."""

    def __init__(self, what: str, field: str, format: str) -> None:
        self.field, self.format = field, format
        self.type = time_type(what, format)

    def needs(self) -> Iterator[str]:
        yield self.field

    def bind(self, scope: Scope) -> Bound:
        at = Part(self.field, "at").bind(scope)

        def make(context: Context) -> Column:
            return in_format(np.asarray(at.make(context)), self.format)

        return Bound(self.type, make)

"""What can go wrong on purpose, each with a rate and a seed: faults of whole messages and of their bodies.

A fault decides for every row of a source by a random number of (seed, its own path, block), as fields are drawn:
adding one behind the others changes no other. The faults of fields are in `simlink.generators.faults.fields`, what
applies them in `simlink.generators.faults.faulty`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError
from simlink.generators import seeding
from simlink.generators.arrivals.clock import check_number
from simlink.generators.arrivals.schedule import number_text
from simlink.generators.faults.times import TIME_FIELDS, micros_of
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.paths import get_at, parts_of

if TYPE_CHECKING:
    from simlink.generators.faults.faulty import FaultySource

__all__ = [
    "MOST_PLACES",
    "BodyFault",
    "Context",
    "Fault",
    "Layout",
    "OrderFault",
    "corrupt",
    "drop",
    "duplicate",
    "late",
    "out_of_order",
    "truncate",
]

Rows: TypeAlias = "npt.NDArray[np.int64]"
Words: TypeAlias = "npt.NDArray[np.uint64]"
MOST_PLACES = 65_536
"""The farthest that a record is put off, and the longest that a fault lasts, in records."""


class Context(Protocol):
    """What a fault may ask of the source."""

    def base(self, block: int) -> Sequence[Any]:
        """The 4,096 values of a block as the source makes them; fewer at its end, none behind it or before row 0."""

    def first(self) -> Any:
        """The first value, or None."""


class Layout:
    """What becomes of the rows of one block.

    Attributes:
        alive: which are sent.
        shift: how many places later.
        copies: (offset, places behind the original) of what is sent again.
        marks: (offset, fault, detail, of the copy) of what was done.
    """

    def __init__(self, rows: int) -> None:
        self.alive = np.ones(rows, np.bool_)
        self.shift = np.zeros(rows, np.int64)
        self.copies: list[tuple[int, int]] = []
        self.marks: list[tuple[int, str, dict[str, Any], bool]] = []

    def __len__(self) -> int:
        return len(self.alive)


class Fault:
    """One kind of fault at one rate. Its ``repr`` makes it again.

    ``source | fault`` is the source with it; see `simlink.faults.apply`.
    """

    name: str = ""
    reach: int = 0
    """How many blocks back a row may be touched from."""
    reads: bool = False
    """Whether where a row goes depends on the values."""

    def __init__(self, p: float, seed: int | None, **arguments: Any) -> None:
        p = check_number(self.name, "p", p, zero=True)
        if p > 1:
            raise ConfigError(f"{self.name}: p is a share from 0 to 1, not {p!r}")
        self.p = p
        self.seed = None if seed is None else seeding.check_seed(seed)
        self._arguments = arguments
        self._drawn_from = 0
        self._path = ""

    def placed(self, seed: int, path: str) -> Fault:
        """This fault with a place in a source: where it is drawn from."""
        import copy

        other = copy.copy(self)
        other._drawn_from = seed if self.seed is None else self.seed
        other._path = path
        return other

    def check(self, names: Sequence[str] | None) -> None:
        """Raises ConfigError where the source's fields, so far as they are known, are not what it needs."""

    def ready(self, context: Context) -> None:
        """Called once, before anything else: what can be learnt from the source's first block.

        Raises:
            ConfigError: that it is not what the fault needs.
        """
        per = self._arguments.get("per")
        if per is not None and context.base(0):
            get_at(context.first(), parts_of(per), self.name)

    def hits(self, block: int, rows: int) -> Rows:
        """The offsets in a block that it strikes."""
        raw = seeding.words(self._drawn_from, self._path, block, BLOCK_ROWS)[:rows]
        struck: Rows = np.flatnonzero(seeding.to_uniform(raw) < self.p)
        return struck

    def draws(self, block: int, what: str) -> Words:
        """More random words of a block, one a row."""
        return seeding.words(self._drawn_from, f"{self._path}.{what}", block, BLOCK_ROWS)

    def __ror__(self, source: Any) -> FaultySource:
        from simlink.generators.faults.faulty import apply

        return apply(source, self)

    def __repr__(self) -> str:
        given = {**self._arguments, "seed": self.seed}
        texts = [
            f"{n}={number_text(v) if isinstance(v, float) else repr(v)}" for n, v in given.items() if v is not None
        ]
        return f"{self.name}({', '.join([number_text(self.p), *texts])})"


class OrderFault(Fault):
    """Whether, when and how often a record is sent."""

    def arrange(self, context: Context, block: int, layout: Layout) -> None:
        """Note in the layout what it does."""
        raise NotImplementedError


class BodyFault(Fault):
    """A body that is not what the serializer made."""

    def damage(self, body: bytes, word: int) -> bytes:
        """The damaged body, from 64 random bits."""
        raise NotImplementedError

    def detail(self) -> dict[str, Any]:
        """For the label."""
        return {}


class _Drop(OrderFault):
    name = "drop"

    def arrange(self, context: Context, block: int, layout: Layout) -> None:
        for at in self.hits(block, len(layout)).tolist():
            if layout.alive[at]:
                layout.alive[at] = False
                layout.marks.append((at, self.name, {}, False))


class _Duplicate(OrderFault):
    name = "duplicate"

    def __init__(self, p: float, within: int, seed: int | None) -> None:
        super().__init__(p, seed, within=within or None)
        self.within = _places("duplicate", "within", within, 0)

    @property
    def most(self) -> int:
        """Places."""
        return self.within

    def arrange(self, context: Context, block: int, layout: Layout) -> None:
        found = self.hits(block, len(layout)).tolist()
        words = self.draws(block, "within") if found and self.within else None
        for at in found:
            if layout.alive[at]:
                behind = 0 if words is None else 1 + int(words[at]) % self.within
                layout.copies.append((at, behind))
                layout.marks.append((at, self.name, {"places": behind} if behind else {}, True))


class _OutOfOrder(OrderFault):
    name = "out_of_order"

    def __init__(self, p: float, window: int, seed: int | None) -> None:
        super().__init__(p, seed, window=window)
        self.most = _places("out_of_order", "window", window, 1)

    def arrange(self, context: Context, block: int, layout: Layout) -> None:
        found = self.hits(block, len(layout)).tolist()
        if found:
            words = self.draws(block, "window")
            for at in found:
                if layout.alive[at]:
                    places = 1 + int(words[at]) % self.most
                    layout.shift[at] += places
                    layout.marks.append((at, self.name, {"places": places}, False))


class _Late(OrderFault):
    name = "late"

    def __init__(self, p: float, by: float | None, field: str | None, places: int | None, seed: int | None) -> None:
        super().__init__(p, seed, by=by, field=field, places=places)
        if (by is None) == (places is None):
            raise ConfigError("late: say how late, by= so many seconds or places= so many records")
        self.by = None if by is None else check_number("late", "by", by)
        self.places = None if places is None else _places("late", "places", places, 1)
        if field is not None and by is None:
            raise ConfigError("late: field= is where the seconds of by= are counted; places= needs none")
        self.field = field
        self._parts: tuple[str | int, ...] = ()
        self.reads = by is not None
        self.most = self.places or 0

    def check(self, names: Sequence[str] | None) -> None:
        if self.by is None or names is None:
            return
        if self.field is None:
            self._time_field(names)

    def _time_field(self, names: Sequence[str]) -> str:
        for name in TIME_FIELDS:
            if name in names:
                return name
        raise ConfigError(
            f"late: none of {', '.join(TIME_FIELDS)} is a field: name the time with field=, or give places="
        )

    def ready(self, context: Context) -> None:
        if self.by is None:
            return
        first = context.first()
        if self.field is None:
            self._parts = (self._time_field(list(first) if isinstance(first, dict) else []),)
        else:
            self._parts = parts_of(self.field)
        step = self._step(context.base(0))
        # The stream may become denser later; how far is known only as it comes.
        self.most = int(min(MOST_PLACES, max(64.0, 16 * self.by / step)))

    def _step(self, values: Sequence[Any]) -> float:
        """Seconds from record to record, on average over a block."""
        times = [micros_of(get_at(values[at], self._parts, "late")) for at in (0, -1)] if values else []
        span = (times[1] - times[0]) / 1e6 if len(values) > 1 else 0.0
        return max(span / max(len(values) - 1, 1), 1e-6)

    def arrange(self, context: Context, block: int, layout: Layout) -> None:
        found = [at for at in self.hits(block, len(layout)).tolist() if layout.alive[at]]
        if not found:
            return
        places = self.places
        if places is None:
            assert self.by is not None
            places = int(min(self.most, max(1.0, np.rint(self.by / self._step(context.base(block))))))
        for at in found:
            layout.shift[at] += places
            layout.marks.append((at, self.name, {"places": places}, False))


class _Corrupt(BodyFault):
    name = "corrupt"

    def damage(self, body: bytes, word: int) -> bytes:
        if not body:
            return body
        at, flip = (word >> 8) % len(body), 1 + (word & 0xFF) % 255
        return body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]


class _Truncate(BodyFault):
    name = "truncate"

    def damage(self, body: bytes, word: int) -> bytes:
        return body[: word % len(body)] if body else body


def _places(what: str, name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_PLACES:
        raise ConfigError(f"{what}: {name} is a number of records from {least} to {MOST_PLACES:,}, not {value!r}")
    return value


def drop(p: float, seed: int | None = None) -> Fault:
    """A share ``p`` of the records is never sent.

    Raises:
        ConfigError: as for every fault: ``p`` is not from 0 to 1, or no seed.
    """
    return _Drop(p, seed)


def duplicate(p: float, within: int = 0, seed: int | None = None) -> Fault:
    """A share ``p`` is sent twice: the same body and key, as a message of its own with an identity of its own, so that
    no receiver takes it for a repeat of the transport.

    Args:
        p: the share.
        within: the copy comes 1 … within places behind (evenly drawn); by default right behind.
        seed: by default the source's.

    Raises:
        ConfigError: also where ``within`` is not from 0 to 65,536.
    """
    return _Duplicate(p, within, seed)


def out_of_order(p: float, window: int = 16, seed: int | None = None) -> Fault:
    """A share ``p`` is sent 1 … ``window`` places later, evenly drawn. What the record says of its time stays.

    Raises:
        ConfigError: also where the window is not from 1 to 65,536.
    """
    return _OutOfOrder(p, window, seed)


def late(
    p: float, by: float | None = None, *, field: str | None = None, places: int | None = None, seed: int | None = None
) -> Fault:
    """A share ``p`` is sent late. What the record says of its time stays.

    Args:
        p: the share.
        by: seconds of the stream's own time: so many places later as records have come in ``by`` seconds, on average
            over the record's block of 4,096; at most 65,536 places, and at most 16 times as many as at the stream's
            beginning.
        field: the record's time (ISO 8601 text, or seconds, milli-, micro- or nanoseconds since 1970), for ``by``; by
            default the first of timestamp, time, event_time, ts, at that there is.
        places: instead of ``by``: exactly so many places.
        seed: by default the source's.

    Raises:
        ConfigError: also where neither or both of ``by`` and ``places`` are given.
    """
    return _Late(p, by, field, places, seed)


def corrupt(p: float, seed: int | None = None) -> Fault:
    """In the bodies of a share ``p`` one byte is another one, after encoding.

    Raises:
        ConfigError: as for every fault.
    """
    return _Corrupt(p, seed)


def truncate(p: float, seed: int | None = None) -> Fault:
    """The bodies of a share ``p`` are cut off, anywhere, after encoding.

    Raises:
        ConfigError: as for every fault.
    """
    return _Truncate(p, seed)

"""Faults of fields: a value of the wrong type, a clock that is off, a key that is hot, and what sensors do.

They change what the source made; the record is encoded with the change. Those of sensors last: an episode begins at a
record that is struck and goes on over the next ``length`` records of the stream, in those of the same ``per``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from simlink.errors import ConfigError, did_you_mean
from simlink.generators import seeding
from simlink.generators.arrivals.clock import check_number
from simlink.generators.faults.fault import Context, Fault, Layout, OrderFault, _places
from simlink.generators.faults.times import later
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.paths import Parts, get_at, has_at, parts_of, put_at

__all__ = ["FieldFault", "clock_skew", "drift", "flap", "gap", "hot_key", "spike", "stuck", "wrong_type"]

Change: TypeAlias = tuple[int, Any, dict[str, Any]]
_NOTHING = object()
_MOST_SECONDS = 1e11
"""Three thousand years."""


class FieldFault(Fault):
    """Another value in a field."""

    def __init__(self, p: float, field: str | None, seed: int | None, **arguments: Any) -> None:
        super().__init__(p, seed, field=field, **arguments)
        self.field = field
        self._declared = False
        """Whether the source says that its records have it: perhaps later ones, where its schema evolves."""
        self.parts: Parts = () if field is None else parts_of(field)

    def check(self, names: Sequence[str] | None) -> None:
        self._declared = names is not None and self.field in names
        for field in (self.field, self._arguments.get("per")):
            if field is not None and names is not None and field not in names:
                name = field.partition(".")[0]
                if name not in names:
                    raise ConfigError(f"{self.name}: no field {field!r}{did_you_mean(name, names)}")

    def ready(self, context: Context) -> None:
        """Refuse a field that none of the source's first records has, or in none of which it can be changed.

        Where a later record has no such place (an element of a shorter list, another branch of a union, what an earlier
        fault made text of), it is left as it is.
        """
        super().ready(context)
        if self.field is None:
            return
        values = context.base(0)
        found = [has_at(value, self.parts) for value in values]
        if values and not self._declared and not any(there is not False for there in found):
            get_at(values[0], self.parts, self.name)
            raise ConfigError(f"{self.name}: none of the first records has {self.field!r}")
        there = [get_at(value, self.parts, self.name) for value, there in zip(values, found, strict=True) if there]
        self.fits([value for value in there if value is not None])

    def fits(self, values: list[Any]) -> None:
        """Raises ConfigError where none of these, of which none is None, can be changed."""

    def edit(self, context: Context, block: int, values: list[Any], layout: Layout) -> Iterator[Change]:
        """What is to stand in a block instead: (offset, record, detail)."""
        for at in self.hits(block, len(values)).tolist():
            if layout.alive[at] and has_at(values[at], self.parts):
                yield from self._edited(context, block, at, values[at])

    def _edited(self, context: Context, block: int, at: int, value: Any) -> Iterator[Change]:
        old = get_at(value, self.parts, self.name)
        new = self.change(context, old)
        if new is not _NOTHING:
            yield at, put_at(value, self.parts, new), {"field": self.field, "was": old}

    def change(self, context: Context, old: Any) -> Any:
        """The new value, or `_NOTHING`."""
        raise NotImplementedError


class _WrongType(FieldFault):
    name = "wrong_type"

    def _edited(self, context: Context, block: int, at: int, value: Any) -> Iterator[Change]:
        parts, field = self.parts, self.field
        if field is None:
            if not isinstance(value, Mapping) or not value:
                raise ConfigError(f"wrong_type: a {type(value).__name__} has no fields")
            names = list(value)
            name = names[int(self.draws(block, "field")[at]) % len(names)]
            parts, field = (name,), str(name)
        old = get_at(value, parts, self.name)
        yield at, put_at(value, parts, _other_type(old)), {"field": field, "was": old}


def _other_type(value: Any) -> Any:
    if value is None:
        return 0
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str | bytes):
        return [value]
    return json.dumps(value, default=str)


class _HotKey(FieldFault):
    name = "hot_key"

    def __init__(self, p: float, field: str, value: Any, seed: int | None) -> None:
        super().__init__(p, field, seed, value=value)
        self.value = value

    def change(self, context: Context, old: Any) -> Any:
        return get_at(context.first(), self.parts, self.name) if self.value is None else self.value


class _ClockSkew(FieldFault):
    name = "clock_skew"

    def __init__(self, p: float, by: float, field: str, per: str | None, seed: int | None) -> None:
        super().__init__(p, field, seed, by=by, per=per)
        if isinstance(by, bool) or not isinstance(by, int | float) or not 0 < abs(by) <= _MOST_SECONDS:
            raise ConfigError(f"clock_skew: by is a number of seconds, not 0, at most 1e11 either way, not {by!r}")
        self.by = float(by)
        self.per = None if per is None else parts_of(per)

    def fits(self, values: list[Any]) -> None:
        if values:
            try:
                for seconds in (self.by, -self.by) if self.per is not None else (self.by,):
                    later(values[0], seconds)
            except ConfigError as error:
                raise ConfigError(f"clock_skew: {self.field!r}: {error}") from None

    def edit(self, context: Context, block: int, values: list[Any], layout: Layout) -> Iterator[Change]:
        if self.per is None:
            yield from super().edit(context, block, values, layout)
            return
        import numpy as np

        # Whose clock it is stands in the record as it was made, whatever became of it since.
        who = [seeding.hash_value(get_at(value, self.per, self.name)) for value in context.base(block)]
        raw = seeding.hash_words(self._drawn_from, self._path, np.asarray(who, np.uint64))
        struck = seeding.to_uniform(raw) < self.p
        share = seeding.to_uniform(seeding.hash_words(self._drawn_from, f"{self._path}.by", np.asarray(who, np.uint64)))
        for at in np.flatnonzero(struck & layout.alive).tolist():
            if has_at(values[at], self.parts):
                seconds = round((2.0 * float(share[at]) - 1.0) * self.by, 3)
                yield from self._skewed(context, block, at, values[at], seconds, {"by": seconds})

    def _edited(self, context: Context, block: int, at: int, value: Any) -> Iterator[Change]:
        yield from self._skewed(context, block, at, value, self.by, {})

    def _skewed(
        self, context: Context, block: int, at: int, value: Any, seconds: float, more: dict[str, Any]
    ) -> Iterator[Change]:
        old = get_at(value, self.parts, self.name)
        if old is None:
            return
        try:
            new = later(old, seconds)
        except ConfigError:
            # An earlier fault may have made something of the time that is no time any more: it is left.
            if old == get_at(context.base(block)[at], self.parts, self.name):
                raise
            return
        yield at, put_at(value, self.parts, new), {"field": self.field, "was": old, **more}


class _Spike(FieldFault):
    name = "spike"

    def __init__(self, p: float, field: str, factor: float, seed: int | None) -> None:
        super().__init__(p, field, seed, factor=factor)
        self.factor = check_number("spike", "factor", factor)

    def fits(self, values: list[Any]) -> None:
        _numbers_among(values, self)

    def change(self, context: Context, old: Any) -> Any:
        return _arithmetic(old, lambda x: x * self.factor if x else self.factor)


def _numbers_among(values: list[Any], fault: FieldFault) -> None:
    if values and all(_arithmetic(value, lambda x: x) is _NOTHING for value in values):
        raise ConfigError(f"{fault.name}: {fault.field!r} is no number: {values[0]!r:.100}")


def _arithmetic(value: Any, function: Any) -> Any:
    """A number, or its text, changed in its own form; `_NOTHING` for what is no number, or what would be none."""
    if isinstance(value, str):
        try:
            number = function(float(value))
        except ValueError:
            return _NOTHING
        decimals = len(value.partition(".")[2])
        return f"{number:.{decimals}f}" if math.isfinite(number) else _NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _NOTHING
    changed = function(value)
    if not math.isfinite(changed):
        return _NOTHING
    if isinstance(value, int):
        return round(changed)
    decimals = len(repr(value).partition(".")[2]) if "e" not in repr(value) else 15
    return round(changed, max(decimals, 3))


class _Lasting:
    """Episodes: which records of a block are in one, and which of its episode they are."""

    def __init__(self, fault: Fault, per: str | None, length: int) -> None:
        self.per = None if per is None else parts_of(per)
        self.length = _places(fault.name, "length", length, 1)
        self.reach = -(-self.length // BLOCK_ROWS)

    def of(self, fault: Fault, context: Context, block: int, rows: int) -> Iterator[tuple[int, int, int, Any]]:
        """(offset, rows since it began, records of it before, the value that it began with)."""
        end = block * BLOCK_ROWS + rows
        for begun in range(max(0, block - self.reach), block + 1):
            there = context.base(begun)
            for at in fault.hits(begun, len(there)).tolist():
                first = begun * BLOCK_ROWS + at
                if first + self.length > block * BLOCK_ROWS:
                    yield from self._episode(fault, context, block, first, min(first + self.length, end))

    def _episode(self, fault: Fault, context: Context, block: int, first: int, stop: int) -> Iterator[Any]:
        start = context.base(first // BLOCK_ROWS)[first % BLOCK_ROWS]
        who = None if self.per is None else get_at(start, self.per, fault.name)
        count = 0
        for row in range(first, stop):
            if self.per is not None:
                value = context.base(row // BLOCK_ROWS)[row % BLOCK_ROWS]
                if get_at(value, self.per, fault.name) != who:
                    continue
            if row >= block * BLOCK_ROWS:
                yield row - block * BLOCK_ROWS, row - first, count, start
            count += 1


class _SensorFault(FieldFault):
    def __init__(self, p: float, field: str, per: str | None, length: int, seed: int | None, **more: Any) -> None:
        super().__init__(p, field, seed, **more, per=per, length=length)
        self.lasting = _Lasting(self, per, length)
        self.reach = self.lasting.reach

    def edit(self, context: Context, block: int, values: list[Any], layout: Layout) -> Iterator[Change]:
        done: set[int] = set()
        for at, since, count, start in self.lasting.of(self, context, block, len(values)):
            # Episodes may overlap; the earlier one has its way.
            if at in done or not layout.alive[at] or not has_at(values[at], self.parts):
                continue
            old = get_at(values[at], self.parts, self.name)
            new = self.during(old, since, count, start)
            if new is not _NOTHING:
                done.add(at)
                yield at, put_at(values[at], self.parts, new), {"field": self.field, "was": old}

    def during(self, old: Any, since: int, count: int, start: Any) -> Any:
        """The value within an episode."""
        raise NotImplementedError


class _Stuck(_SensorFault):
    name = "stuck"

    def during(self, old: Any, since: int, count: int, start: Any) -> Any:
        return get_at(start, self.parts, self.name) if since and old is not None else _NOTHING


class _Drift(_SensorFault):
    name = "drift"

    def __init__(self, p: float, field: str, by: float, per: str | None, length: int, seed: int | None) -> None:
        super().__init__(p, field, per, length, seed, by=by)
        self.by = _offset("drift", by)

    def fits(self, values: list[Any]) -> None:
        _numbers_among(values, self)

    def during(self, old: Any, since: int, count: int, start: Any) -> Any:
        return _arithmetic(old, lambda x: x + self.by * (since + 1) / self.lasting.length)


class _Flap(_SensorFault):
    name = "flap"

    def __init__(self, p: float, field: str, by: float, per: str | None, length: int, seed: int | None) -> None:
        super().__init__(p, field, per, length, seed, by=by)
        self.by = _offset("flap", by)

    def fits(self, values: list[Any]) -> None:
        _numbers_among(values, self)

    def during(self, old: Any, since: int, count: int, start: Any) -> Any:
        return _arithmetic(old, lambda x: x + self.by) if count % 2 == 0 else _NOTHING


def _offset(what: str, by: float) -> float:
    if isinstance(by, bool) or not isinstance(by, int | float) or not math.isfinite(by) or not by:
        raise ConfigError(f"{what}: by is a finite number, not 0, not {by!r}")
    return float(by)


class _Gap(OrderFault):
    name = "gap"

    def __init__(self, p: float, per: str | None, length: int, seed: int | None) -> None:
        super().__init__(p, seed, per=per, length=length)
        self.lasting = _Lasting(self, per, length)
        self.reach = self.lasting.reach
        self.reads = True

    def arrange(self, context: Context, block: int, layout: Layout) -> None:
        for at, _, _, _ in self.lasting.of(self, context, block, len(layout)):
            if layout.alive[at]:
                layout.alive[at] = False
                layout.marks.append((at, self.name, {}, False))


def wrong_type(p: float, field: str | None = None, seed: int | None = None) -> Fault:
    """In a share ``p`` of the records a field has a value of another type: numbers and booleans become their text,
    text a list that holds it, null 0, lists and records their JSON. A serializer that knows its types refuses it when
    it is sent (EncodeError); JSON does not.

    Args:
        p: the share.
        field: its name, with dots into nested records and numbers for elements of lists (``"datas.0.value"``); by
            default one of the record's own, drawn each time.
        seed: by default the source's.

    Raises:
        ConfigError: as for every fault of a field: ``p`` is not from 0 to 1, no such field, or no seed.
    """
    return _WrongType(p, field, seed)


def clock_skew(
    p: float = 1.0, by: float = 60.0, field: str = "timestamp", *, per: str | None = None, seed: int | None = None
) -> Fault:
    """Times are off. In a share ``p`` of the records by exactly ``by`` seconds; with ``per``, each of a share ``p`` of
    its values has a clock of its own, which is off by so many seconds between ``-by`` and ``by``, always the same.

    Args:
        p: the share of the records, or of the values of ``per``.
        by: seconds; negative is behind.
        field: the time: ISO 8601 text, a log's time, or a number of any unit since 1970. Its form is kept.
        per: the field that says whose clock it is.
        seed: by default the source's.

    Raises:
        ConfigError: as for every fault of a field, or ``by`` is 0 or not finite.
    """
    return _ClockSkew(p, by, field, per, seed)


def hot_key(p: float, field: str, value: Any = None, seed: int | None = None) -> Fault:
    """In a share ``p`` of the records the field has one and the same value; where it is the key, so has the key.

    Args:
        p: the share.
        field: its name.
        value: by default what the source's first record has there.
        seed: by default the source's.

    Raises:
        ConfigError: as for every fault of a field.
    """
    return _HotKey(p, field, value, seed)


def spike(p: float, field: str, factor: float = 10.0, seed: int | None = None) -> Fault:
    """In a share ``p`` a number is ``factor`` times what it should be (0 becomes ``factor``). Text that is a number
    stays text with as many decimals. What is no number is left, and not counted.

    Raises:
        ConfigError: as for every fault of a field, or the factor is not above 0.
    """
    return _Spike(p, field, factor, seed)


def stuck(p: float, field: str, *, per: str | None = None, length: int = 100, seed: int | None = None) -> Fault:
    """With probability ``p`` a record's value stays for those that follow.

    Args:
        p: the share of records at which an episode begins.
        field: its name.
        per: the field that says whose value it is, as a device's name; by default the whole stream is one.
        length: how many records of the stream an episode spans, 1 … 65,536.
        seed: by default the source's.

    Raises:
        ConfigError: as for every fault of a field, or a length out of its range.
    """
    return _Stuck(p, field, per, length, seed)


def drift(
    p: float, field: str, by: float, *, per: str | None = None, length: int = 1000, seed: int | None = None
) -> Fault:
    """With probability ``p`` an episode begins in which a number goes off in a straight line, up to ``by``, and then is
    right again. The other arguments are those of `stuck`.

    Raises:
        ConfigError: as for `stuck`, or ``by`` is 0 or not finite.
    """
    return _Drift(p, field, by, per, length, seed)


def flap(
    p: float, field: str, by: float, *, per: str | None = None, length: int = 100, seed: int | None = None
) -> Fault:
    """With probability ``p`` an episode begins in which every other number is off by ``by``. The other arguments are
    those of `stuck`.

    Raises:
        ConfigError: as for `stuck`, or ``by`` is 0 or not finite.
    """
    return _Flap(p, field, by, per, length, seed)


def gap(p: float, *, per: str | None = None, length: int = 100, seed: int | None = None) -> Fault:
    """With probability ``p`` an episode begins in which nothing is sent: of the whole stream, or with ``per`` of one
    of its values. The other arguments are those of `stuck`.

    Raises:
        ConfigError: as for `stuck`.
    """
    return _Gap(p, per, length, seed)

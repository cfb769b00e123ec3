"""The distribution of one column, found by looking at its values."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError
from simlink.generators.field import plain
from simlink.generators.fitting.calls import Call
from simlink.generators.fitting.gaps import gaps_law

__all__ = ["FEW", "Law", "canonical", "law_of"]

FEW = 20
"""Numbers with at most so many different values are categories."""
_POINTS = 257
_ROOM = 2**31
"""Rows that a sequence has to have ahead before it leaves 64 bits; otherwise it is none."""
_KEY_NAME = re.compile(r"(^|[_\W])(id|key|no|nr|code|uid|sku)$|Id$|ID$", re.IGNORECASE)
_TIME_NAME = re.compile(r"(^|[_\W])(timestamp|time|ts|date|datetime|at|when)$", re.IGNORECASE)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True)
class Law:
    """How the values of a column are drawn.

    Attributes:
        call: of the field.
        numeric: whether the values have an order that is drawn by inversion, so that it can be coupled to others.
        category: whether the same values come again, so that others may belong to them.
        order: numbers in the order of the values, one a row, NaN where there is none; of numeric ones.
    """

    call: Call
    numeric: bool = False
    category: bool = False
    order: tuple[float, ...] = ()


def canonical(value: Any) -> Any:
    """What tells a value from others of its column, hashable: 1, 1.0 and True are three."""
    if isinstance(value, str) or value is None:
        return value
    return (type(value).__name__, repr(value))


def law_of(name: str, values: Sequence[Any], *, key: bool | None, most: int) -> Law:
    """The law of the values that are there.

    Args:
        name: of the column.
        values: one a row, None where there is none; at least one is there.
        key: whether whole numbers are keys; None: as the column's name says.
        most: how many different values a table may have.

    Raises:
        ConfigError: a number that is not finite, or more different keys or texts than ``most``.
    """
    present = [v for v in values if v is not None]
    if not all(map(_finite, present)):
        raise ConfigError(f"fit: {name} holds a number that is not finite")
    kinds = {type(v) for v in present}
    distinct = Counter(map(canonical, present))
    if len(distinct) == 1:
        return Law(_moments(values) if isinstance(present[0], dt.datetime) else Call("fields.constant", (present[0],)))
    if kinds == {bool}:
        share = round(sum(present) / len(present), 6)
        # A boolean is True where its uniform number is small.
        order = _order([None if v is None else -float(v) for v in values])
        return Law(Call("fields.boolean", (share,)), numeric=True, category=True, order=order)
    if kinds <= {int, float}:
        return _numbers(name, values, present, key, most, len(distinct))
    if kinds == {dt.datetime}:
        return _times(values, "iso")
    if kinds == {str}:
        return _texts(name, values, present, distinct, most)
    return _pool(name, list(map(plain, present)), most)


def _finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _numbers(name: str, values: Sequence[Any], present: list[Any], key: bool | None, most: int, distinct: int) -> Law:
    whole = all(isinstance(v, int) for v in present)
    least, greatest = min(present), max(present)
    beyond = any(isinstance(v, int) and not -(2**63) <= v < 2**64 for v in (least, greatest))
    if beyond or least < 0 < 2**63 <= greatest:
        return _pool(name, present, most)  # no integers of 64 bits
    order = _order(values)
    if whole:
        steps = {b - a for a, b in itertools.pairwise(present)}
        if len(steps) == 1 and len(present) == len(values) and 0 not in steps:
            start, step = present[0], steps.pop()
            if start < 2**63 and -(2**63) <= start + step * _ROOM < 2**63:
                return Law(Call("fields.sequence", (start,), {} if step == 1 else {"step": step}))
        unit = _unit(present)
        if key is None and _TIME_NAME.search(name) and unit is not None:
            return _times([None if v is None else _instant(v / unit[1]) for v in values], unit[0])
        if key or (key is None and _KEY_NAME.search(name)):
            return _pool(name, present, most)
    if distinct <= FEW:
        counts = Counter(present)
        return Law(Call("fields.choice", ({v: counts[v] for v in sorted(counts)},)), True, True, order)
    if whole and not -(2**53) <= least <= greatest <= 2**53:
        return Law(Call("fields.integer", (least, greatest)), True, False, order)
    decimals = 0 if whole else _decimals(present)
    grid = np.quantile(np.array(present, np.float64), np.linspace(0, 1, min(_POINTS, len(present))))
    table = [float(v) for v in (grid if decimals is None else np.round(grid, min(decimals + 2, 15)))]
    if whole:
        table = [int(v) if v.is_integer() else v for v in table]
    call = Call("fields.quantiles", (table,), {} if decimals == 6 else {"decimals": decimals})
    return Law(call, True, False, order)


def _decimals(values: Sequence[float]) -> int | None:
    """The decimals that were seen; None for more than 15 and for numbers in powers of ten."""
    most = 0
    for value in values:
        text = repr(float(value))
        if "e" in text:
            digits, _, exponent = text.partition("e")
            seen = len(digits.partition(".")[2]) - int(exponent)
        else:
            seen = 0 if text.endswith(".0") else len(text.partition(".")[2])
        most = max(most, seen)
    # With 0 they would be whole numbers, which these are not.
    return None if most > 15 else max(most, 1)


def _texts(name: str, values: Sequence[Any], present: list[str], distinct: Counter[Any], most: int) -> Law:
    if all(_ISO.fullmatch(v) for v in present):
        times = _parsed(values)
        if times is not None:
            return _times(times, "iso")
    # Drawn texts may meet by chance, as those of the sample did.
    if len(present) > FEW and len(distinct) >= 0.98 * len(present):
        if all(map(_is_uuid, present)):
            return Law(Call("fields.uuid"))
        pattern = _pattern(present)
        if pattern is not None:
            return Law(Call("fields.text", (pattern,)))
    return _pool(name, present, most)


def _is_uuid(text: str) -> bool:
    try:
        return len(text) == 36 and str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _pattern(texts: Sequence[str]) -> str | None:
    """A pattern for `fields.text` that all of them follow and that has room for ten times as many."""
    if len({len(text) for text in texts}) != 1:
        return None
    cells, room = [], 1
    for letters in map(set, zip(*texts, strict=True)):
        if len(letters) == 1:
            letter = next(iter(letters))
            cells.append(f"\\{letter}" if letter in "#?^\\" else letter)
            continue
        for sign, allowed in (("#", "0123456789"), ("^", "0123456789abcdef"), ("?", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")):
            if letters <= set(allowed):
                cells.append(sign)
                room *= len(allowed)
                break
        else:
            return None
    return "".join(cells) if room >= 10 * len(texts) and "\0" not in cells else None


def _pool(name: str, present: list[Any], most: int) -> Law:
    """The values as often as they came, the most frequent first."""
    counts = Counter(map(canonical, present))
    if len(counts) > most:
        raise ConfigError(
            f"fit: {name} has {len(counts):,} different values, a table may have {most:,}: raise most=, or leave the "
            "field out with columns= and write one of your own"
        )
    first: dict[Any, Any] = {}
    for value in present:
        first.setdefault(canonical(value), value)
    ranked = sorted(first, key=lambda c: -counts[c])  # stable: those of equal rank as they came
    values, weights = [first[c] for c in ranked], [counts[c] for c in ranked]
    simple = all(isinstance(v, str | int) and not isinstance(v, bool) for v in values)
    if simple and len(values) <= 50:
        return Law(Call("fields.choice", (dict(zip(values, weights, strict=True)),)), category=True)
    even = len(set(weights)) == 1
    return Law(Call("fields.pool", (values,), {} if even else {"weights": weights}), category=simple and not even)


# --- times


def _parsed(values: Sequence[Any]) -> list[dt.datetime | None] | None:
    try:
        times = [None if v is None else dt.datetime.fromisoformat(v) for v in values]
    except ValueError:
        return None
    return [t if t is None or t.tzinfo else t.replace(tzinfo=dt.UTC) for t in times]


def _unit(values: Sequence[int]) -> tuple[str, float] | None:
    """What whole numbers count since 1970, if they are times from 1973 to 2128."""
    for format, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if all(1e8 <= v / scale < 5e9 for v in values):
            return format, scale
    return None


_START = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _instant(seconds: float) -> dt.datetime:
    return _START + dt.timedelta(seconds=seconds)


def _seconds(time: dt.datetime) -> float:
    return (time - _START).total_seconds()


_REGULAR = 0.9
"""The share of gaps that are the same in what is a regular recording with holes."""


def _times(values: Sequence[dt.datetime | None], format: str) -> Law:
    present = [v for v in values if v is not None]
    seconds = np.array([_seconds(v) for v in present])
    gaps = np.diff(seconds)
    if len(present) < len(values) or (gaps < 0).any() or seconds[-1] == seconds[0]:
        return Law(_moments(values, format), True, False, _order([None if v is None else _seconds(v) for v in values]))
    mean, spread = float(gaps.mean()), float(gaps.std())
    options: dict[str, Any] = {} if format == "ms" else {"format": format}
    start = present[0].astimezone(dt.UTC).isoformat()
    usual = float(np.median(gaps))
    if spread < 0.01 * mean:
        return Law(Call("fields.event_time", (start,), {"step": round(mean, 6), **options}))
    if usual > 0 and np.mean(np.abs(gaps - usual) < 0.01 * usual) >= _REGULAR:
        return Law(Call("fields.event_time", (start,), {"step": round(usual, 6), **options}))
    return Law(Call("fields.event_time", (start,), {"arrivals": gaps_law(gaps, _grain(seconds)), **options}))


def _moments(values: Sequence[Any], format: str = "iso") -> Call:
    present = sorted(v for v in values if v is not None)
    seconds = np.array([_seconds(v) for v in present])
    grain = _grain(seconds)
    table = np.quantile(seconds, np.linspace(0, 1, min(_POINTS, max(len(present), 2))))
    instants = [round(float(s), 6) for s in table]
    if grain == 1.0 or grain > 1:
        # The grain is cut off; half a one keeps the mean, and the last value in reach.
        instants[-1] = round(instants[-1] + grain / 2, 6)
    options: dict[str, Any] = {} if format == "ms" else {"format": format}
    return Call("fields.moment", tuple(instants), options if grain == 0.001 else {**options, "grain": grain})


def _grain(seconds: npt.NDArray[np.float64]) -> float:
    """What all of them are multiples of."""
    micros = np.round(seconds * 1e6).astype(np.int64)
    return next((g for g in (86_400.0, 3_600.0, 60.0, 1.0, 0.001) if (micros % round(g * 1e6) == 0).all()), 1e-6)


def _order(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(math.nan if v is None else float(v) for v in values)

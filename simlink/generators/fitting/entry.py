"""fit(): a generator that is like a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simlink.errors import ConfigError
from simlink.generators.fitting.calls import Call, is_keyword, render
from simlink.generators.fitting.joint import coupled, couplings, determinants, presence
from simlink.generators.fitting.laws import Law, canonical, law_of
from simlink.generators.fitting.sample import Columns, read_sample
from simlink.generators.record import Record

__all__ = ["Fitted", "fit"]


def fit(
    sample: Any,
    *,
    name: str | None = None,
    seed: int | None = None,
    keys: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    rows: int = 100_000,
    most: int = 10_000,
) -> Fitted:
    """A generator of records like those of a sample: `Fitted.source` prints it as Python, to be edited and run.

    What it takes over, of each column:

    - **numbers**: 257 quantiles, even between two of them, rounded to the decimals seen; of at most 20 different
      values, each as often as it was there;
    - **keys and categories** (texts; whole numbers whose name ends in id, key, no, nr, code, sku, or in ``keys``): the
      values, each as often as it was there, which is their rank and frequency;
    - **identifiers** (hardly a value twice): a sequence, UUIDs, or texts after a pattern; otherwise the values;
    - **times** (datetimes, ISO 8601 text, whole numbers since 1970 under a name such as ``timestamp``): where they
      ascend, a constant step (the usual one, where at most one gap in ten is another), or a Poisson process of the
      same rate, or gamma or Weibull gaps with the shape found where the sample speaks for these and against Poisson;
      otherwise quantiles. Texts come out in UTC;
    - None: as often, or with the values of another column where these decide;
    - nested records column by column; lists as the values they are.

    And between columns of one record:

    - what belongs to a key (one value a key, and not by chance) is looked up: `fields.ref`;
    - numbers, times and booleans that do not belong to a key keep their rank correlations, by a Gaussian copula:
      `fields.coupled`. Correlations of values with many ties come out somewhat weaker.

    What it does not: the order of records other than ascending times, gaps between times that depend on one another
    or on the hour, categories that go together without one deciding the other.

    Args:
        sample: a DataFrame, an iterable of dicts, a generator, a file (.csv, .ndjson, .jsonl, .log, also .gz), or what
            `replay` gives. A CSV's columns of numbers become numbers, its empty cells None.
        name: of the record; by default the file's.
        seed: as for `record`.
        keys: columns of whole numbers that are keys, not quantities.
        columns: those to take; all by default.
        rows: how many records are looked at, the first ones.
        most: how many different values a column of keys, categories or texts may have.

    Raises:
        ConfigError: the sample is empty, or all its records are the same; a number that is not finite; more different
            values than ``most``; ``keys`` or ``columns`` that are not there, columns of the same name; records that
            are no dicts; values that a record cannot hold.
        DecodeError: the file does not parse.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ConfigError(f"fit: rows is a number of records from 1 up, not {rows!r}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigError(f"fit: most is a number of different values from 1 up, not {most!r}")
    found, table = read_sample(sample, rows, columns)
    unknown = [key for key in keys if key not in table]
    if unknown:
        raise ConfigError(f"fit: the sample has no field {unknown[0]!r} for a key, it has {', '.join(table)}")
    length = len(next(iter(table.values())))
    if all(len(set(map(canonical, values))) == 1 for values in table.values()):
        raise ConfigError(f"fit: the sample is constant: its {length:,} records are all the same")
    calls = _record(table, frozenset(keys), most)
    return Fitted(name or found, calls, list(table), seed=seed)


class Fitted(Record):
    """A generator made by `fit`."""

    def __init__(self, name: str, calls: Mapping[str, Call], order: Sequence[str], *, seed: int | None = None) -> None:
        self._calls = dict(calls)
        shown = None if list(calls) == list(order) else list(order)
        super().__init__(name, {n: call.build() for n, call in calls.items()}, seed=seed, shown=shown)

    def source(self) -> str:
        """This generator as a Python module that makes it, under the name ``generator``: with the same seed, and the
        same records to the last bit."""
        parts = [(n, render(self._calls[n], 4)) for n in self._fields]
        if all(is_keyword(n) and n != "seed" for n, _ in parts):
            body = "".join(f"    {n}={text},\n" for n, text in parts)
        else:
            inner = "".join(f"        {n!r}: {render(self._calls[n], 8)},\n" for n, _ in parts)
            body = f"    {{\n{inner}    }},\n"
        after = ""
        if list(self._schema) != list(self._fields):
            after += f".select({', '.join(map(repr, self._schema))})"
        if self.length is not None:
            after += f".take({self.length})"
        return (
            "import simlink\nfrom simlink import fields\n\n"
            f"generator = simlink.record(\n    {self.name!r},\n{body}    seed={self.seed},\n){after}\n"
        )


def _record(table: Columns, keys: frozenset[str], most: int) -> dict[str, Call]:
    """The calls of a record's fields, in an order in which each refers to earlier ones."""
    laws: dict[str, Law] = {}
    calls: dict[str, Call] = {}
    for name, values in table.items():
        if any(isinstance(v, dict) for v in values) and all(v is None or isinstance(v, dict) for v in values):
            calls[name] = _nested([v for v in values if v is not None], most)
        elif all(v is None for v in values):
            calls[name] = Call("fields.constant", (None,))
        else:
            laws[name] = law_of(name, values, key=True if name in keys else None, most=most)
    belongs = determinants({n: table[n] for n in laws}, laws)
    free = [name for name in laws if name not in belongs]
    after: dict[str, str] = {}
    places: dict[str, tuple[str, list[Any]] | None] = {}
    for name in table:
        if name in belongs:
            key, lookup = belongs[name]
            calls[name], after[name] = Call("fields.ref", (key, lookup)), key
        elif None in table[name] and any(v is not None for v in table[name]):
            decided = places[name] = presence(name, table, laws)
            if decided:
                after[name] = decided[0]
    order = _ordered(list(table), after)
    weights = couplings([name for name in order if name in free], laws)
    for name in order:
        if name in free:
            calls[name] = coupled(laws[name].call, weights[name]) if name in weights else laws[name].call
        if name in places:
            missing = sum(v is None for v in table[name]) / len(table[name])
            decided = places[name]
            calls[name] = (
                Call("fields.when", (decided[0], decided[1], calls[name]))
                if decided
                else Call("fields.maybe", (calls[name], round(missing, 6)))
            )
    return {name: calls[name] for name in order}


def _nested(records: Sequence[Mapping[str, Any]], most: int) -> Call:
    names = dict.fromkeys(name for record in records for name in record)
    if not names:
        return Call("fields.constant", ({},))
    inner = _record({name: [record.get(name) for record in records] for name in names}, frozenset(), most)
    return Call("fields.record", (), inner)


def _ordered(names: Sequence[str], after: Mapping[str, str]) -> list[str]:
    """The names as they are, but each behind the one that it refers to."""
    out: dict[str, None] = {}

    def put(name: str) -> None:
        if name not in out:
            if name in after:
                put(after[name])
            out[name] = None

    for name in names:
        put(name)
    return list(out)

"""What the first records of a generator are like, field by field."""

from __future__ import annotations

import datetime as dt
import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simlink.block import FieldType, Kind
from simlink.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

    from simlink.generators.generator import Generator

__all__ = ["Description", "FieldStatistics", "describe", "flat_columns", "flat_fields"]

_TOP = 3


@dataclass(frozen=True, slots=True)
class FieldStatistics:
    """One field. Of lists the statistics are those of their lengths; their elements, of all records together, are a
    field of their own.

    Attributes:
        field: its name; dots go into records inside, ``[]`` stands for the elements of a list.
        type: as ``int``, ``str``, ``list``.
        missing: the share of None.
        distinct: how many different values.
        mean, std, min, p05, median, p95, max: of numbers; None otherwise.
        top: the most frequent values and their shares among those that are there.
    """

    field: str
    type: str
    missing: float
    distinct: int
    mean: float | None
    std: float | None
    min: float | None
    p05: float | None
    median: float | None
    p95: float | None
    max: float | None
    top: tuple[tuple[Any, float], ...]


class Description:
    """Statistics of some records, a line a field: text in a terminal, HTML in a notebook. Iterating gives the fields.

    Attributes:
        fields: `FieldStatistics` by name.
        rows: how many records were looked at.
    """

    def __init__(self, name: str, seed: int | None, rows: int, fields: Mapping[str, FieldStatistics]) -> None:
        self.name, self.seed, self.rows, self.fields = name, seed, rows, dict(fields)

    def __iter__(self) -> Iterator[FieldStatistics]:
        return iter(self.fields.values())

    def __getitem__(self, name: str) -> FieldStatistics:
        return self.fields[name]

    def to_pandas(self) -> pd.DataFrame:
        """The same as a DataFrame, one row a field.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra("to_pandas", "dataframe", package="pandas") from error
        return pd.DataFrame([asdict(field) for field in self]).set_index("field")

    def _title(self) -> str:
        return f"{self.name} · seed {self.seed} · {self.rows:,} records"

    def _table(self) -> list[list[str]]:
        head = [
            "field",
            "type",
            "missing",
            "distinct",
            "mean",
            "std",
            "min",
            "5 %",
            "median",
            "95 %",
            "max",
            "most frequent",
        ]
        body = [
            [
                f.field, f.type, f"{f.missing:.1%}" if f.missing else "", f"{f.distinct:,}",
                *map(_number, (f.mean, f.std, f.min, f.p05, f.median, f.p95, f.max)),
                ", ".join(f"{str(value)[:24]} {share:.1%}" for value, share in f.top),
            ]
            for f in self
        ]  # fmt: skip
        return [head, *body]

    def __str__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        left = (0, 1, len(widths) - 1)
        lines = [
            "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in table
        ]
        return "\n".join([self._title(), *(line.rstrip() for line in lines)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._table()
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>" for row in body)
        return (
            f"<table><caption>{html.escape(self._title())}</caption><thead><tr>"
            f"{''.join(f'<th>{html.escape(c)}</th>' for c in head)}</tr></thead><tbody>{rows}</tbody></table>"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.6g}"


def describe(generator: Generator, n: int) -> Description:
    """See `Generator.describe`."""
    columns, rows = flat_columns(generator, n)
    fields = {name: _statistics(name, kind, values) for name, (kind, values) in columns.items()}
    return Description(generator.name, generator.seed, rows, fields)


def flat_columns(generator: Generator, n: int) -> tuple[dict[str, tuple[FieldType, list[Any]]], int]:
    """The first ``n`` records as one list of values a field, records inside taken apart; and how many they are.

    Raises:
        ConfigError: ``n`` is not an integer from 1 up, or there are no records.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"expected a number of records from 1 up, not {n!r}")
    out: dict[str, tuple[FieldType, list[Any]]] = {}
    rows = 0
    for block in generator.blocks(0, n):
        rows += len(block)
        for name, kind in generator.schema.fields.items():
            # Where a schema evolves, some blocks do not have a field: it is missing there.
            column = block.columns.get(name)
            _take_apart(out, name, kind, [None] * len(block) if column is None else column.tolist())
    if not rows:
        raise ConfigError(f"{generator.name} has no records")
    return out, rows


def _take_apart(out: dict[str, tuple[FieldType, list[Any]]], name: str, kind: FieldType, values: list[Any]) -> None:
    if kind.kind is Kind.RECORD and kind.fields is not None:
        for inner, type_ in kind.fields.fields.items():
            _take_apart(out, f"{name}.{inner}", type_, [None if v is None else v[inner] for v in values])
        return
    out.setdefault(name, (kind, []))[1].extend(values)
    if kind.kind is Kind.LIST and kind.item is not None:
        _take_apart(out, f"{name}[]", kind.item, [element for v in values if v is not None for element in v])


def flat_fields(name: str, kind: FieldType) -> Iterator[tuple[str, FieldType]]:
    """The names and types under which `flat_columns` gives a field."""
    if kind.kind is Kind.RECORD and kind.fields is not None:
        for inner, type_ in kind.fields.fields.items():
            yield from flat_fields(f"{name}.{inner}", type_)
        return
    yield name, kind
    if kind.kind is Kind.LIST and kind.item is not None:
        yield from flat_fields(f"{name}[]", kind.item)


def _statistics(name: str, kind: FieldType, values: list[Any]) -> FieldStatistics:
    present = [v for v in values if v is not None]
    known = present if kind.kind not in (Kind.LIST, Kind.ANY, Kind.RECORD) else list(map(repr, present))
    counts = Counter(known)
    numbers = numbers_of(kind, present)
    stats: list[float | None] = [None] * 7
    if numbers is not None and len(numbers):
        quantiles = np.quantile(numbers, [0, 0.05, 0.5, 0.95, 1])
        stats = [float(v) for v in (numbers.mean(), numbers.std(), *quantiles)]
    repeated = len(counts) < len(present) or len(counts) == 1
    top = tuple((v, c / len(present)) for v, c in counts.most_common(_TOP)) if repeated else ()
    missing = 1 - len(present) / len(values) if values else 0.0
    mean, std, low, p05, median, p95, high = stats
    return FieldStatistics(name, kind.kind.value, missing, len(counts), mean, std, low, p05, median, p95, high, top)


def numbers_of(kind: FieldType, present: list[Any]) -> Any:
    """The values as an array of doubles (of lists their lengths), where they are numbers."""
    if kind.kind in (Kind.INT, Kind.UINT, Kind.FLOAT):
        return np.array(present, np.float64)
    if kind.kind is Kind.LIST:
        return np.array(list(map(len, present)), np.float64)
    return None


def times_of(name: str, present: list[Any]) -> Any:
    """The values in seconds since 1970, where they are times: ISO 8601 text, or whole numbers under such a name."""
    if not present:
        return None
    if all(isinstance(v, str) and len(v) >= 19 and v[4:5] == "-" and v[10:11] in "T " for v in present):
        try:
            return np.array([dt.datetime.fromisoformat(v).timestamp() for v in present])
        except ValueError:
            return None
    last = name.rpartition(".")[2].lower()
    if last.endswith(("time", "timestamp", "ts", "_at")) and all(type(v) is int for v in present):
        for scale in (1e0, 1e3, 1e6):
            if all(1e8 <= v / scale < 5e9 for v in present):
                return np.array(present) / scale
    return None

"""A sample as columns of plain values."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simlink.errors import ConfigError, DecodeError
from simlink.generators.field import plain

__all__ = ["Columns", "read_sample"]

Columns = dict[str, list[Any]]
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_REAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


def read_sample(sample: Any, rows: int, columns: Sequence[str] | None) -> tuple[str, Columns]:
    """The sample's name, and one list of plain values (datetimes stay such, None where there is none) a field.

    Raises:
        ConfigError: it is no sample, is empty, or has no field of one of these names.
    """
    name, table = _table(sample, rows)
    if columns is not None:
        unknown = [c for c in columns if c not in table]
        if unknown:
            raise ConfigError(f"fit: the sample has no field {unknown[0]!r}, it has {', '.join(table)}")
        table = {c: table[c] for c in columns}
    if not table or not next(iter(table.values())):
        raise ConfigError("fit: the sample is empty")
    return name, table


def _table(sample: Any, rows: int) -> tuple[str, Columns]:
    from simlink.generators.generator import Generator
    from simlink.generators.replay.replay import Replay, replay

    if hasattr(sample, "iloc") and hasattr(sample, "columns"):
        frame = sample.iloc[:rows]
        names = list(map(str, frame.columns))
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise ConfigError(f"fit: {names.count(twice)} columns have the name {twice!r}: rename all but one")
        return "sample", {name: _of_series(name, frame.iloc[:, i]) for i, name in enumerate(names)}
    if isinstance(sample, Generator):
        return sample.name, _transposed(sample.take(rows))
    given = sample
    if isinstance(sample, str | os.PathLike):
        sample = replay(sample)
    if isinstance(sample, Replay):
        try:
            table = _transposed(itertools.islice(sample, rows))
        except DecodeError as error:
            if given is sample:
                raise
            hint = f"fit(simlink.replay({os.fspath(given)!r}, on_error='skip')) leaves such lines out"
            raise DecodeError(f"{error}; {hint}") from error
        return Path(sample.name).name.split(".")[0] or "sample", _typed(table) if sample.format == "csv" else table
    if isinstance(sample, Iterable) and not isinstance(sample, Mapping | bytes):
        return "sample", _transposed(itertools.islice(sample, rows))
    what = type(sample).__name__
    raise ConfigError(f"fit: a sample is a DataFrame, records as dicts, or a recorded file, not {what}")


def _of_series(name: str, series: Any) -> list[Any]:
    missing = series.isna().tolist()
    return [None if gone else _plain(name, v) for v, gone in zip(series.tolist(), missing, strict=True)]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.datetime64):
        value = value.astype("M8[us]").item()
    if isinstance(value, dt.datetime):
        value = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
        return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    try:
        return plain(value)
    except ConfigError as error:
        raise ConfigError(f"fit: {name}: {error}") from None


def _transposed(records: Iterable[Any]) -> Columns:
    table: Columns = {}
    count = 0
    for record in records:
        if not isinstance(record, Mapping):
            raise ConfigError(f"fit: record {count} is no dict: {record!r:.200}")
        for name, value in record.items():
            column = table.setdefault(str(name), [])
            # A field that comes first in a later record was not there before.
            column.extend(itertools.repeat(None, count - len(column)))
            column.append(_plain(str(name), value))
        count += 1
    for column in table.values():
        column.extend(itertools.repeat(None, count - len(column)))
    return table


def _typed(table: Columns) -> Columns:
    """A CSV's columns of numbers as numbers; its empty cells as None."""
    out: Columns = {}
    for name, texts in table.items():
        cells = [None if text == "" else text for text in texts]
        present = [c for c in cells if c is not None]
        for pattern, kind in ((_WHOLE, int), (_REAL, float)):
            if present and all(pattern.fullmatch(c) for c in present):
                cells = [None if c is None else kind(c) for c in cells]
                break
        out[name] = cells
    return out

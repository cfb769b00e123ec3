"""Requests as lines of the Combined Log Format."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from simlink.block import Block, Coded, Column, FieldType, Kind, Lines, Masked, Pool, Schema
from simlink.generators.field import Bound, Context, Field, Scope, object_array
from simlink.generators.generator import Generator
from simlink.generators.preview import Preview
from simlink.generators.record import Record
from simlink.generators.sessions import Part
from simlink.generators.texts import codepoints, to_texts

__all__ = ["CombinedLog", "LogTime"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_LETTERS = np.stack([codepoints(month) for month in _MONTHS])
_ISO = codepoints("0000-00-00T00:00:00+00:00")
_CLF = codepoints("00/Jan/0000:00:00:00 +0000] \"")


class LogTime(Field):
    """When it was asked for, as `simlink.replay` reads it from a log: whole seconds, ISO 8601, offset +00:00."""

    def needs(self) -> Iterator[str]:
        yield "visit"

    def bind(self, scope: Scope) -> Bound:
        at = Part("visit", "at").bind(scope)

        def make(context: Context) -> Column:
            seconds, codes = np.unique(np.asarray(at.make(context)) // 1_000_000, return_inverse=True)
            letters = np.tile(_ISO, (len(seconds), 1))
            letters[:, :19] = _digits(seconds)
            return Coded(codes, Pool(to_texts(letters).tolist()))

        return Bound(FieldType(Kind.STR), make)


def _digits(seconds: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Seconds since 1970 UTC → the letters of ``YYYY-MM-DDTHH:MM:SS``."""
    texts = np.datetime_as_string(seconds.astype("datetime64[s]"))
    return np.ascontiguousarray(texts.astype("<U19")).view("<u4").reshape(-1, 19)


def _log_times(texts: list[str]) -> npt.NDArray[np.object_]:
    """``2025-01-31T12:00:00+00:00`` → ``31/Jan/2025:12:00:00 +0000] "``."""
    iso = np.array(texts, "<U25").view("<u4").reshape(-1, 25)
    letters = np.tile(_CLF, (len(texts), 1))
    month = (iso[:, 5] - ord("0")) * 10 + (iso[:, 6] - ord("0")) - 1
    letters[:, 0:2], letters[:, 3:6] = iso[:, 8:10], _MONTH_LETTERS[month]
    letters[:, 7:11], letters[:, 12:20] = iso[:, 0:4], iso[:, 11:19]
    return to_texts(letters)


class CombinedLog(Generator):
    """The requests of `access_log`, one line of text each: ``g[i]`` is str.

    Attributes:
        requests: the same requests as records.
    """

    def __init__(self, requests: Record) -> None:
        super().__init__(requests.name, requests.seed)
        self.requests = requests
        self._schema = Schema(requests.name, {"line": FieldType(Kind.STR)})

    @property
    def schema(self) -> Schema:
        return self._schema

    def make_block(self, k: int) -> Lines:
        block = self.requests.make_block(k)
        return Lines(self._schema, _lines(block), block)

    def with_seed(self, seed: int | None) -> Self:
        other = super().with_seed(seed)
        other.requests = self.requests.with_seed(other.seed)
        return other

    def preview(self, n: int = 5) -> Preview:
        rows: list[Any] = self[: n if self.length is None else min(n, self.length)]
        return Preview(self.name, self.seed, ["line"], [{"line": line} for line in rows])


def _lines(block: Block) -> list[str]:
    """All lines of a block in one text, which is then cut: no line is put together by itself."""
    columns = block.columns
    times = columns["timestamp"]
    assert isinstance(times, Coded)
    parts = [
        _with(columns["address"], "", " - - ["),
        _log_times(times.pool.values)[times.codes].tolist(),
        _with(columns["method"], "", " "),
        _with(columns["path"], "", " "),
        _with(columns["protocol"], "", '" '),
        _numbers(columns["status"]),
        _numbers(columns["bytes"]),
        _with(columns["referer"], '"', '" "'),
        _with(columns["agent"], "", '"\n'),
    ]
    return "".join(chain.from_iterable(zip(*parts, strict=True))).split("\n")[:-1]


def _with(column: Column, before: str, after: str) -> list[str]:
    """The texts of a column with what stands around them, which is made once for each value of the pool."""
    assert isinstance(column, Coded)
    ready = column.pool.cache.get("combined")
    if ready is None:
        ready = object_array([f"{before}{value}{after}" for value in column.pool.values])
        column.pool.cache["combined"] = ready
    texts: list[str] = ready[column.codes].tolist()
    return texts


def _numbers(column: Column) -> list[str]:
    if isinstance(column, Masked):
        texts = object_array(_numbers(column.values))  # noqa: PD011 – a column of ours, not a DataFrame
        texts[~column.present] = "- "
        out: list[str] = texts.tolist()
        return out
    return [f"{number} " for number in column.tolist()]

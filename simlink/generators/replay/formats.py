"""The formats that can be replayed: CSV, NDJSON and the Combined Log Format.

A format is a generator over batches of lines. It yields ``(values, bad)`` for what was complete so far: the records in
order, and the lines that do not parse, each with the number of records before it in ``values``.
"""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from simlink.errors import DecodeError
from simlink.generators.replay.lines import BadLine, CutLine, Lines

__all__ = ["FORMATS", "Parsed", "log_time", "parse_clf", "parse_csv", "parse_ndjson"]

Parsed: TypeAlias = "tuple[list[Any], list[tuple[int, BadLine]]]"

_TOO_LONG = "the line is too long"
_NOT_UTF8 = "not UTF-8"

_json = msgspec.json.Decoder()


def parse_ndjson(batches: Iterable[Lines]) -> Iterator[Parsed]:
    """One JSON value a line, kept exactly: nested objects, the order of keys, integers of any size; other numbers have
    the value of the nearest double (and a line with one beyond the doubles does not parse), and of a key that stands
    twice in one object the last value stays, as in most JSON readers. Lines of white space hold no record."""
    for batch in batches:
        if batch.cut:
            yield _each(batch, _json_value)
            continue
        try:
            # In one go, while nothing is wrong; not as one text, in which two values might share a line.
            decode = _json.decode
            yield [decode(line) for line in batch.lines if line], []
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield _each(batch, _json_value)


def _json_value(line: bytes) -> Any:
    try:
        return _json.decode(line)
    except UnicodeDecodeError:
        raise ValueError(_NOT_UTF8) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _each(batch: Lines, parse: Callable[[bytes], Any]) -> Parsed:
    """Line by line; ``parse`` says what is wrong with one by a ValueError."""
    values: list[Any] = []
    bad: list[tuple[int, BadLine]] = []
    for number, line in enumerate(batch.lines, batch.first):
        try:
            if type(line) is CutLine:
                raise ValueError(_TOO_LONG)
            if line and not line.isspace():
                values.append(parse(line))
        except ValueError as error:
            bad.append((len(values), BadLine.of(number, line, str(error))))
    return values, bad


_COMBINED = re.compile(
    r"(?P<address>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>[^\]]+)\] "
    r'"(?P<request>[^"\\]*+(?:\\.[^"\\]*+)*+)" (?P<status>\d{3}) (?P<bytes>\d+|-) '
    r'"(?P<referer>[^"\\]*+(?:\\.[^"\\]*+)*+)" "(?P<agent>[^"\\]*+(?:\\.[^"\\]*+)*+)"\s*'
)
_REQUEST = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (\S+) (HTTP/\d(?:\.\d)?)")  # the method is a token of RFC 9110
_TIME = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d)")
_MONTHS = {
    name: f"{number:02d}"
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}


def parse_clf(batches: Iterable[Lines]) -> Iterator[Parsed]:
    """The Combined Log Format of Apache and nginx:
    ``address ident user [17/May/2015:10:05:03 +0000] "GET /path HTTP/1.1" 200 1234 "referer" "agent"``.

    A record has ``address``, ``ident``, ``user``, ``timestamp`` (ISO 8601 with the log's offset), ``method``,
    ``path``, ``protocol``, ``request``, ``status`` (int), ``bytes`` (int, or None for ``-``), ``referer`` and
    ``agent``. Texts are as they stand in the line, ``-`` and escapes included. Where the request is not
    ``method path protocol``, these three are None and ``request`` is the raw text; otherwise ``request`` is None."""
    for batch in batches:
        yield _each(batch, _log_record)


def _log_record(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ValueError(_NOT_UTF8) from None
    match = _COMBINED.fullmatch(text)
    if match is None:
        raise ValueError("not the Combined Log Format")
    address, ident, user, time, request, status, size, referer, agent = match.groups()
    parts = _REQUEST.fullmatch(request)
    method, path, protocol = parts.groups() if parts else (None, None, None)
    return {
        "address": address,
        "ident": ident,
        "user": user,
        "timestamp": log_time(time),
        "method": method,
        "path": path,
        "protocol": protocol,
        "request": None if parts else request,
        "status": int(status),
        "bytes": None if size == "-" else int(size),
        "referer": referer,
        "agent": agent,
    }


@lru_cache(maxsize=8192)  # a busy log has many lines a second
def log_time(text: str) -> str:
    """``17/May/2015:10:05:03 +0000`` → ``2015-05-17T10:05:03+00:00``.

    Raises:
        ValueError: it is no such time.
    """
    match = _TIME.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        raise ValueError(f"{text!r} is not a log's time")
    day, month, year, clock, hours, minutes = match.groups()
    iso = f"{year}-{_MONTHS[month]}-{day}T{clock}{hours}:{minutes}"
    dt.datetime.fromisoformat(iso)  # refuses the 31st of February and 25 o'clock
    return iso


class _Feed:
    """Lines for `csv.reader`, which asks for more where a quoted value goes on; remembers which it took."""

    def __init__(self, batches: Iterable[Lines]) -> None:
        self._batches = iter(batches)
        self._waiting: Iterator[tuple[int, bytes]] = iter(())
        self.left = 0
        self.taken: list[tuple[int, bytes]] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        while not self.left:
            batch = next(self._batches)
            self._waiting = iter(enumerate(batch.lines, batch.first))
            self.left = len(batch.lines)
        self.left -= 1
        number, line = next(self._waiting)
        self.taken.append((number, line))
        return line.decode("utf-8", "surrogateescape") + "\n"


def parse_csv(batches: Iterable[Lines]) -> Iterator[Parsed]:
    """Comma-separated values (RFC 4180) with a header: a record has the header's names in its order, and the values as
    text, as they stand. Empty lines hold no record.

    Raises:
        DecodeError: the header does not parse, or names a column twice.
    """
    feed = _Feed(batches)
    rows = csv.reader(feed, strict=True)
    header: list[str] | None = None
    values: list[Any] = []
    bad: list[tuple[int, BadLine]] = []
    while True:
        if not feed.left and (values or bad):
            yield values, bad
            values, bad = [], []
        feed.taken.clear()
        reason, row = "", []
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            reason = str(error)
        if not reason:
            if not row:
                continue
            reason = _row_fault(row, feed.taken, header)
        if header is None:
            if reason or len(set(row)) != len(row):
                raise DecodeError(f"line 1 is not a header of distinct names: {row!r}", body=feed.taken[0][1])
            header = row
        elif reason:
            number = feed.taken[0][0]
            text = b"\n".join(line for _, line in feed.taken)
            bad.append((len(values), BadLine.of(number, text, reason)))
        else:
            values.append(dict(zip(header, row, strict=True)))
    if values or bad:
        yield values, bad


def _row_fault(row: list[str], taken: list[tuple[int, bytes]], header: list[str] | None) -> str:
    """What is wrong with a row that the reader could take apart, or nothing."""
    if header is not None and len(row) != len(header):
        return f"{len(row)} values for {len(header)} columns"
    for _, line in taken:
        if type(line) is CutLine:
            return _TOO_LONG
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError:
                return _NOT_UTF8
    return ""


FORMATS: dict[str, Callable[[Iterable[Lines]], Iterator[Parsed]]] = {
    "csv": parse_csv,
    "ndjson": parse_ndjson,
    "clf": parse_clf,
}

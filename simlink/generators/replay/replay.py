"""replay(): the records of a file as a source, with the pace at which they were recorded."""

from __future__ import annotations

import datetime as dt
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np

from simlink.errors import ConfigError, DecodeError, StateError, did_you_mean
from simlink.generators.arrivals.schedule import Arrivals, Seconds, check_speed
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.fields.times import to_microseconds
from simlink.generators.replay.formats import FORMATS, Parsed
from simlink.generators.replay.lines import BadLine, open_file, read_lines
from simlink.generators.source import Chunk, Source, check_range, field_of

__all__ = ["BadLine", "Replay", "replay"]

_SUFFIXES: Final = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".log": "clf"}
_TIME_NAMES: Final = ("timestamp", "@timestamp", "time", "ts", "datetime", "event_time", "date")
KEPT_BAD_LINES: Final = 100


def replay(
    file: str | os.PathLike[str] | BinaryIO,
    *,
    format: Literal["csv", "ndjson", "clf"] | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    timestamp: str | Callable[[Any], Any] | None = None,
    on_bad_line: Callable[[BadLine], None] | None = None,
) -> Replay:
    """The records of a file, in their order, read as they are needed.

    - CSV: the columns in their order, values as text, as they stand.
    - NDJSON: any JSON value a line; nested objects, the order of keys and integers of any size are kept exactly.
    - CLF, the Combined Log Format: named fields; see `simlink.generators.replay.formats.parse_clf`.

    Args:
        file: a path (``.gz`` is decompressed), or an open binary stream, which is read once.
        format: ``"csv"``, ``"ndjson"`` or ``"clf"``; by default what the suffix says (.csv, .ndjson, .jsonl, .log).
        on_error: at a line that does not parse ``"stop"`` raises a DecodeError with its number and text, after the
            records before it; ``"skip"`` counts and reports it (`Replay.bad_lines`, ``on_bad_line``) and goes on.
        timestamp: where a record has its time, for `Replay.arrivals`: the name of a field (dots go into nested objects)
            or a function record → time. By default the first field there is of timestamp, @timestamp, time, ts,
            datetime, event_time, date.
        on_bad_line: called with every line that is skipped, once.

    Raises:
        ConfigError: the file cannot be read, an unknown format, or none that the suffix tells.
    """
    return Replay(file, format=format, on_error=on_error, timestamp=timestamp, on_bad_line=on_bad_line)


class Replay(Source):
    """The records of a file; see `replay`. Iterating gives them one by one.

    Attributes:
        format: ``"csv"``, ``"ndjson"`` or ``"clf"``.
        bad_lines: the lines that did not parse so far, at most the first 100 of them.
        bad_count: how many lines did not parse so far. A line counts once, however often the file is read.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | BinaryIO,
        *,
        format: str | None = None,
        on_error: str = "stop",
        timestamp: str | Callable[[Any], Any] | None = None,
        on_bad_line: Callable[[BadLine], None] | None = None,
    ) -> None:
        self._stream: BinaryIO | None = None
        self._path: Path | None = None
        if isinstance(file, str | os.PathLike):
            self._path = Path(file)
            open_file(self._path).close()
            self.name = self._path.name
        elif callable(getattr(file, "read", None)):
            self._stream = file
            self.name = str(getattr(file, "name", "stream"))
        else:
            raise ConfigError(f"replay: a file is a path or an open binary stream, not {file!r}")
        self.format = self._format(format)
        if on_error not in ("stop", "skip"):
            raise ConfigError(f"replay: on_error is 'stop' or 'skip', not {on_error!r}")
        self.on_error = on_error
        if timestamp is not None and not isinstance(timestamp, str) and not callable(timestamp):
            raise ConfigError(f"replay: timestamp is a field's name or a function of the record, not {timestamp!r}")
        self._timestamp = timestamp
        self._on_bad_line = on_bad_line
        self.seekable = self._path is not None
        self.bad_lines: list[BadLine] = []
        self.bad_count = 0
        self._last_bad = 0
        self._schedule: _Tape | None = None

    def _format(self, format: str | None) -> str:
        if format is not None:
            if format not in FORMATS:
                raise ConfigError(f"replay: unknown format {format!r}{did_you_mean(str(format), FORMATS)}")
            return format
        suffixes = [] if self._path is None else [s for s in self._path.suffixes if s != ".gz"]
        found = _SUFFIXES.get(suffixes[-1]) if suffixes else None
        if found is None:
            known = ", ".join(f"{suffix} is {name}" for suffix, name in _SUFFIXES.items())
            raise ConfigError(f"replay: say format= of {self.name}: {', '.join(FORMATS)} ({known})")
        return found

    def _batches(self) -> Generator[Parsed, None, None]:
        """One pass over the file."""
        if self._path is not None:
            stream = open_file(self._path)
        elif self._stream is not None:
            stream, self._stream = self._stream, None
        else:
            raise StateError(f"{self.name}: a stream is read once; give a path to read it again")
        try:
            yield from FORMATS[self.format](read_lines(stream))
        except (OSError, EOFError) as error:
            raise DecodeError(f"{self.name}: cannot be read on: {error}") from error
        finally:
            if self._path is not None:
                stream.close()

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Chunk]:
        """As `Source.chunks`. A row is a record: lines that do not parse are not counted.

        Raises:
            DecodeError: (while iterating) a line does not parse and ``on_error`` is ``"stop"``.
        """
        return self._chunks(start, stop, check_range(start, stop, size_hint))

    def _chunks(self, start: int, stop: int | None, size: int) -> Iterator[list[Any]]:
        row = 0
        if stop == 0:
            return
        with closing(self._records()) as runs:
            for values in runs:
                low = max(0, start - row)
                high = len(values) if stop is None else min(len(values), stop - row)
                for first in range(low, high, size):
                    yield values[first : min(first + size, high)]
                row += len(values)
                if stop is not None and row >= stop:
                    return

    def _records(self) -> Generator[list[Any], None, None]:
        """Runs of records; bad lines are reported between them."""
        with closing(self._batches()) as batches:
            for values, bad in batches:
                done = 0
                for before, line in bad:
                    if self.on_error == "skip":
                        self._report(line)
                        continue
                    if before > done:
                        yield values[done:before]
                    self._report(line)
                    text = line.text if len(line.text) <= 200 else line.text[:200] + "…"
                    raise DecodeError(
                        f"{self.name}: line {line.line} does not parse ({line.reason}): {text}", body=line.text.encode()
                    )
                if len(values) > done:
                    yield values

    def _report(self, line: BadLine) -> None:
        if line.line <= self._last_bad:
            return
        self._last_bad = line.line
        self.bad_count += 1
        if len(self.bad_lines) < KEPT_BAD_LINES:
            self.bad_lines.append(line)
        if self.on_error == "skip" and self._on_bad_line is not None:
            self._on_bad_line(line)

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.chunks():
            yield from chunk

    def arrivals(self, speed: float = 1.0) -> Arrivals:
        """The recorded schedule: a record is due ``(its time - the first one's) / speed`` seconds after the start, or
        at once where a record before it is due later. So a negative gap is sent at once (and counted in
        ``negative_gaps``), and the whole takes as long as it did. The file is read a second time, beside the records.

        Times are ISO 8601 text (without a zone: UTC), datetimes, or numbers since 1970 in seconds (below 1e11),
        milliseconds (below 1e14), microseconds (below 1e17) or nanoseconds.

        Raises:
            ConfigError: a bad speed, a stream (it cannot be read twice), or no field that has the time.
            DecodeError: (while it is asked for) a time that cannot be read.
        """
        speed = check_speed(speed)
        if self._path is None:
            raise ConfigError(f"{self.name}: the recorded pace needs a file: a stream cannot be read a second time")
        self._schedule = _Tape(self, speed)
        return self._schedule

    def arrivals_of(self, speed: float = 1.0) -> Arrivals:
        return self.arrivals(speed)

    @property
    def negative_gaps(self) -> int:
        """How often time stepped back in the part of the latest `arrivals` that was asked for so far."""
        return 0 if self._schedule is None else self._schedule.negative_gaps

    def _times(self) -> Generator[list[float], None, None]:
        """The times of the records in seconds, in runs, up to where the records stop."""
        where = self._timestamp
        with closing(self._batches()) as batches:
            row = 0
            for values, bad in batches:
                end = bad[0][0] if bad and self.on_error == "stop" else len(values)
                if where is None and end:
                    where = self._find_time(values[0])
                times = []
                for value in values[:end]:
                    assert where is not None
                    times.append(_seconds(where(value) if callable(where) else field_of(value, where), row, self.name))
                    row += 1
                yield times
                if end < len(values) or (bad and self.on_error == "stop"):
                    return

    def _find_time(self, record: Any) -> str:
        for name in _TIME_NAMES:
            if isinstance(record, dict) and name in record:
                return name
        raise ConfigError(f"{self.name}: say timestamp=, the field that has the time: {record!r:.200}")

    def __repr__(self) -> str:
        return f"<Replay {self.name!r}, format={self.format}, on_error={self.on_error}, {self.bad_count} bad lines>"


_STEPS = 8_192
"""The latest steps back whose rows are known; a run never looks further ahead of what it sends."""


class _Tape(Arrivals):
    """The times of a file, read along as they are asked for."""

    seekable = False

    def __init__(self, source: Replay, speed: float) -> None:
        self._source = source
        self.speed = speed
        self._rewind()

    def _rewind(self) -> None:
        self._times = self._source._times()
        self._held: deque[tuple[float, bool]] = deque()
        """Of rows ``_next`` and on: when they are due, and whether time stepped back there."""
        self._next = 0
        self._first = self._previous = self._latest = 0.0
        self._begun = False
        self._back = 0
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self._over = False

    def _fill(self, count: int) -> None:
        while len(self._held) < count and not self._over:
            times = next(self._times, None)
            if times is None:
                self._over = True
                return
            for time in times:
                if not self._begun:
                    self._begun = True
                    self._first = self._previous = self._latest = time
                self._latest = max(self._latest, time)
                self._held.append(((self._latest - self._first) / self.speed, time < self._previous))
                self._previous = time

    def due(self, start: int, stop: int) -> Seconds:
        if start < self._next:
            self._times.close()
            self._rewind()
        out: list[float] = []
        while self._next < stop:
            self._fill(min(stop - self._next, BLOCK_ROWS))
            if not self._held:
                break
            value, stepped_back = self._held.popleft()
            if stepped_back:
                self._back += 1
                self._steps.append(self._next)
            if self._next >= start:
                out.append(value)
            self._next += 1
        self.negative_gaps = max(self.negative_gaps, self._back)
        return np.array(out, np.float64)

    def stepped_back(self, rows: int) -> int:
        return self._back - sum(step >= rows for step in list(self._steps))

    def __repr__(self) -> str:
        return f"{self._source.name} at speed {self.speed:g}"


def _seconds(value: Any, row: int, name: str) -> float:
    """A recorded time in seconds since 1970 UTC."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    try:
        if isinstance(value, str | dt.date):
            return to_microseconds(value) / 1e6
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            size = abs(value)
            return float(value / (1 if size < 1e11 else 1e3 if size < 1e14 else 1e6 if size < 1e17 else 1e9))
    except ConfigError:
        pass
    raise DecodeError(f"{name}: record {row} (from 0) has no time that can be read: {value!r:.100}")

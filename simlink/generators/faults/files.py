"""Faults in a file: damaged lines, and the labels that say what was done to which."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from simlink.errors import ConfigError
from simlink.generators.faults.fault import BodyFault
from simlink.generators.faults.faulty import FaultySource, Label
from simlink.generators.faults.stretches import Altered
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.source import Source

__all__ = [
    "InStretches",
    "Noting",
    "damaged_lines",
    "label_file",
    "labelled",
    "refuse_what_has_no_place",
    "writes_labels",
]

_ENDS = frozenset(b"\r\n")
_OTHER = 0x0B


def refuse_what_has_no_place(source: FaultySource, kind: str) -> None:
    """Refuse faults that a table with a type for each column cannot hold.

    Raises:
        ConfigError: names them.
    """
    bad = [f.name for f in source.faults if isinstance(f, BodyFault) or f.name == "wrong_type"]
    if kind in ("parquet", "arrow") and bad:
        raise ConfigError(
            f"the format {kind} has a type for each column: it cannot hold {', '.join(dict.fromkeys(bad))}; "
            "write ndjson or csv"
        )


def damaged_lines(chunk: Altered, lines: list[bytes]) -> list[bytes]:
    """The lines (without their ends) of a chunk, damaged as its bodies would be.

    A line stays one: where damage would make an end of line of a byte, it becomes 0x0B. What was done is noted in
    ``chunk.done``.
    """
    chunk.done = {}
    for at, how in chunk.damage.items():
        for fault, word in how:
            was = lines[at]
            lines[at] = now = _one_line(was, fault.damage(was, word))
            chunk.done.setdefault((at, fault.name), []).append(_difference(was, now))
    return lines


def _one_line(was: bytes, now: bytes) -> bytes:
    if _ENDS.isdisjoint(now):
        return now
    # Damage moves nothing: a byte stands where it stood.
    return bytes(_OTHER if b in _ENDS and b != a else b for a, b in zip(was, now, strict=False))


def _difference(was: bytes, now: bytes) -> dict[str, int]:
    if len(now) < len(was):
        return {"kept": len(now), "of": len(was)}
    return next(({"at": i, "was": a, "now": b} for i, (a, b) in enumerate(zip(was, now, strict=True)) if a != b), {})


@contextmanager
def label_file(labels: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The file that labels go to.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        file = Path(labels).open("wb")  # noqa: SIM115 – closed below
    except OSError as error:
        raise ConfigError(f"cannot write {os.fspath(labels)}: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def labelled(
    source: FaultySource, encode: Callable[[Any], Any], labels: str | os.PathLike[str], count: int | None
) -> Iterator[Callable[[Any], Any]]:
    """An ``encode`` that writes the labels of each chunk beside it, as lines of JSON.

    Raises:
        ConfigError: the file cannot be written.
    """
    with label_file(labels) as file:
        writer = _Labels(source.labels(0, count), file)

        def both(chunk: Any) -> Any:
            made = encode(chunk)
            writer.upto(chunk)
            return made

        yield both
        writer.rest()


class _Labels:
    """Labels in step with the chunks that they are of."""

    def __init__(self, labels: Iterator[Label], file: IO[bytes]) -> None:
        self._labels, self._file = labels, file
        self._next = next(labels, None)

    def upto(self, chunk: Any) -> None:
        if not isinstance(chunk, Altered):
            return  # nothing at all is sent
        stop = chunk.start + len(chunk)
        while self._next is not None and self._next.place < stop:
            self._write(self._next, chunk)
            self._next = next(self._labels, None)

    def rest(self) -> None:
        """What is dropped behind the last that is sent."""
        while self._next is not None:
            self._write(self._next, None)
            self._next = next(self._labels, None)

    def _write(self, label: Label, chunk: Altered | None) -> None:
        detail = label.detail
        done = chunk.done.get((label.place - chunk.start, label.fault)) if chunk is not None else None
        if done:
            detail = detail | done.pop(0)
        self._file.write(label_line(label.row, label.place, label.fault, detail))


def label_line(row: int, place: int, fault: str, detail: dict[str, Any]) -> bytes:
    """A label, as a line."""
    return msgspec.json.encode({"row": row, "place": place, "fault": fault, "detail": detail}, enc_hook=str) + b"\n"


# --- by several processes


class InStretches(Source):
    """The first ``count`` messages of a source with faults, for workers who do not know how many come before theirs:
    row r of this one stands for whatever is sent in the places around row r of what the faults are done to.

    Each chunk has its ``marks``: (place in the chunk, row, fault, detail). A stretch in which nothing is sent, but
    something done, is an empty chunk.
    """

    def __init__(self, whole: FaultySource, count: int | None) -> None:
        self.whole, self.name, self.seed = whole, whole.name, whole.seed
        stretches, self.kept = whole.stretches_of(count)
        self.rows = self.length = stretches * BLOCK_ROWS

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Altered]:
        end = self.rows if stop is None else min(stop, self.rows)
        for stretch in range(start // BLOCK_ROWS, -(-end // BLOCK_ROWS)):
            values, marks = self.whole.stretch(stretch)
            if self.kept is not None and (stretch + 1) * BLOCK_ROWS == self.rows:
                values, marks = values[: self.kept], [mark for mark in marks if mark[0] < self.kept]
            # As `FaultySource.chunks` gives them; what is dropped behind the last one is told with it.
            for at in range(0, max(len(values), 1) if marks else len(values), BLOCK_ROWS):
                piece = values[at : at + BLOCK_ROWS]
                upto = at + BLOCK_ROWS if at + BLOCK_ROWS < len(values) else math.inf
                piece.marks = [
                    (place - at, row, fault, detail) for place, row, fault, detail in marks if at <= place < upto
                ]
                yield piece


def writes_labels(file: IO[bytes]) -> Callable[[Any, int], None]:
    """What writes the notes of a stretch, given how many messages come before it."""

    def write(notes: list[tuple[int, int, str, dict[str, Any]]], before: int) -> None:
        file.writelines(label_line(row, before + at, fault, detail) for row, at, fault, detail in notes)

    return write


class Noting:
    """An ``encode`` that keeps what was done to the chunks of one stretch of rows, until it is asked."""

    def __init__(self, encode: Callable[[Any], Any]) -> None:
        self.encode = encode
        self._rows = 0
        self._notes: list[tuple[int, int, str, dict[str, Any]]] = []

    def __call__(self, chunk: Any) -> Any:
        made = self.encode(chunk) if chunk else b""
        for at, row, fault, detail in chunk.marks:
            done = chunk.done.get((at, fault))
            self._notes.append((row, self._rows + at, fault, detail | done.pop(0) if done else detail))
        self._rows += len(chunk)
        return made

    def notes(self) -> list[tuple[int, int, str, dict[str, Any]]]:
        """(row, place from the first message asked for, fault, detail) since it was asked last."""
        notes, self._notes, self._rows = self._notes, [], 0
        return notes

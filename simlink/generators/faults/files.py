"""Faults in a file: damaged lines, and the labels that say what was done to which."""

from __future__ import annotations

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

__all__ = ["damaged_lines", "labelled", "refuse_what_has_no_place"]

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
def labelled(
    source: FaultySource, encode: Callable[[Any], Any], labels: str | os.PathLike[str], count: int | None
) -> Iterator[Callable[[Any], Any]]:
    """An ``encode`` that writes the labels of each chunk beside it, as lines of JSON.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        file = Path(labels).open("wb")  # noqa: SIM115 – closed below
    except OSError as error:
        raise ConfigError(f"cannot write {os.fspath(labels)}: {error.strerror}") from error
    with file:
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
        line = {"row": label.row, "place": label.place, "fault": label.fault, "detail": detail}
        self._file.write(msgspec.json.encode(line, enc_hook=str) + b"\n")

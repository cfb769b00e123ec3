"""Lines of a file or a pipe, as they come, in bounded memory."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from simlink.errors import ConfigError

__all__ = ["MAX_LINE", "BadLine", "CutLine", "Lines", "open_file", "read_lines"]

MAX_LINE: Final = 16 * 1024 * 1024
"""The longest line, in bytes; a longer one does not parse."""

_READ: Final = 256 * 1024
_SHOWN: Final = 2_000


@dataclass(frozen=True, slots=True)
class BadLine:
    r"""A line that does not parse.

    Attributes:
        line: its number in the file, from 1.
        text: the line, its first 2,000 bytes; those that are not UTF-8 as ``\xhh``.
        reason: why, in a few words.
    """

    line: int
    text: str
    reason: str

    @classmethod
    def of(cls, number: int, line: bytes, reason: str) -> BadLine:
        """The report of this line."""
        return cls(number, line[:_SHOWN].decode("utf-8", "backslashreplace").rstrip("\r\n"), reason)


class CutLine(bytes):
    """The beginning of a line that is longer than `MAX_LINE`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines that follow one another, without their newlines (a carriage return stays); ``first`` is the number
    of the first one."""

    first: int
    lines: list[bytes]


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """The file to read; ``.gz`` is decompressed.

    Raises:
        ConfigError: it cannot be opened.
    """
    try:
        if Path(path).suffix == ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        return Path(path).open("rb")
    except OSError as error:
        raise ConfigError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error


def read_lines(stream: BinaryIO, limit: int = MAX_LINE) -> Iterator[Lines]:
    """The lines of a stream, as soon as they are there: a pipe's last complete line is not held back until the next
    one comes. The last line needs no newline; a byte order mark is dropped."""
    read = getattr(stream, "read1", stream.read)
    number, rest, overlong = 1, b"", False
    begun = False
    while data := read(_READ):
        if not begun:
            begun = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        if b"\n" not in data:
            rest += data
        else:
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            if overlong:
                lines[0] = CutLine(lines[0][:_SHOWN])
                overlong = False
            lines = [line if len(line) <= limit else CutLine(line[:_SHOWN]) for line in lines]
            yield Lines(number, lines)
            number += len(lines)
        if len(rest) > limit:
            rest, overlong = rest[:_SHOWN], True
    if rest:
        yield Lines(number, [CutLine(rest[:_SHOWN]) if overlong else rest])

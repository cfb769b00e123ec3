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
_BOM: Final = b"\xef\xbb\xbf"


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
    """Some lines that follow one another, without their newlines (a carriage return stays).

    Attributes:
        first: the number of the first one.
        lines: at least one.
        cut: whether there is a `CutLine` among them.
    """

    first: int
    lines: list[bytes]
    cut: bool = False


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
    one comes. The last line needs no newline; a byte order mark is dropped.

    Raises:
        ConfigError: it is not a binary stream.
    """
    read = stream.read1 if hasattr(stream, "read1") else stream.read
    number, rest, overlong = 1, b"", False
    while data := read(_READ):
        if not isinstance(data, bytes):
            raise ConfigError(f"a stream to replay is binary, not one of {type(data).__name__}")
        if b"\n" not in data:
            rest += data
        else:
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            # The first of them goes on from what was kept of it, which is short if it is overlong.
            yield _lines(number, lines, limit, first_is_overlong=overlong)
            overlong = False
            number += len(lines)
        if len(rest) > limit:
            rest, overlong = rest[:_SHOWN], True
    if rest and not (number == 1 and rest == _BOM):
        yield _lines(number, [rest], limit, first_is_overlong=overlong)


def _lines(number: int, lines: list[bytes], limit: int, *, first_is_overlong: bool) -> Lines:
    if number == 1:
        lines[0] = lines[0].removeprefix(_BOM)
    cut = first_is_overlong or max(map(len, lines)) > limit
    if cut:
        lines = [
            CutLine(line[:_SHOWN]) if len(line) > limit or (first_is_overlong and i == 0) else line
            for i, line in enumerate(lines)
        ]
    return Lines(number, lines, cut=cut)

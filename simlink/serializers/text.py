"""Lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from simlink.block import Block, Lines
from simlink.errors import DecodeError, EncodeError
from simlink.serializers.serializer import Serializer

__all__ = ["Text"]


class Text(Serializer):
    """One line of text a message, UTF-8, without the newline.

    ``dumps`` takes str. A carriage return or newline within is refused, because whoever keeps the bodies as lines
    could not tell them apart again; records are refused too: use Json, or map them to text first. ``loads`` returns
    the text exactly as it came.
    """

    content_type: ClassVar[str] = "text/plain; charset=utf-8"

    def __repr__(self) -> str:
        return "Text()"

    def dumps(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise EncodeError(f"Text writes str, not {type(value).__name__}; use Json for records")
        if "\n" in value or "\r" in value:
            raise EncodeError(f"Text writes one line, and this str has a line break in it: {value[:60]!r}")
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"str cannot be written as UTF-8: {error}") from error

    def loads(self, body: bytes) -> str:
        try:
            return str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"not UTF-8 text: {error}", body=bytes(body)) from error

    def dumps_many(self, values: Block | Sequence[Any]) -> list[bytes]:
        if isinstance(values, Lines):
            return self._lines(values)
        if isinstance(values, Block) and len(values):
            raise EncodeError(
                f"Text writes str, and {values.schema.name!r} makes records; use Json, or map them to text", row=0
            )
        return super().dumps_many(values)

    def _lines(self, lines: Lines) -> list[bytes]:
        """All at once, while nothing is wrong."""
        try:
            text = lines.text.encode()
        except UnicodeEncodeError:
            return super().dumps_many(lines.lines())
        bodies = text.split(b"\n")
        if lines.length == len(bodies) and b"\r" not in text:
            return bodies
        return super().dumps_many(lines.lines())

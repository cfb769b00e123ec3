"""Bodies that are ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from simlink.block import Block
from simlink.errors import EncodeError
from simlink.serializers.serializer import Serializer

__all__ = ["Bytes"]


class Bytes(Serializer):
    """Bytes as they are: ``dumps`` takes bytes, bytearray or memoryview, ``loads`` returns bytes."""

    content_type: ClassVar[str] = "application/octet-stream"

    def __repr__(self) -> str:
        return "Bytes()"

    def dumps(self, value: Any) -> bytes:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise EncodeError(f"Bytes writes bytes, not {type(value).__name__}; use Json for records, Text for str")

    def loads(self, body: bytes) -> bytes:
        return bytes(body)

    def dumps_many(self, values: Block | Sequence[Any]) -> list[bytes]:
        if isinstance(values, Block) and len(values):
            raise EncodeError(f"Bytes writes bytes, and {values.schema.name!r} makes records; use Json", row=0)
        return super().dumps_many(values)

    def loads_many(self, bodies: Sequence[bytes]) -> list[Any]:
        return list(map(bytes, bodies))

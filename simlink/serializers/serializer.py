"""What a serializer is: values ↔ bytes, whole blocks at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from simlink.block import Block
from simlink.errors import DecodeError, EncodeError

__all__ = ["Serializer"]


class Serializer(ABC):
    """Values ↔ bytes.

    ``dumps`` and ``loads`` must be written; ``dumps_many`` and ``loads_many`` have loops as defaults and are worth
    overriding where whole blocks go faster. A serializer is immutable after it is made and safe to share by threads.

    Attributes:
        content_type: the media type that travels with every body.
    """

    content_type: ClassVar[str] = "application/octet-stream"

    @abstractmethod
    def dumps(self, value: Any) -> bytes:
        """One value → its body.

        Raises:
            EncodeError: the value cannot be written.
        """

    @abstractmethod
    def loads(self, body: bytes) -> Any:
        """One body → its value.

        Raises:
            DecodeError: the body cannot be read; it carries the body.
        """

    def dumps_many(self, values: Block | Sequence[Any]) -> list[bytes]:
        """A block, or a sequence of values → one body each.

        Raises:
            EncodeError: with ``row`` set to the first value that cannot be written.
        """
        out: list[bytes] = []
        for row, value in enumerate(values.rows() if isinstance(values, Block) else values):
            try:
                out.append(self.dumps(value))
            except EncodeError as error:
                raise EncodeError(f"row {row}: {error}", row=row) from error
        return out

    def loads_many(self, bodies: Sequence[bytes]) -> list[Any]:
        """Bodies → one value each. A body that cannot be read yields its DecodeError as the value: nothing is
        raised, so that one bad body costs no good one."""
        out: list[Any] = []
        for body in bodies:
            try:
                out.append(self.loads(body))
            except DecodeError as error:
                out.append(error)
        return out

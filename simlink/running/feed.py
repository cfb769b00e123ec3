"""From a source to encoded chunks, one ahead of what is being sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simlink.block import Block
from simlink.errors import EncodeError
from simlink.generators.fault_stretches import Altered
from simlink.generators.source import key_column
from simlink.message import Key, Same

if TYPE_CHECKING:
    from simlink.generators.source import Source
    from simlink.serializers.serializer import Serializer

__all__ = ["Chunk", "Feed"]


@dataclass(slots=True)
class Chunk:
    """Some encoded rows; ``first`` is the row index of the first one in the whole source."""

    first: int
    bodies: list[bytes]
    keys: Sequence[bytes | None]


class Feed:
    """Encoded chunks of a source, made when they are asked for, or ahead of it by `prepare`.

    A record that cannot be encoded, and an error of the source itself, are raised once everything before them has been
    handed out.

    Args:
        rows: how many rows to make at a time; a source of live values gives as many as there are.
        reading: called with True before the source is asked for rows and with False behind it.
    """

    def __init__(
        self,
        source: Source,
        serializer: Serializer,
        key: str | Callable[[Any], Key | None] | None,
        *,
        stop: int | None,
        rows: int,
        reading: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._values: Iterator[Block | list[Any]] = source.chunks(0, stop, rows)
        self._serializer = serializer
        self._key = key
        self._reading = reading
        self._next: Chunk | None = None
        self._row = 0
        self._failure: Exception | None = None
        self.ended = False

    @property
    def prepared(self) -> bool:
        """Whether the next chunk, or the end, is there already."""
        return self._next is not None or self.ended or self._failure is not None

    def prepare(self) -> None:
        """Make the next chunk, if it is not there."""
        while not self.prepared:
            self._make()

    def pop(self) -> Chunk | None:
        """The next chunk, or None at the end.

        Raises:
            EncodeError: its first record cannot be encoded; ``row`` is its index in the source.
            Exception: whatever the source raised.
        """
        self.prepare()
        if self._next is None and self._failure is not None:
            raise self._failure
        chunk, self._next = self._next, None
        return chunk

    def _make(self) -> None:
        self._reading(True)
        try:
            values = next(self._values, None)
        except Exception as error:
            self._failure = error
            return
        finally:
            self._reading(False)
        if values is None:
            self.ended = True
            return
        first = values.start if isinstance(values, Block | Altered) else self._row
        try:
            self._next = self._encode(values, first)
        except EncodeError as error:
            row = error.row
            self._failure = EncodeError(f"record {first + (row or 0)} cannot be sent: {error}", row=first + (row or 0))
            self._failure.__cause__ = error
            if row:
                self._next = self._encode(values[:row], first)
        except Exception as error:
            # A key function, or a field that is not there.
            self._failure = error
        self._row = first + len(values)

    def _encode(self, values: Block | list[Any], first: int) -> Chunk:
        keys = Same(None, len(values)) if self._key is None else key_column(values, self._key)
        bodies = values.encode(self._serializer) if isinstance(values, Altered) else self._serializer.dumps_many(values)
        return Chunk(first, bodies, keys)

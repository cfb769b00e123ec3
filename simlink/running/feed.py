"""From a source to encoded chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simlink.block import Block
from simlink.errors import EncodeError
from simlink.generators.faults.stretches import Altered
from simlink.generators.source import key_column
from simlink.message import Key, Same

if TYPE_CHECKING:
    from simlink.generators.source import Source
    from simlink.serializers.serializer import Serializer

__all__ = ["Chunk", "Encoder", "Feed"]


@dataclass(slots=True)
class Chunk:
    """Some encoded rows; ``first`` is the row index of the first one in the whole source."""

    first: int
    bodies: list[bytes]
    keys: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.bodies)

    def part(self, start: int, stop: int) -> Chunk:
        """Some of them."""
        return Chunk(self.first + start, self.bodies[start:stop], self.keys[start:stop])


class Encoder:
    """Rows → bodies and keys.

    Args:
        key: the name of the field that is the key, a function of the value, or None.
    """

    def __init__(self, serializer: Serializer, key: str | Callable[[Any], Key | None] | None) -> None:
        self._serializer = serializer
        self._key = key

    def __call__(self, values: Block | list[Any], first: int) -> tuple[Chunk | None, Exception | None]:
        """The encoded rows, or those before the one that cannot be encoded and why; ``first`` is their row index."""
        try:
            return self._encode(values, first), None
        except EncodeError as error:
            row = error.row or 0
            # The row within these values means nothing to anybody else.
            why = str(error).removeprefix(f"row {row}: ")
            failure = EncodeError(f"record {first + row} cannot be sent: {why}", row=first + row)
            failure.__cause__ = error
            return (self._encode(values[:row], first) if row else None), failure
        except Exception as error:
            # A key function, or a field that is not there.
            return None, error

    def _encode(self, values: Block | list[Any], first: int) -> Chunk:
        keys = Same(None, len(values)) if self._key is None else key_column(values, self._key)
        bodies = values.encode(self._serializer) if isinstance(values, Altered) else self._serializer.dumps_many(values)
        return Chunk(first, bodies, keys)


class Feed:
    """Encoded chunks of a source, one after another, for a run without a pace.

    A record that cannot be encoded, and an error of the source itself, are raised once everything before them has been
    handed out.

    Args:
        rows: how many rows to make at a time; a source of live values gives as many as there are.
        reading: called with True before the source is asked for rows and with False behind it.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        *,
        stop: int | None,
        rows: int = 4096,
        reading: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._values: Iterator[Block | list[Any]] = source.chunks(0, stop, rows)
        self._encoder = encoder
        self._reading = reading
        self._next: Chunk | None = None
        self._row = 0
        self._failure: Exception | None = None
        self._ended = False

    def begin(self) -> None:
        """Before the run begins: make what it sends first."""
        self._prepare()

    def _prepare(self) -> None:
        while not (self._next is not None or self._ended or self._failure is not None):
            self._make()

    def pop(self) -> Chunk | None:
        """The next chunk, or None at the end.

        Raises:
            EncodeError: its first record cannot be encoded; ``row`` is its index in the source.
            Exception: whatever the source raised.
        """
        self._prepare()
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
            self._ended = True
            return
        first = values.start if isinstance(values, Block | Altered) else self._row
        self._next, self._failure = self._encoder(values, first)
        self._row = first + len(values)

"""JSON through msgspec: any JSON value, and blocks of columns without a dict in between.

What JSON cannot hold is refused, never approximated: NaN and infinity (many encoders write ``null``), bytes (msgspec
alone would write base64 text), keys that are not text, lone surrogates. Integers of any size are written and read
exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import isfinite
from operator import itemgetter
from typing import Any, ClassVar

import msgspec

from simlink.block import Block, Lines
from simlink.errors import ConfigError, DecodeError, EncodeError
from simlink.serializers import json_cells, json_text
from simlink.serializers.json_cells import bodies_of
from simlink.serializers.json_check import check, foreign
from simlink.serializers.serializer import Serializer

__all__ = ["Json"]

_SCALARS = frozenset({str, int, float, bool, type(None)})
_TEXT = frozenset({str})
_FIRST, _LAST = itemgetter(0), itemgetter(-1)
_OPENING, _CLOSING = {ord("{")}, {ord("}")}
_REFUSED = (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError)


class Json(Serializer):
    """Values ↔ JSON (RFC 8259), UTF-8, without white space, keys in the value's own order.

    Besides dict, list, str, int, float, bool and None, ``dumps`` takes dataclasses, msgspec Structs, attrs objects,
    tuples and sets (written as lists), NumPy scalars and arrays, datetime, date, time and timedelta (ISO 8601 text),
    UUID and Decimal (text) and enum members (their value). These come back from ``loads`` as the plain JSON value,
    unless ``type`` says what to make of it. Where a key stands twice in an object the last one counts.

    Args:
        type: what ``loads`` returns: a msgspec Struct, a dataclass, a TypedDict, ``list[int]`` …; anything that msgspec
            can decode into. A body that does not fit is a DecodeError. Default: plain dicts, lists and scalars.

    Raises:
        ConfigError: msgspec cannot decode into ``type``.
    """

    content_type: ClassVar[str] = "application/json"

    def __init__(self, *, type: Any = Any) -> None:
        try:
            self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type)
        except (TypeError, NameError) as error:
            raise ConfigError(f"Json(type={type!r}): {error}") from error
        self._type = type
        self._encoder = msgspec.json.Encoder(enc_hook=foreign)
        self._encode = self._encoder.encode

    def __repr__(self) -> str:
        return "Json()" if self._type is Any else f"Json(type={getattr(self._type, '__name__', self._type)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The codec objects do not pickle; a worker process makes its own.
        return (_make, (self._type,))

    def dumps(self, value: Any) -> bytes:
        # One pass over a flat record finds everything that msgspec would change in silence. Exact type tests in this
        # order are the fastest that Python has; anything unusual goes the careful way.
        if type(value) is dict:
            for key, cell in value.items():
                kind = type(cell)
                if type(key) is not str:
                    break
                if kind is str or kind is int or cell is None or kind is bool:
                    continue
                # x - x is 0 for every finite float, NaN for NaN and the infinities.
                if kind is not float or cell - cell != 0.0:
                    break
            else:
                try:
                    return self._encode(value)
                except _REFUSED as error:
                    raise self._refusal(value, error) from error
        return self._careful(value)

    def loads(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not JSON: {error}", body=bytes(body)) from error

    def dumps_many(self, values: Block | Sequence[Any]) -> list[bytes]:
        if isinstance(values, Lines):
            values = values.lines()
        if isinstance(values, Block):
            try:
                written = json_text.block_bodies(values, self._encode)
                return json_cells.block_bodies(values, self._encoder) if written is None else written
            except _REFUSED as error:
                # Rare, so it may be slow: the row loop finds the first row that is at fault.
                super().dumps_many(values)
                raise EncodeError(f"{values!r}: {error}") from error
        if _plain(values):
            try:
                return bodies_of(values, self._encoder)
            except _REFUSED:
                pass
        return super().dumps_many(values)

    def dumps_lines(self, values: Block | Sequence[Any]) -> bytes:
        """The bodies of `dumps_many` as one text, with a newline behind each (NDJSON): for a file, where nobody needs
        them one by one.

        Raises:
            EncodeError: as `dumps_many`.
        """
        if isinstance(values, Block) and not isinstance(values, Lines):
            try:
                written = json_text.block_text(values, self._encode)
                return json_cells.block_text(values, self._encoder) if written is None else written
            except _REFUSED:
                pass  # `dumps_many` finds the row that is at fault
        return b"\n".join([*self.dumps_many(values), b""])

    def loads_many(self, bodies: Sequence[bytes]) -> list[Any]:
        # Decoding all lines at once is faster than one by one, but msgspec's line reader does not mind where lines end:
        # "[1,", "2]" and "3 4" are three values to it. It is safe where every body begins with { and ends with }. A
        # body that is cut short cannot be completed by the next one: its last } ends an inner object, and no { may
        # follow that, or stands in a string, and no newline may. One that holds two values makes the count wrong.
        n = len(bodies)
        if n > 1:
            try:
                if set(map(_FIRST, bodies)) == _OPENING and set(map(_LAST, bodies)) == _CLOSING:
                    values = self._decoder.decode_lines(b"\n".join(bodies))
                    if len(values) == n:
                        return values
            except (ValueError, RecursionError, IndexError):
                # Some body is bad, or empty: one by one, each gets its own outcome.
                pass
        return super().loads_many(bodies)

    def _careful(self, value: Any) -> bytes:
        try:
            check(value)
            return self._encode(value)
        except EncodeError:
            raise
        except _REFUSED as error:
            raise self._refusal(value, error) from error

    def _refusal(self, value: Any, error: Exception) -> EncodeError:
        """What to say when the encoder refused: which part of the value it was."""
        if isinstance(error, RecursionError):
            return EncodeError(f"{type(value).__name__} is nested too deeply, or contains itself")
        if isinstance(value, dict):
            for key, cell in value.items():
                for where, part in ((f"key {key!r}", key), (str(key), cell)):
                    try:
                        self._encode(part)
                    except _REFUSED as cause:
                        return EncodeError(f"{where}: {type(part).__name__} cannot be written as JSON: {cause}")
        return EncodeError(f"{type(value).__name__} cannot be written as JSON: {error}")


def _make(type: Any) -> Json:
    return Json(type=type)


def _plain(values: Sequence[Any]) -> bool:
    """Whether all are flat dicts, or all scalars, that msgspec writes as they are. Runs in C but for the floats."""
    kinds = set(map(type, values))
    cells: Callable[[], Iterable[Any]] = lambda: values  # noqa: E731 – it is read twice at most, and then lazily
    if kinds == {dict}:
        # The union of dicts keeps the hashes of their keys: a third of the time of looking at each key's type.
        if not _TEXT.issuperset(map(type, set().union(*values))):
            return False
        cells = lambda: chain.from_iterable(map(dict.values, values))  # noqa: E731
        kinds = set(map(type, cells()))
    if not kinds <= _SCALARS:
        return False
    return float not in kinds or all(map(isfinite, [cell for cell in cells() if type(cell) is float]))

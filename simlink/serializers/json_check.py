"""What a JSON encoder would change in silence, found and named before it is written."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from simlink.errors import EncodeError

__all__ = ["check", "foreign"]

_LEAVES = frozenset(
    {str, int, bool, type(None), dt.datetime, dt.date, dt.time, dt.timedelta, UUID},
)
_BINARY = (bytes, bytearray, memoryview)


def check(value: Any, where: str = "") -> None:
    """Walk ``value`` and refuse what JSON cannot hold.

    Raises:
        EncodeError: NaN, infinity, bytes, a key that is not text; it names the place, as in ``items[3].price``.
        RecursionError: nested too deeply, or within itself.
    """
    kind = type(value)
    if kind in _LEAVES:
        return
    if kind is float or isinstance(value, float | np.floating):
        if not isfinite(value):
            raise EncodeError(f"{_named(where)}{value!s} is not a JSON number ({kind.__name__})")
    elif isinstance(value, enum.Enum):
        check(value.value, where)
    elif isinstance(value, dict):
        for key, cell in value.items():
            if not isinstance(key, str):
                raise EncodeError(f"{_named(where)}a key of a JSON object is text, not {type(key).__name__}: {key!r}")
            check(cell, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, cell in enumerate(value):
            check(cell, f"{where}[{index}]")
    elif isinstance(value, _BINARY):
        raise EncodeError(
            f"{_named(where)}JSON has no bytes ({kind.__name__}): write them as text, or use Protobuf or Bytes"
        )
    elif isinstance(value, msgspec.Raw):
        raise EncodeError(f"{_named(where)}msgspec.Raw would be written unchecked; use Bytes for ready bodies")
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise EncodeError(f"{_named(where)}{value} is not a JSON number (Decimal)")
    elif isinstance(value, np.ndarray):
        check(value.tolist(), where)
    else:
        for name in _attributes(value):
            check(getattr(value, name), f"{where}.{name}" if where else name)


def _attributes(value: Any) -> Iterable[str]:
    """The fields of an object that msgspec writes as a JSON object; nothing for what it would refuse anyway."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_dataclass(value) and not isinstance(value, type):
        # A dataclass need not have set all its fields; msgspec leaves such a field out.
        return [f.name for f in fields(value) if hasattr(value, f.name)]
    return [a.name for a in getattr(type(value), "__attrs_attrs__", ()) if hasattr(value, a.name)]


def _named(where: str) -> str:
    return f"{where}: " if where else ""


def foreign(value: Any) -> Any:
    """The encoder's hook for what msgspec does not know: NumPy's scalars and arrays, subclasses of str, int and float.

    Raises:
        NotImplementedError: none of these.
    """
    if isinstance(value, np.generic):
        plain = value.item()
        if isinstance(plain, str | int | float | bool | dt.date | dt.timedelta):
            return plain
    elif isinstance(value, np.ndarray):
        return value.tolist()
    elif isinstance(value, str):
        # str(value) would call what the subclass overrides.
        return str.__str__(value)
    elif isinstance(value, int):
        return int.__int__(value)
    elif isinstance(value, float):
        return float.__float__(value)
    raise NotImplementedError(f"{type(value).__name__} is not something that JSON can hold")

"""Serializers: records ↔ bytes, whole blocks at a time.

`Json`, `Protobuf`, `Text` and `Bytes` are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simlink.serializers.json import Json
    from simlink.serializers.lookup import serializer_for, serializer_for_content_type
    from simlink.serializers.protobuf import Protobuf
    from simlink.serializers.raw import Bytes
    from simlink.serializers.serializer import Serializer
    from simlink.serializers.text import Text

__all__ = ["Bytes", "Json", "Protobuf", "Serializer", "Text", "serializer_for", "serializer_for_content_type"]

_HOMES = {
    "Bytes": "raw",
    "Json": "json",
    "Protobuf": "protobuf",
    "Serializer": "serializer",
    "Text": "text",
    "serializer_for": "lookup",
    "serializer_for_content_type": "lookup",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

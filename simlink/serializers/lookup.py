"""Serializers by name, and by the content type of what came in."""

from __future__ import annotations

import difflib
from typing import Any

from simlink.errors import ConfigError
from simlink.serializers.serializer import Serializer

__all__ = ["NAMES", "serializer_for", "serializer_for_content_type"]

NAMES = ("json", "protobuf", "text", "bytes")
"""What `serializer_for` knows by name."""


def serializer_for(what: str | Serializer | type[Serializer], record: Any = None) -> Serializer:
    """The serializer that ``what`` names.

    Args:
        what: ``"json"``, ``"protobuf"``, ``"text"`` or ``"bytes"`` in any case; a Serializer, which is returned as it
            is; a Serializer class, which is made without arguments; a compiled Protobuf message class.
        record: the generator (or its Schema) whose records will be written. ``"protobuf"`` derives its message from
            it; the others do not need it.

    Raises:
        ConfigError: no such serializer (with a did-you-mean), or ``"protobuf"`` without a record that has a schema.
    """
    if isinstance(what, Serializer):
        return what
    if isinstance(what, str):
        name = what.strip().lower()
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(NAMES)}"
            raise ConfigError(f"no serializer {what!r}; {hint}")
        return _make(name, record)
    if isinstance(what, type) and issubclass(what, Serializer):
        try:
            return what()
        except TypeError as error:
            raise ConfigError(
                f"serializer={what.__name__}: make it first, as in {what.__name__}(…): {error}"
            ) from error
    if hasattr(what, "DESCRIPTOR"):
        from simlink.serializers.protobuf import Protobuf

        return Protobuf(what)
    raise ConfigError(f"a serializer is one of {', '.join(NAMES)}, or a Serializer, not {type(what).__name__}")


def serializer_for_content_type(content_type: str | None, record: Any = None) -> Serializer | None:
    """The serializer for a body of this media type, for a receiver that was told nothing else.

    Parameters (``; charset=…``), case and the older names of Protobuf are understood; ``+json`` types are JSON.

    Args:
        content_type: as it came; None where the sender gave none.
        record: as for `serializer_for`. Without it a Protobuf body has no reader, and the answer is None.

    Returns:
        None where the type says nothing that simlink can use.
    """
    if content_type is None:
        return None
    media_type = content_type.partition(";")[0].strip().lower()
    name = _MEDIA_TYPES.get(media_type, "json" if media_type.endswith("+json") else None)
    if name is None and media_type.startswith("text/"):
        name = "text"
    if name is None or (name == "protobuf" and record is None):
        return None
    return _make(name, record)


def _make(name: str, record: Any) -> Serializer:
    # Imported one by one: the command line must not load Protobuf to write JSON.
    if name == "json":
        from simlink.serializers.json import Json

        return Json()
    if name == "text":
        from simlink.serializers.text import Text

        return Text()
    if name == "bytes":
        from simlink.serializers.raw import Bytes

        return Bytes()
    from simlink.serializers.protobuf import Protobuf

    if record is None:
        raise ConfigError(
            "protobuf cannot be read or written without knowing the fields: give it the record (the sender's SPEC), "
            "or a serializer with a compiled message class"
        )
    return Protobuf(record)


_MEDIA_TYPES = {
    "application/json": "json",
    "application/protobuf": "protobuf",
    # The aliases that the registration of application/protobuf declares deprecated, and Google's own.
    "application/x-protobuf": "protobuf",
    "application/x-protobuffer": "protobuf",
    "application/vnd.google.protobuf": "protobuf",
    "application/octet-stream": "bytes",
}

"""Entries of a stream, as hiredis gives them → a Batch.

An entry's fields are meant to be read by anybody: ``body``, ``key``, ``simlink-id``, ``content-type``; every other
field is a header of that name. A header that is called like one of the four, or begins with ``header:``, stands as
``header:NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simlink.channels.identity import CONTENT_TYPE_HEADER, ID_HEADER, parse_identities
from simlink.message import EMPTY_HEADERS, Batch, Same

__all__ = ["BODY", "KEY", "header_field", "read_entries"]

BODY, KEY = b"body", b"key"
_ID, _TYPE = ID_HEADER.encode(), CONTENT_TYPE_HEADER.encode()
_ESCAPE = b"header:"
_OWN = frozenset({BODY, KEY, _ID, _TYPE})

Fields = Sequence[bytes]


def header_field(name: str) -> bytes:
    """The field that a header stands in."""
    field = name.encode()
    return _ESCAPE + field if field in _OWN or field.startswith(_ESCAPE) else field


def read_entries(fields: Sequence[Fields]) -> Batch:
    """One batch of entries, each given as its names and values in turn.

    An entry without the field ``body`` (a foreigner's) has an empty one, and all its fields as headers. Text in headers
    is UTF-8; what is not shows as escapes.
    """
    n = len(fields)
    widths = set(map(len, fields))
    if len(widths) == 1:
        # What one sender wrote has the same names in the same order, and is taken apart by columns.
        columns = list(zip(*fields, strict=True))
        names = columns[0::2]
        if all(column.count(column[0]) == n for column in names):
            by_name = {column[0]: values for column, values in zip(names, columns[1::2], strict=True)}
            if BODY in by_name and len(by_name) == len(names) and _OWN.issuperset(by_name):
                types: Sequence[str | None] = Same(None, n)
                if _TYPE in by_name:
                    types = _texts(by_name[_TYPE])
                return _batch(by_name[BODY], by_name.get(KEY), by_name.get(_ID), types, Same(EMPTY_HEADERS, n))
    return _by_row(fields)


def _by_row(fields: Sequence[Fields]) -> Batch:
    bodies: list[bytes] = []
    keys: list[bytes | None] = []
    ids: list[bytes | None] = []
    types: list[str | None] = []
    users: list[Mapping[str, str]] = []
    for flat in fields:
        pairs = dict(zip(flat[0::2], flat[1::2], strict=True))
        bodies.append(pairs.pop(BODY, b""))
        keys.append(pairs.pop(KEY, None))
        ids.append(pairs.pop(_ID, None))
        kind = pairs.pop(_TYPE, None)
        types.append(None if kind is None else _text(kind))
        own = {_text(name.removeprefix(_ESCAPE)): _text(value) for name, value in pairs.items()}
        users.append(own or EMPTY_HEADERS)
    return _batch(bodies, keys, ids, types, users)


def _batch(
    bodies: Sequence[bytes],
    keys: Sequence[bytes | None] | None,
    ids: Sequence[bytes | None] | None,
    types: Sequence[str | None],
    users: Sequence[Mapping[str, str]],
) -> Batch:
    if ids is None or not any(ids):
        return Batch(bodies, keys=keys, headers=users, content_types=types)
    found = parse_identities(ids)
    return Batch(
        bodies,
        keys=keys,
        headers=users,
        content_types=types,
        producers=found.producers,
        sequences=found.sequences,
        timestamps=found.timestamps,
    )


def _texts(values: Sequence[bytes]) -> Sequence[str | None]:
    if values.count(values[0]) == len(values):
        return Same(_text(values[0]), len(values))
    return [_text(value) for value in values]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")

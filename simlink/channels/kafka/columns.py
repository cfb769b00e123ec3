"""Records as either client gives them → a Batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from simlink.channels.identity import CONTENT_TYPE_HEADER, ID_HEADER, Identities, parse_identities
from simlink.message import EMPTY_HEADERS, Batch, Same

__all__ = ["read_batch"]

Pairs = Sequence[tuple[str, bytes | None]]


def read_batch(
    bodies: Sequence[bytes],
    keys: Sequence[bytes | None],
    headers: Sequence[Pairs],
    stamps: Callable[[], Sequence[int | None]],
) -> Batch:
    """One batch of these rows.

    Our two headers are taken out of those that the user sees. Text in headers is UTF-8; what is not shows as escapes.

    Args:
        bodies: the records' values.
        keys: their keys.
        headers: their headers in order, bytes or None each.
        stamps: gives the records' own times in milliseconds since 1970 UTC, None where they are not the sender's;
            asked only for rows without an identity.
    """
    ids, types, users = _split(headers)
    if isinstance(ids, Same):  # nobody has one
        times = stamps()
        return Batch(
            bodies,
            keys=keys,
            headers=users,
            content_types=types,
            timestamps=[None if t is None else t * 1000 for t in times],
        )
    found = _with_stamps(parse_identities(ids), stamps)
    return Batch(
        bodies,
        keys=keys,
        headers=users,
        content_types=types,
        producers=found.producers,
        sequences=found.sequences,
        timestamps=found.timestamps,
    )


def _with_stamps(found: Identities, stamps: Callable[[], Sequence[int | None]]) -> Identities:
    if isinstance(found.producers, Same) or None not in found.producers:
        return found
    rows = zip(found.producers, found.timestamps, stamps(), strict=True)
    times = [t if p is not None else None if own is None else own * 1000 for p, t, own in rows]
    return Identities(found.producers, found.sequences, times)


def _split(
    headers: Sequence[Pairs],
) -> tuple[Sequence[bytes | None], Sequence[str | None], Sequence[Mapping[str, str]]]:
    """Identities, content types, and the user's own headers."""
    n = len(headers)
    widths = set(map(len, headers))
    # What our own senders write, always in this order, is taken apart by columns.
    if widths == {2}:
        firsts, seconds = zip(*headers, strict=True)
        names, ids = zip(*firsts, strict=True)
        if set(names) == {ID_HEADER}:
            names, kinds = zip(*seconds, strict=True)
            if set(names) == {CONTENT_TYPE_HEADER}:
                return ids, _texts(kinds), Same(EMPTY_HEADERS, n)
    elif widths == {1}:
        names, ids = zip(*[pairs[0] for pairs in headers], strict=True)
        if set(names) == {ID_HEADER}:
            return ids, Same(None, n), Same(EMPTY_HEADERS, n)
    elif widths == {0}:
        return Same(None, n), Same(None, n), Same(EMPTY_HEADERS, n)
    return _split_rows(headers)


def _split_rows(
    headers: Sequence[Pairs],
) -> tuple[Sequence[bytes | None], Sequence[str | None], Sequence[Mapping[str, str]]]:
    ids: list[bytes | None] = []
    types: list[str | None] = []
    users: list[Mapping[str, str]] = []
    for pairs in headers:
        own: dict[str, str] = {}
        identity: bytes | None = None
        kind: str | None = None
        for name, value in pairs:
            if name == ID_HEADER:
                identity = value
            elif name == CONTENT_TYPE_HEADER:
                kind = None if value is None else _text(value)
            else:
                own[name] = "" if value is None else _text(value)
        ids.append(identity)
        types.append(kind)
        users.append(own or EMPTY_HEADERS)
    if ids.count(None) == len(ids):
        return Same(None, len(ids)), types, users
    return ids, types, users


def _texts(values: Sequence[bytes | None]) -> Sequence[str | None]:
    different = set(values)
    if len(different) == 1:
        value = different.pop()
        return Same(None if value is None else _text(value), len(values))
    return [None if v is None else _text(v) for v in values]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")

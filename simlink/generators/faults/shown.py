"""The messages of a source with faults as a table, with what was done to each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from simlink.errors import ConfigError
from simlink.generators.preview import Preview

if TYPE_CHECKING:
    from simlink.generators.faults.faulty import FaultySource

__all__ = ["MOST", "preview"]

MOST = 1_000_000
"""Messages that are looked through for some with a fault."""


def preview(source: FaultySource, n: int, faulty: bool) -> Preview:
    """See `FaultySource.preview`."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ConfigError(f"preview: expected a number of messages from 0 up, not {n!r}")
    found = ((place, value, done) for place, value, done in islice(_messages(source), MOST) if done or not faulty)
    taken = list(islice(found, n))
    names = list(dict.fromkeys(name for _, value, _ in taken for name in _fields(value)))
    # The records' own fields may be called like these two.
    at, what = (_free(name, names) for name in ("place", "faults"))
    rows = [{at: place, **_fields(value), what: ", ".join(done)} for place, value, done in taken]
    return Preview(source.name, source.seed, [at, *names, what], rows)


def _messages(source: FaultySource) -> Iterator[tuple[int, Any, list[str]]]:
    """(place, value, what was done to it, and which rows are missing before it)."""
    missing: list[str] = []
    for _, values, marks in source.stretches():
        done: defaultdict[int, list[str]] = defaultdict(list, {0: missing} if missing else {})
        missing = []
        for at, row, name, detail in marks:
            if name in ("drop", "gap"):
                (done[at] if at < len(values) else missing).append(f"{name} row={row}")
            else:
                done[at].append(" ".join([name, *(f"{key}={value}" for key, value in detail.items())]))
        for at, value in enumerate(values):
            yield values.start + at, value, done[at]


def _fields(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"value": value}


def _free(name: str, taken: list[str]) -> str:
    while name in taken:
        name += "_"
    return name

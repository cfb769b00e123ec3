"""The rows of batches, as runs: by identity, by a flag, and where a run is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from simlink.channels.link.receiver import ReceiverLink
from simlink.message import Batch, Same

__all__ = ["Identities", "identities_of", "split", "stretches"]

Identities = list[tuple[bytes, Any, Any]]
"""``(producer, sequences, rows)``; ``rows`` indexes the batch."""
_ALL = slice(None)


def identities_of(link: ReceiverLink, batch: Batch) -> Identities:
    """The identities of a batch, by producer within the link's scope, without the messages that have none."""
    producers, sequences = batch.producers, batch.sequences
    if isinstance(producers, Same):
        if producers.value is None:
            return []
        if isinstance(sequences, (range, np.ndarray)):  # a union is made anew at every call
            return [(link.scope + producers.value, sequences, _ALL)]
    rows: dict[bytes, list[int]] = {}
    for row, (producer, sequence) in enumerate(zip(producers, sequences, strict=True)):
        if producer is not None and sequence is not None:
            rows.setdefault(producer, []).append(row)
    return [
        (link.scope + producer, np.array([sequences[r] for r in which], np.int64), which)
        for producer, which in rows.items()
    ]


def stretches(flags: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[tuple[int, int, bool]]:
    """``(start, stop, value)``: neighbours that are alike."""
    edges = [0, *(np.flatnonzero(np.diff(flags)) + 1).tolist(), len(flags)]
    for start, stop in pairwise(edges):
        yield start, stop, bool(flags[start])


def split(first: int, stop: int, handed: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """Cut a run where it was, and was not, handed out."""
    at = first
    for a, b in sorted(handed):
        start, end = max(a, at), min(b, stop)
        if start >= end:
            continue
        if start > at:
            yield at, start, False
        yield start, end, True
        at = end
    if at < stop:
        yield at, stop, False

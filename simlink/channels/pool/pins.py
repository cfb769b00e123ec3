"""Keys that stay with an endpoint while something of theirs is unsettled there: what ``order="per_key"`` means.

Pure bookkeeping. Messages without a key have no order to keep.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Pins"]


class Pins:
    """Key → the endpoint that has unsettled messages of it, and how many."""

    def __init__(self) -> None:
        self._where: dict[bytes, str] = {}
        self._open: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._where)

    def of(self, key: bytes) -> str | None:
        """Where a key is pinned, or None."""
        return self._where.get(key)

    def hold(self, name: str, keys: Iterable[bytes | None]) -> None:
        """These were given to an endpoint."""
        where, opened = self._where, self._open
        for key in keys:
            if key is not None:
                assert where.setdefault(key, name) == name
                opened[key] = opened.get(key, 0) + 1

    def release(self, keys: Iterable[bytes | None]) -> bool:
        """These are settled, or came back. Whether a key may move now."""
        free = False
        opened = self._open
        for key in keys:
            if key is None or key not in opened:
                continue
            opened[key] -= 1
            if not opened[key]:
                del opened[key], self._where[key]
                free = True
        return free

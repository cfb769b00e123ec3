"""What must hold over all records together, and can be checked where they arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Invariant"]


class Invariant(Protocol):
    """Books that records are entered in as they come, in any order; `simlink.verify` takes them as ``invariants=``.

    Attributes:
        name: what must hold, in a few words.
    """

    name: str

    def add(self, records: Sequence[Mapping[str, Any]], /) -> object:
        """Enter these records; none comes twice.

        Raises:
            ConfigError: one is no record of this kind. It is passed over.
        """
        ...

    def violations(self) -> tuple[int, Sequence[str]]:
        """How often it does not hold for what was entered so far, and the first of these in words."""
        ...

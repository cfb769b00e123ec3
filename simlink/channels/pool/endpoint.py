"""One endpoint of a pool, as a user sees it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["HEAD", "Endpoint"]

HEAD = ("endpoint", "state", "in flight", "sent", "latency", "last seen", "why")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint, as it stood when it was asked for.

    Attributes:
        name: ``host:port``, or the URL where that alone would not tell it from another.
        state: "connecting", "up", "suspect", "dead", "half open", "warming", "ejected" or "draining".
        in_flight: messages that it was given and has not settled (of a broker: confirmed).
        sent: messages that it was given, ever.
        latency: the moving mean from handing over to settling, in seconds; None where nothing is known.
        last_seen: seconds since its last sign of life; None where there was none.
        why: what made its state what it is.
        weight: its share, relative to the others'.
    """

    name: str
    state: str
    in_flight: int
    sent: int
    latency: float | None
    last_seen: float | None
    why: str
    weight: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """The values as text, one for each column of `HEAD`."""
        return (
            self.name,
            self.state,
            f"{self.in_flight:,}",
            f"{self.sent:,}",
            "–" if self.latency is None else f"{self.latency * 1e3:,.2f} ms",
            "never" if self.last_seen is None else f"{self.last_seen:.1f} s ago",
            self.why,
        )

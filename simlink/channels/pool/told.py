"""What a pool tells of its endpoints: as they stand, as counts, and why nothing goes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import SenderDriver
from simlink.channels.pool.endpoint import Endpoint
from simlink.errors import NoEndpoints

if TYPE_CHECKING:
    from simlink.channels.pool.slot import Slot
    from simlink.channels.pool.world import World
    from simlink.health.membership import Membership

__all__ = ["Told"]


class Told(SenderDriver):
    """The part of a pool that only looks."""

    url: str
    slots: dict[str, Slot]
    membership: Membership
    world: World
    moved: int
    beats: int
    _left: deque[tuple[str, int, int]]
    _resolved_times: int

    def endpoints(self) -> list[Endpoint]:
        """How each stands now."""
        now, membership = self.world.now(), self.membership
        loads = self._loads()
        out = []
        for slot in self.slots.values():
            seen = membership.last_seen(slot.name)
            out.append(
                Endpoint(
                    slot.name,
                    membership.state(slot.name).value,
                    slot.flights.open,
                    slot.sent,
                    loads.get(slot.name, {}).get("latency") or None,
                    None if seen is None else max(0.0, now - seen),
                    membership.why(slot.name),
                    slot.weight,
                )
            )
        return out

    def counts(self) -> dict[str, dict[str, Any]]:
        """What each was given; also those that have left. From any thread."""
        out = {
            slot.name: {
                "sent": slot.sent,
                "in_flight": slot.flights.open,
                "moved": slot.taken,
                "state": self.membership.state(slot.name).value,
                "why": self._why(slot.name),
            }
            for slot in list(self.slots.values())
        }
        for name, sent, taken in list(self._left):
            if name not in out:
                out[name] = {"sent": sent, "in_flight": 0, "moved": taken, "state": "removed", "why": "removed"}
        return out

    def _why(self, name: str) -> str:
        return self.membership.why(name) if name in self.membership.names else "removed"

    def _loads(self) -> Mapping[str, Mapping[str, float]]:
        """What the balancer knows of each."""
        return {}

    def obstacle(self) -> Exception | None:
        if self.membership.eligible(self.world.now()):
            return None
        return NoEndpoints(f"{self.url}: {self._no_endpoints()}", url=self.url, retryable=True)

    def _no_endpoints(self) -> str:
        if not self.slots:
            return "there are no endpoints; add one with channel.endpoints.add()"
        now = self.world.now()
        return f"no endpoint can take a message: {self.membership.account(now)}"

    def stats(self) -> Mapping[str, Any]:
        return {
            "endpoints": {
                name: {"in_flight": slot.flights.open, "sent": slot.sent, **slot.end.stats()}
                for name, slot in self.slots.items()
            },
            "moved": self.moved,
            "beats": self.beats,
            "resolved": self._resolved_times,
        }

"""What the sending ends of tcp, http and grpc have in common: what a pool asks of one of its many links."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from simlink.channels.driver import Outcome, SenderDriver
from simlink.channels.link.sender import SenderLink

__all__ = ["LinkSender"]


class LinkSender(SenderDriver):
    """A sending end whose books are a `SenderLink`. Whoever derives from it sets these, and counts.

    Attributes:
        _link: the books.
        _done: outcomes that nobody has asked for yet.
        _signs, _beats: how often the peer was heard, and how often in a heartbeat.
    """

    _link: SenderLink
    _done: list[Outcome]
    _signs: int
    _beats: int

    @abstractmethod
    def _drop(self) -> None:
        """Give the connection up, and note that it is gone."""

    def lease(self, seconds: float) -> None:
        self._link.lease_ms = max(1, round(seconds * 1000))

    def withdraw(self) -> Sequence[Outcome]:
        self._drop()
        done, self._done = self._done, []
        return [*done, *self._link.withdraw()]

    @property
    def incarnation(self) -> bytes:
        return self._link.incarnation

    @property
    def subscriptions(self) -> tuple[str, ...]:
        return self._link.subscriptions

    @property
    def addressable(self) -> bool:
        return self._link.addressable

    def address(self, subscriptions: tuple[str, ...]) -> None:
        self._link.address(subscriptions)

    @property
    def pulse(self) -> tuple[int, int]:
        return self._signs, self._beats

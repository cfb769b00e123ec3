"""Where a link's messages came from, and what is to be done when they are settled."""

from __future__ import annotations

from collections.abc import Callable

from simlink.channels.hub import Origin
from simlink.channels.link.receiver import ReceiverLink
from simlink.message import Batch, Verdict

__all__ = ["LinkOrigin", "Twin"]


class LinkOrigin(Origin):
    """An Origin that knows its link, the position of its first row, and whose copies it is of (none: everybody's).

    It does not refer to itself, not even by a bound callback: a batch must be gone with its last reference, and not
    when the garbage collector comes by, which counts objects and knows nothing of the megabytes that they hold.
    """

    __slots__ = ("_told", "batch", "link", "names", "position")

    def __init__(
        self,
        link: ReceiverLink,
        position: int,
        batch: Batch,
        told: Callable[[LinkOrigin, int, int, Verdict], None],
        ready: Callable[[], bool],
        names: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(None, ready)
        self.link = link
        self.position = position
        self.batch = batch
        self.names = names
        self._told = told

    def tell(self, first: int, stop: int, verdict: Verdict) -> None:
        self._told(self, first, stop, verdict)

    def freed(self, row: int) -> None:
        # Nothing is settled; but whoever waits for room must look again.
        self._told(self, row, row, Verdict.ACK)


class Twin:
    """A second copy of a message that is held, which is settled with the first.

    Args:
        names: the subscriptions whose first copies it waits for; None for that of any.
        settle: called once for each of them.
    """

    __slots__ = ("_names", "_settle")

    def __init__(self, names: set[str] | None, settle: Callable[[Verdict], None]) -> None:
        self._names = names
        self._settle = settle

    def told(self, names: frozenset[str], verdict: Verdict) -> bool:
        """The copies of these (none: of all) were settled; whether it waits for no other."""
        if self._names is None:
            self._settle(verdict)
            return True
        for name in self._names & names if names else set(self._names):
            self._names.discard(name)
            self._settle(verdict)
        return not self._names

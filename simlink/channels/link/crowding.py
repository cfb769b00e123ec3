"""One bound, over all links of a destination, on what came and found no room in its buffer.

A sender does not know how long its next message is when it is given credit, so it may exceed its credit in bytes by
one message. One link's excess is at most a frame; that of a thousand links is a thousand frames. So:

- what waits beyond the buffer has a bound over all links; a message that would pass it, and that its sender had no
  credit for, is not kept: its connection is ended as *busy*, which says that it was not accepted, and its sender keeps
  it, with everything behind it, in order;
- what such a sender wants is known until that much has come. Until then it is given no credit at all before there is
  room for all of it, and has its turn after those who asked before it; what it then sends is kept;
- a message alone may be of any length: whatever the bounds are, nobody waits for ever;
- credit that was given and is not used holds up nobody for long: soon it counts no more. All of it used at once is
  refused again, like any other excess.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from simlink.channels.wire.frames import Code, FrameError

if TYPE_CHECKING:
    from simlink.channels.link.receiver import ReceiverLink

__all__ = ["BEYOND", "check_room", "grant_in_turn"]

BEYOND = 16 * 1024 * 1024
"""Bytes: two of the longest frames, by default."""
PATIENCE = 0.2
"""Seconds that credit which is not used counts as promised: whoever asked for it sends at once."""


def check_room(link: ReceiverLink, nbytes: int, links: Iterable[ReceiverLink], beyond: int, now: float) -> None:
    """A message (or a few) of ``nbytes`` came by a link: may it wait?

    Raises:
        FrameError: no. To be tried again (BUSY).
    """
    mine = link.waiting_bytes
    if not mine or not (link.wants or link.overdrawn):
        return
    others = sum(other.waiting_bytes for other in links if other is not link)
    if others and mine + others > beyond:
        if not link.wants:
            link.asked = now
        link.wants = max(link.wants, nbytes)
        raise FrameError(f"{nbytes} bytes find no room now: {others} of others wait already", Code.BUSY, retryable=True)


def grant_in_turn(links: Iterable[ReceiverLink], room: int, now: float) -> bool:
    """Credit for those who are known to want much, as far as ``room`` bytes go. Whether somebody waits although there
    is room: look again soon."""
    wanting: list[ReceiverLink] = []
    promised = 0
    for link in links:
        left = link.credit_bytes - link.received_bytes
        if left <= 0:
            wanting.append(link)
        elif now - link.granted < PATIENCE:
            promised += left
    for link in sorted(wanting, key=lambda link: link.asked):
        if room <= 0:
            return False
        if promised and promised + link.wants > room:
            return True
        link.credit_bytes = link.received_bytes + link.wants
        link.granted = now
        promised += link.wants
    return False

"""Where reading starts: the user's word → the ID that everything before is passed over up to."""

from __future__ import annotations

import re
from datetime import datetime

from simlink.errors import ConfigError

__all__ = ["Start", "before", "check_start"]

Start = str | int | datetime

_ID = re.compile(r"(\d{1,19})(?:-(\d{1,20}))?\Z")
_LAST = 2**64 - 1


def check_start(start: Start | None) -> None:
    """Raises ConfigError: this is no start that Redis knows."""
    if start is None or start in {"earliest", "new"} or isinstance(start, datetime):
        return
    if isinstance(start, int) and not isinstance(start, bool) and start >= 0:
        return
    if not isinstance(start, str) or not _ID.match(start):
        raise ConfigError(
            f"start={start!r} is not 'earliest', 'new', an ID such as '1526919030474-0', milliseconds since 1970 "
            "UTC, or a datetime"
        )


def before(start: Start, *, end: str) -> str:
    """The ID below the first entry that is to be read; ``end`` for "new".

    A number is milliseconds since 1970 UTC, as in an ID; a datetime without a zone is local time.
    """
    check_start(start)
    if start == "new":
        return end
    if start == "earliest":
        return "0"
    if isinstance(start, datetime):
        milliseconds, sequence = max(0, int(start.timestamp() * 1000)), 0
    elif isinstance(start, int):
        milliseconds, sequence = start, 0
    else:
        found = _ID.match(start)
        assert found is not None
        milliseconds, sequence = int(found[1]), int(found[2] or 0)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{_LAST}" if milliseconds else "0"

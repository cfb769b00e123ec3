"""What commands print: people's words on stderr, or on stdout where nothing else goes there; JSON as the last line."""

from __future__ import annotations

import json
import math
import sys
from contextlib import suppress
from typing import Any

__all__ = ["emit", "finite", "say"]

# The standard streams may be None: closed by whoever started this, who then wants to hear nothing.


def say(text: object) -> None:
    """A line on stderr."""
    if sys.stderr is None:
        return
    # Where nobody can be told any more (the terminal has gone), the work goes on, and its report on stdout.
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def emit(values: dict[str, Any]) -> None:
    """One JSON object, the last line on stdout."""
    if sys.stdout is None:
        return
    ascii_only = (sys.stdout.encoding or "").replace("-", "").lower() != "utf8"
    sys.stdout.write(json.dumps(finite(values), ensure_ascii=ascii_only, default=str) + "\n")
    sys.stdout.flush()


def finite(value: Any) -> Any:
    """The value with None in the place of NaN and infinity, which JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value

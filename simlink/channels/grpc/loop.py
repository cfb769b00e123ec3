"""The event loop that all gRPC servers of this process share, and the thread that runs it while there are any.

One loop, and one that is never closed before the process ends: gRPC hands the events of all its asynchronous objects to
whichever loop looks first, and an event that comes late for a loop that is closed raises in somebody else's.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from typing import Any

__all__ = ["enter", "leave", "submit"]

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_users = 0
_pid = 0


def enter() -> asyncio.AbstractEventLoop:
    """The running loop, for one more user."""
    global _loop, _thread, _users, _pid
    with _lock:
        if _loop is None or _pid != os.getpid():
            # A forked child has none of the threads, and its parent's loop is its parent's.
            _loop, _thread, _users, _pid = asyncio.new_event_loop(), None, 0, os.getpid()
            atexit.register(_close, _loop)
        _users += 1
        if _thread is None:
            _thread = threading.Thread(target=_loop.run_forever, name="simlink-grpc", daemon=True)
            _thread.start()
        return _loop


def leave() -> None:
    """One user less; the last one ends the thread."""
    global _thread, _users
    with _lock:
        _users -= 1
        if _users or _thread is None:
            return
        assert _loop is not None
        _loop.call_soon_threadsafe(_loop.stop)
        _thread.join(5.0)
        _thread = None


def submit(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in the loop; it takes care of its own errors."""
    assert _loop is not None
    asyncio.run_coroutine_threadsafe(work, _loop)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_running():
        loop.close()

"""Starting a process that is handed much."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

__all__ = ["UNGUARDED", "begin"]

UNGUARDED: Final = ": a script that starts processes needs if __name__ == '__main__':"
"""What to add where a process ended before it said anything."""


def begin(
    context: Any, target: Callable[..., object], handles: tuple[Any, ...], more: tuple[Any, ...], **options: Any
) -> Any:
    """Start ``target(*handles, *more)`` in a process of this context.

    A spawned process gets ``more`` through a pipe of its own. `multiprocessing` itself would write it to one that it
    keeps open at both ends: where that is more than a pipe holds, and the process ends before it reads (a script
    without a guard does, as it is imported), it would wait for ever.

    Args:
        context: of `multiprocessing.get_context`.
        target: a function of a module.
        handles: what only the start of a process can hand over: pipes, locks.
        more: anything that pickles.
        options: of the process: ``name``, ``daemon``.

    Raises:
        TypeError: ``more`` does not pickle, and the process would be spawned.
    """
    if context.get_start_method() == "fork":
        process = context.Process(target=target, args=(*handles, *more), **options)
        process.start()
        return process
    try:
        data = pickle.dumps(more)
    except (AttributeError, TypeError, ValueError, ImportError, pickle.PicklingError) as error:
        raise TypeError(str(error)) from error
    reader, writer = context.Pipe(duplex=False)
    with writer:
        with reader:
            process = context.Process(target=_begun, args=(reader, target, handles), **options)
            process.start()
        with suppress(OSError):  # it has ended: whoever waits for it will hear
            writer.send_bytes(data)
    return process


def _begun(reader: Connection, target: Callable[..., object], handles: tuple[Any, ...]) -> None:
    with reader:
        try:
            data = reader.recv_bytes()
        except EOFError:
            return  # nobody is there any more
    target(*handles, *pickle.loads(data))  # noqa: S301 – from the process that started this one

"""The receiving end of grpc://: a reader of the listener's hub."""

from __future__ import annotations

from typing import Any, ClassVar

from simlink.channels.grpc.listener import Listener
from simlink.channels.grpc.settings import Settings
from simlink.channels.link.listeners import Listeners
from simlink.channels.link.listening import ListenerReceiver
from simlink.channels.tcp.settings import numeric

__all__ = ["GrpcReceiver"]


class GrpcReceiver(ListenerReceiver[Listener]):
    """Serves at one host of the URL, together with the other receivers of this process there."""

    listeners: ClassVar[Listeners[Listener, Settings]] = Listeners(Listener, numeric)

    @property
    def native(self) -> Any:
        """The `grpc.aio.Server`, which lives in the loop of the thread ``simlink-grpc-HOST:PORT``; or None."""
        return None if self._listener is None else self._listener.server

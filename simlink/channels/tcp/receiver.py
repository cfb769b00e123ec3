"""The receiving end of tcp://: a reader of the listener's hub."""

from __future__ import annotations

from typing import Any, ClassVar

from simlink.channels.link.listeners import Listeners
from simlink.channels.link.listening import ListenerReceiver
from simlink.channels.tcp.listener import Listener
from simlink.channels.tcp.settings import Settings, numeric

__all__ = ["TcpReceiver"]


class TcpReceiver(ListenerReceiver[Listener]):
    """Listens at one host of the URL, together with the other receivers of this process there."""

    listeners: ClassVar[Listeners[Listener, Settings]] = Listeners(Listener, numeric)

    @property
    def native(self) -> Any:
        """The listener."""
        return self._listener

"""http:// and https://: the receiver is an ASGI server (or a part of one), the sender keeps a connection open."""

from simlink.channels.http.app import HttpApp, asgi_app
from simlink.channels.http.driver import HttpDriver

__all__ = ["HttpApp", "HttpDriver", "asgi_app"]

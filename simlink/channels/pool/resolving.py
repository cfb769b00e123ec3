"""Endpoints that a resolver names while the channel runs: a function of the user's, or a DNS name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from simlink.channels.url import Host, Target
from simlink.errors import ConfigError

__all__ = ["names_of"]


def names_of(resolver: str | Callable[[], Sequence[str]], target: Target) -> Callable[[], list[str]]:
    """A function that asks the resolver and returns endpoints' names. It may block, and raise what the resolver raises.

    A DNS name may have a port, as ``workers.example:7001``; without one the port is that of the URL's first host. Every
    address that it has is an endpoint.

    Raises:
        ConfigError: there is no port to be had.
    """
    if callable(resolver):
        function = resolver

        def ask() -> list[str]:
            return list(dict.fromkeys(str(name) for name in function()))

        return ask
    name, _, text = resolver.partition(":")
    port = int(text) if text.isdigit() else target.hosts[0].port if target.hosts else None
    if not name or port is None:
        raise ConfigError(f"{target}: resolver={resolver!r} is a DNS name with a port, as workers.example:7001")

    def look_up() -> list[str]:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(Host(str(address[0]), port)) for *_, address in found))

    return look_up

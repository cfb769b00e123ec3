"""What kafka-python must be helped with when it logs in: silence about the password, and an ear for a refusal."""

from __future__ import annotations

import logging
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

__all__ = ["Hidden", "network_client"]

_SASL_AUTHENTICATE = 36
_KEYS = range(100)
"""What the protocol's requests are numbered with; anything else at that place is a login without a head."""


class Hidden(str):
    """A password in a configuration that the library writes into its log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**'"


def _hide_logins(record: logging.LogRecord) -> bool:
    """Whoever debugs reads every request in the library's log, and so a PLAIN login's password: let him not."""
    if isinstance(record.args, tuple):
        record.args = tuple(map(_hidden, record.args))
    return True


def _hidden(arg: Any) -> Any:
    if type(arg).__name__.startswith(("SaslAuthenticate", "SaslBytes")):
        return f"{type(arg).__name__}(**)"
    if isinstance(arg, bytes | bytearray):
        key = int.from_bytes(arg[4:6], "big")
        if key == _SASL_AUTHENTICATE or key not in _KEYS:
            return "**"
    return arg


for _name in ("kafka.protocol.parser", "kafka.net.connection"):
    logging.getLogger(_name).addFilter(_hide_logins)


def network_client(**config: Any) -> Any:
    """The library's network client, that hears a broker out and takes its no for an answer.

    A broker that refuses a login says so and closes. Where both come at once the library throws away what was said;
    and what it does learn it forgets, and tries again. Here the end of a connection is looked at only after the rest,
    and a refused login ends the search for a first broker.
    """
    client = KafkaNetClient(**config)
    manager = client._manager
    build, connect = manager._build_transport, manager.get_connection
    refused: list[Exception] = []

    async def build_transport(*args: Any, **kwargs: Any) -> Any:
        transport = await build(*args, **kwargs)
        receive = transport._sock_recv

        def hear_out() -> tuple[bytes, Exception | None]:
            data, error = receive()
            return (data, None) if data else (data, error)

        transport._sock_recv = hear_out
        return transport

    def note(error: Exception) -> None:
        if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
            refused.append(error)

    def get_connection(*args: Any, **kwargs: Any) -> Any:
        if manager.bootstrapped:
            return connect(*args, **kwargs)  # a client that was let in once goes on trying
        if refused:
            raise refused[0]
        connection = connect(*args, **kwargs)
        connection.init_future.add_errback(note)
        return connection

    manager._build_transport = build_transport
    manager.get_connection = get_connection
    return client

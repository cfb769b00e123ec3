"""Encryption and login with Kafka: the options, what both clients are told of them, and why a broker refuses.

The two libraries try a broker that refuses them for as long as they are let, and know little of why. So before a client
is made, `check` does what comes before any login on a connection of its own: the TLS handshake, and the question
whether the broker takes our kind of login. Names and passwords are the library's business alone.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simlink.channels import tls
from simlink.channels.credentials import LOGIN, Login
from simlink.channels.tls import Tls
from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, ConnectError

if TYPE_CHECKING:
    from simlink.channels.kafka.settings import Settings

__all__ = ["DEFAULT_SASL", "SECURITY", "check", "protocol", "security_of"]

DEFAULT_SASL = "scram-sha-512"
SECURITY: Mapping[str, Option] = {
    **tls.OPTIONS,
    **LOGIN,
    "sasl": Option(
        str,
        None,
        f"how user and password are shown, {DEFAULT_SASL} unless given; plain shows the password itself to the broker",
        choices=("scram-sha-512", "scram-sha-256", "plain"),
    ),
}

_API_VERSIONS = 18
_SASL_HANDSHAKE = 17
_UNSUPPORTED_MECHANISM = 33
_ILLEGAL_STATE = 34


def security_of(target: Target, options: Mapping[str, Any]) -> tuple[Tls | None, Login, str | None]:
    """TLS, the login, and the SASL mechanism in Kafka's own spelling (None without a login).

    Raises:
        ConfigError: options that contradict each other; see `Tls.of` and `Login.of`.
    """
    where = str(target)
    secure = Tls.of(options, secure=target.scheme.partition("+")[0] == "kafkas", where=where)
    login = Login.of(target, options.get("credentials"), family="kafka")
    mechanism = options.get("sasl")
    if not login.given:
        if mechanism is not None:
            raise ConfigError(f"{where}: sasl={mechanism} needs a user and a password")
        return secure, login, None
    return secure, login, str(mechanism or DEFAULT_SASL).upper()


def protocol(settings: Settings) -> str:
    """Kafka's ``security.protocol``."""
    return ("SASL_" if settings.mechanism else "") + ("SSL" if settings.tls else "PLAINTEXT")


def check(settings: Settings, timeout: float) -> None:
    """Ask the brokers of the list, one after the other, whether they would have us; enough if one does.

    A broker that does not answer is left to the library, which knows how to wait.

    Raises:
        ConnectError: not retryable: all that answered refuse us; the first one's reason.
    """
    if settings.tls is None and settings.mechanism is None:
        return
    deadline = time.monotonic() + timeout
    refused: ConnectError | None = None
    for name, port in settings.addresses:
        try:
            _ask(settings, name, port, deadline)
        except ConnectError as error:
            refused = refused or error
        except OSError:
            continue
        else:
            return
    if refused is not None:
        raise refused


def _ask(settings: Settings, name: str, port: int, deadline: float) -> None:
    endpoint = f"{name}:{port}"
    context = None if settings.tls is None else tls.client_context(settings.tls)
    sock = socket.create_connection((name, port), max(deadline - time.monotonic(), 0.001))
    try:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=name)
            answer = _question(sock, settings.mechanism)
        except OSError as error:
            raise tls.refusal(error, endpoint=endpoint, url=settings.url, tls=settings.tls) or error from error
    finally:
        sock.close()
    if settings.mechanism is not None and len(answer) >= 2:
        (code,) = struct.unpack_from(">h", answer)
        why = None
        if code == _UNSUPPORTED_MECHANISM:
            why = f"it takes no {settings.mechanism}, but {', '.join(_names(answer))}; see sasl="
        elif code == _ILLEGAL_STATE:
            why = "it asks for no user and password on this port"
        if why is not None:
            raise ConnectError(f"Kafka at {endpoint} refused: {why}", url=settings.url, endpoint=endpoint)


def _question(sock: socket.socket, mechanism: str | None) -> bytes:
    """The answer, behind its correlation id, to what a client asks first."""
    key, version, body = _API_VERSIONS, 0, b""
    if mechanism is not None:
        key, version = _SASL_HANDSHAKE, 1
        body = struct.pack(">h", len(mechanism)) + mechanism.encode()
    request = struct.pack(">hhih", key, version, 0, -1) + body
    sock.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(sock, 4))
    return _exactly(sock, min(max(size, 0), 65_536))[4:]


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError("it closed the connection")
        data += part
    return data


def _names(answer: bytes) -> list[str]:
    """The mechanisms in an answer to SaslHandshake."""
    (count,) = struct.unpack_from(">i", answer, 2)
    names, at = [], 6
    for _ in range(min(count, 32)):
        (size,) = struct.unpack_from(">h", answer, at)
        names.append(answer[at + 2 : at + 2 + size].decode(errors="replace"))
        at += 2 + size
    return names

"""Who may call, and over what: TLS credentials as gRPC wants them, and the bearer token on both sides."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from simlink.channels import tls
from simlink.channels.credentials import Secret
from simlink.channels.peers import plain_scope
from simlink.channels.tls import Tls
from simlink.errors import ConnectError, TransportError

__all__ = ["TokenCheck", "caller", "client_credentials", "proven", "server_credentials", "token_metadata"]

_NAMES = ("x509_subject", "x509_common_name", "x509_subject_alternative_name")
"""What gRPC tells of a certificate that a client has shown, besides its text."""
_OPEN_TO_ALL = "/grpc.health.v1.Health/"
"""Whoever looks after a service asks for its health, and has no token."""


def client_credentials(options: Tls) -> Any:
    """What `grpc.secure_channel` needs.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    files = tls.pem(options)
    return grpc.ssl_channel_credentials(
        root_certificates=files.ca if files.ca is not None else _system_roots(),
        private_key=files.key,
        certificate_chain=files.cert,
    )


def server_credentials(options: Tls) -> Any:
    """What a server's secure port needs; with a CA, clients must show a certificate of it.

    Raises:
        ConfigError: as `client_credentials`, or there is no certificate.
    """
    files = tls.pem(options, server=True)
    assert files.cert is not None
    assert files.key is not None
    return grpc.ssl_server_credentials(
        [(files.key, files.cert)], root_certificates=files.ca, require_client_auth=files.ca is not None
    )


def _system_roots() -> bytes | None:
    """The CAs that the system trusts, as everything else here does; gRPC's own list where the system has no file."""
    path = ssl.get_default_verify_paths().cafile
    return None if path is None else Path(path).read_bytes()


def token_metadata(token: Secret, url: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call.

    Raises:
        ConnectError: the token cannot be had, or cannot be sent.
    """
    text = token.get()
    if text is None:
        return ()
    if not (text.isascii() and text.isprintable()):
        raise ConnectError(f"{url}: the token has characters that a header cannot carry", url=url)
    return (("authorization", f"Bearer {text}"),)


def proven(context: Any) -> bytes:
    """Who calls, where a certificate proves it, else b""; see `tls.peer_identity`."""
    shown = context.auth_context()
    return tls.peer_identity(*(tuple(shown.get(name, ())) for name in _NAMES))


def caller(context: Any) -> bytes:
    """Who calls without a link; see `plain_scope`."""
    shown = next((value for name, value in context.invocation_metadata() or () if name == "authorization"), "")
    # "ipv4:127.0.0.1:50000": the port is another one for each connection.
    return plain_scope(proven(context), str(shown).encode(), context.peer().rpartition(":")[0])


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the library has no types
    """Lets nobody in who does not show the token; asked anew at each call, so it may change."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], call: Any) -> Any:
        if call.method.startswith(_OPEN_TO_ALL):
            return await continuation(call)
        try:
            expected = self._token.get()
        except TransportError:
            return _refusal(grpc.StatusCode.UNAVAILABLE, "the token cannot be checked now")
        shown = next((value for name, value in call.invocation_metadata if name == "authorization"), None)
        if shown is None:
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed")
        scheme, _, secret = str(shown).partition(" ")
        # The scheme in any case (RFC 9110, 11.1); the rest in a time that does not depend on how much of it is right.
        right = hmac.compare_digest(secret.strip().encode(), str(expected).encode())
        if scheme.lower() != "bearer" or expected is None or not right:
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, "the bearer token is wrong")
        return await continuation(call)


def _refusal(code: grpc.StatusCode, details: str) -> Any:
    async def refuse(_: Any, context: Any) -> None:
        context.set_code(code)
        context.set_details(details)

    # For a unary method as well: it reads nothing, so nobody can make it wait.
    return grpc.stream_stream_rpc_method_handler(refuse)

"""Encryption, the same on every transport: four options, two contexts, one sentence when it is refused.

How a driver uses it::

    options = {..., **tls.OPTIONS}           # URL parameters and keyword options: ca, cert, key, tls_min
    self.tls = Tls.of(options, secure=scheme == "amqps", where=str(target))    # None on a plain scheme; no I/O
    context = tls.client_context(self.tls)   # or server_context(...), or pem(...) for PEM bytes
    context.wrap_socket(sock, server_hostname=host)
    ...
    except OSError as error:                                   # or the client library's own error
        raise tls.refusal(error, endpoint="mq:5671", url=str(target)) or ConnectError(...) from error

Contexts are made when a connection is opened, so that renewed files are read. The certificate and the name of a server
are always verified; there is no option that turns this off. Passwords and tokens are in `simlink.channels.credentials`.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simlink.channels.url import Option
from simlink.errors import ConfigError, ConnectError

__all__ = ["OPTIONS", "Pem", "Tls", "client_context", "explain", "pem", "refusal", "server_context"]

OPTIONS: Mapping[str, Option] = {
    "ca": Option(
        str,
        None,
        "PEM file of the CAs to trust instead of the system's; at a listener, senders must then show a certificate "
        "of one of them",
    ),
    "cert": Option(str, None, "PEM file of our own certificate with its chain; needed at a listener"),
    "key": Option(str, None, "PEM file of its private key, not encrypted; not needed if `cert` has it too"),
    "tls_min": Option(str, None, "the oldest TLS version to accept, 1.2 unless given", choices=("1.2", "1.3")),
}

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Tls:
    """What was asked for, checked as far as that needs no file.

    Attributes:
        ca, cert, key: paths of PEM files, or None.
        minimum: "1.2" or "1.3". A driver whose library cannot be told "1.3" must refuse it (NotSupported).
        where: the channel's URL with secrets masked, for messages.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    minimum: str = "1.2"
    where: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any], *, secure: bool, where: str) -> Tls | None:
        """From a driver's checked options (others among them are ignored); None if the scheme is not ``secure``.

        Raises:
            ConfigError: an option of encryption on a plain scheme, or a key without a certificate.
        """
        given = {name: options[name] for name in OPTIONS if options.get(name) is not None}
        if not secure:
            if given:
                scheme, _, _ = where.partition("://")
                raise ConfigError(
                    f"{where}: {next(iter(given))}= means nothing without TLS; use a scheme with TLS "
                    f"instead of {scheme}://"
                )
            return None
        ca, cert, key = (str(Path(given[n]).expanduser()) if n in given else None for n in ("ca", "cert", "key"))
        if key is not None and cert is None:
            raise ConfigError(f"{where}: key= needs the certificate that it belongs to: give it with cert=")
        return cls(ca, cert, key if key is not None else cert, given.get("tls_min", "1.2"), where)


@dataclass(frozen=True, slots=True)
class Pem:
    """The files' bytes; None where none was given."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None = field(repr=False)


def client_context(tls: Tls) -> ssl.SSLContext:
    """For the connecting side: verifies the peer's certificate and name, shows our own certificate if there is one.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    context.minimum_version = _VERSIONS[tls.minimum]
    if tls.ca is not None:
        _trust(context, tls.ca, tls.where)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    _show(context, tls)
    return context


def server_context(tls: Tls) -> ssl.SSLContext:
    """For the listening side: shows its certificate; with ``ca`` a client must show one of that CA (mutual TLS).

    Raises:
        ConfigError: no certificate was given, or a file is missing or is not what it should be.
    """
    _need_certificate(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A client that only sends would close with tickets unread, and so reset the connection before all was read here.
    context.num_tickets = 0
    context.minimum_version = _VERSIONS[tls.minimum]
    if tls.ca is not None:
        _trust(context, tls.ca, tls.where)
        context.verify_mode = ssl.CERT_REQUIRED
    _show(context, tls)
    return context


def pem(tls: Tls, *, server: bool = False) -> Pem:
    """For libraries that want the bytes and not a context. The files are checked as the contexts check them.

    Raises:
        ConfigError: as `client_context`, or `server_context` for a ``server``.
    """
    (server_context if server else client_context)(tls)
    ca, cert, key = (None if path is None else Path(path).read_bytes() for path in (tls.ca, tls.cert, tls.key))
    return Pem(ca, cert, key)


def _need_certificate(tls: Tls) -> None:
    if tls.cert is None:
        raise ConfigError(f"{tls.where}: a receiver that listens with TLS needs cert= and key=, its PEM files")


def _trust(context: ssl.SSLContext, path: str, where: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(f"{where}: ca={path!r} has no certificate in PEM form") from error
    except OSError as error:
        raise ConfigError(f"{where}: ca={path!r} cannot be read: {error.strerror or error}") from error


def _show(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.cert is None:
        return

    def encrypted() -> str:
        # Without this the library would ask at the terminal, and wait.
        raise ConfigError(f"{tls.where}: the private key in {tls.key!r} is encrypted; give one that is not")

    for name, path in (("cert", tls.cert), ("key", tls.key)):
        try:
            assert path is not None
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"{tls.where}: {name}={path!r} cannot be read: {error.strerror or error}") from error
    try:
        context.load_cert_chain(tls.cert, tls.key, password=encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{tls.where}: the private key in {tls.key!r} is not that of {tls.cert!r}") from error
        what = "certificate and its private key" if tls.key == tls.cert else "certificate, or key= no private key,"
        raise ConfigError(f"{tls.where}: cert={tls.cert!r} has no {what} in PEM form") from error


# --- one sentence for each refusal ----------------------------------------------------------------------------------

_UNTRUSTED = "its certificate is not signed by a trusted CA; give its CA with ca="
_UNSHOWN = "it wants a client certificate; give one with cert= and key="
_UNWELCOME = "it does not trust our certificate; see cert= (and ca= at its side)"
_TOO_OLD = "the two sides have no TLS version in common; see tls_min="
_PLAIN = "it does not speak TLS on this port"

_NAME = (
    r"hostname.*(?:mismatch|match|verif)|ip address mismatch|certificate is not valid for|"
    r"doesn.t match|peer name .* is not in"
)
_CA = (
    r"self.signed certificate|unable to get (?:local )?issuer|unable to verify the first|"
    r"broker certificate could not be verified"
)
_REASONS: tuple[tuple[str, str], ...] = (
    # What we found out about the peer: texts of X509_verify_cert_error_string, in OpenSSL and BoringSSL.
    (_NAME, "its certificate is for another name than the one it was called by"),
    (r"certificate has expired", "its certificate has expired"),
    (r"not yet valid", "its certificate is not valid yet"),
    (r"certificate revoked", "its certificate was revoked"),
    (_CA, _UNTRUSTED),
    # What the peer found out about us, as alerts (RFC 8446, 6.2; RFC 5246, 7.2.2), or as a listener says it.
    (r"alert.certificate.required|did not return a certificate|certificate required", _UNSHOWN),
    (
        r"alert.(?:unknown.ca|bad.certificate|certificate.unknown|unsupported.certificate)",
        _UNWELCOME,
    ),
    (r"alert.certificate.expired", "our certificate has expired"),
    (r"alert.certificate.revoked", "our certificate was revoked"),
    (r"alert.protocol.version|unsupported.protocol|wrong.ssl.version|tlsv1 alert protocol|version.too.low", _TOO_OLD),
    (r"wrong.version.number|http.request|record.layer.failure|packet.length.too.long|not an ssl", _PLAIN),
    (r"no.shared.cipher", "the two sides have no cipher in common"),
    # TLS 1.2 has no alert of its own for a certificate that was not shown.
    (
        r"alert.handshake.failure|handshake.failure",
        "it broke the handshake off: it may want a client certificate (cert= and key=), or another TLS version",
    ),
    (r"certificate.verify.failed", _UNTRUSTED),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), sentence) for pattern, sentence in _REASONS)
_LOOKS_LIKE_TLS = re.compile(r"ssl|tls|certificate|handshake", re.IGNORECASE)


def explain(error: BaseException | str) -> str | None:
    """Why TLS was refused, as a clause about the peer ("its certificate has expired"); None if that was not it.

    Looks through the causes, contexts and arguments of an error, so a client library's own error will do, and through
    a text for libraries that have only that. A connection that merely broke during the handshake is not a refusal.
    """
    for text in [error] if isinstance(error, str) else _texts(error):
        if _LOOKS_LIKE_TLS.search(text):
            for pattern, sentence in _COMPILED:
                if pattern.search(text):
                    return sentence
    return None


def peer_identity(*names: object) -> bytes:
    """Who a peer is by what its certificate says of it: 16 bytes that a renewed certificate keeps.

    Args:
        names: its subject and its other names, as one TLS library has them; b"" comes of none.
    """
    return hashlib.sha256(repr(names).encode()).digest()[:16] if any(names) else b""


def certificate_identity(certificate: Mapping[str, object] | None) -> bytes:
    """The same of what `ssl.SSLSocket.getpeercert` returns."""
    given = certificate or {}
    return peer_identity(given.get("subject"), given.get("subjectAltName"))


def refusal(
    error: BaseException | str, *, endpoint: str, url: str | None = None, tls: Tls | None = None
) -> ConnectError | None:
    """The same as an error that is not retryable; None if it was not TLS that failed.

    Args:
        error: as `explain` takes it; it becomes the cause.
        endpoint: ``host:port``.
        url: the channel's, masked.
        tls: what we had: some servers say the same of no certificate as of a wrong one.
    """
    why = explain(error)
    if why == _UNWELCOME and tls is not None and tls.cert is None:
        why = _UNSHOWN
    if why is None:
        return None
    found = ConnectError(f"TLS with {endpoint} is refused: {why}", url=url, endpoint=endpoint)
    if isinstance(error, BaseException):
        found.__cause__ = error
    return found


def _texts(error: BaseException) -> Iterator[str]:
    """The texts of an error and of what stands behind it, the innermost first: it knows best."""
    chain: list[BaseException] = []
    todo: list[object] = [error]
    while todo and len(chain) < 50:
        one = todo.pop(0)
        if isinstance(one, BaseException) and not any(one is known for known in chain):
            chain.append(one)
            todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
            todo += getattr(one, "exceptions", ())
    for one in reversed(chain):
        kind = "SSL " if isinstance(one, ssl.SSLError) else ""
        yield f"{kind}{one}".replace("_", " ")

"""What a broker's secured listener needs: certificate files, and a user with a password."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from simlink.errors import ConfigError

__all__ = ["Certificates", "Security"]


@dataclass(frozen=True)
class Certificates:
    """PEM files of a server.

    Attributes:
        cert: its certificate with the chain.
        key: the private key, not encrypted.
        ca: if given, clients must show a certificate that this CA has signed.
    """

    cert: str
    key: str
    ca: str | None = None


@dataclass(frozen=True)
class Security:
    """How a broker lets clients in; nothing set means plain and open. Its repr shows no password."""

    tls: Certificates | None = None
    user: str | None = None
    password: str | None = None

    def __post_init__(self) -> None:
        if self.user is not None and self.password is None:
            raise ConfigError(f"the broker's user {self.user!r} needs a password")

    def __repr__(self) -> str:
        return f"Security(tls={self.tls!r}, user={self.user!r}, password={'**' if self.password else None!r})"

    def __bool__(self) -> bool:
        return self.tls is not None or self.password is not None

    @property
    def userinfo(self) -> str:
        """What stands before the host in a URL: ``user:password@``, or nothing."""
        if self.password is None:
            return ""
        return f"{quote(self.user or '', safe='')}:{quote(self.password, safe='')}@"


def private_key_as_pkcs8(path: str) -> str:
    """The PEM text of a private key in the one form that Java reads.

    Raises:
        ConfigError: it is in another form, and there is no openssl to change it.
    """
    text = Path(path).read_text(encoding="ascii")
    if "-----BEGIN PRIVATE KEY-----" in text:
        return text
    if shutil.which("openssl") is None:
        raise ConfigError(f"{path}: Java reads PKCS 8 keys only, and the openssl program that makes one is missing")
    command = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", path]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"{path} is not an unencrypted private key in PEM form") from error

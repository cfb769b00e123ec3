"""Proof of a shared secret without saying it: HMAC-SHA-256 over fresh numbers of both sides, one each way.

A challenge and response as in RFC 2195 and RFC 5802, with what the two say of themselves in it, and with the side that
speaks, so that nobody's proof can be sent back to him. Whoever listens on a connection without TLS can try guesses
against what he heard, so a secret has a least length; and he reads the messages: a secret only keeps strangers out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from simlink.channels.driver import Mode
from simlink.errors import ConfigError

if TYPE_CHECKING:
    from simlink.channels.wire.frames import Hello

__all__ = ["LEAST", "NONCE", "checked", "fresh", "of_receiver", "of_sender", "same"]

NONCE = 32
LEAST = 16
"""The shortest secret, in bytes."""


def checked(secret: str, where: str) -> bytes:
    """The secret's bytes.

    Raises:
        ConfigError: it is too short to withstand guessing.
    """
    key = secret.encode()
    if len(key) < LEAST:
        raise ConfigError(
            f"{where}: secret= needs {LEAST} bytes or more, or it can be guessed; secrets.token_urlsafe() makes one"
        )
    return key


def fresh() -> bytes:
    """A number for one connection."""
    return os.urandom(NONCE)


def of_receiver(secret: bytes, hello: Hello, nonce: bytes) -> bytes:
    """What the receiver shows in its Challenge, which has this ``nonce``."""
    return _proof(b"simlink receiver", secret, hello, nonce)


def of_sender(secret: bytes, hello: Hello, nonce: bytes) -> bytes:
    """What the sender shows in its Proof, after a Challenge with this ``nonce``."""
    return _proof(b"simlink sender", secret, hello, nonce)


def same(one: bytes, other: bytes) -> bool:
    """Whether two proofs are the same, in a time that does not tell how far they are."""
    return hmac.compare_digest(one, other)


def _proof(role: bytes, secret: bytes, hello: Hello, nonce: bytes) -> bytes:
    mode = b"\1" if hello.mode is Mode.QUEUE else b"\2"
    parts = (role, hello.nonce, nonce, hello.sender, mode, hello.destination.encode(), hello.subscription.encode())
    # Each with its length in front: no two different conversations have the same text.
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.new(secret, text, hashlib.sha256).digest()

"""Who somebody without a link is, as far as that can be told: what its de-duplication is scoped by.

A link needs no more than a certificate where there is one: its producer is 128 random bits that its receiver alone is
told. A plain client chooses a producer, or an Idempotency-Key, as it likes, and whoever has received a message knows
that of another. So what it says of itself counts within what it cannot choose.
"""

from __future__ import annotations

import hashlib

__all__ = ["plain_scope"]


def plain_scope(certificate: bytes, authorization: bytes, host: str) -> bytes:
    """16 bytes that two clients share only if they cannot be told apart.

    Args:
        certificate: who it is by its certificate (`tls.peer_identity`); this alone counts where it is not empty.
        authorization: the credentials of its request. All clients of one receiver may have the same, so they do not
            stand alone.
        host: the address that it comes from, without the port, which is another for each connection; empty where
            there is none.
    """
    if certificate:
        return certificate
    said = repr((authorization, host)).encode()
    return hashlib.blake2b(said, digest_size=16, person=b"simlink-plain").digest()

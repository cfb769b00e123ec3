"""The proof of a shared secret: as the wire format's page tells it, and of one conversation only."""

import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.driver import Mode
from simlink.channels.link import proof
from simlink.channels.wire.frames import Hello
from simlink.errors import ConfigError

SECRET = b"a secret of both sides"
NONCE = b"r" * 32
HELLO = Hello(b"s" * 16, "orders", Mode.TOPIC, "audit", nonce=b"n" * 32)


@pytest.mark.parametrize(
    ("role", "made"),
    [
        (b"simlink receiver", proof.of_receiver(SECRET, HELLO, NONCE)),
        (b"simlink sender", proof.of_sender(SECRET, HELLO, NONCE)),
    ],
)
def test_a_proof_is_what_the_page_says(role, made):
    parts = [role, HELLO.nonce, NONCE, HELLO.sender, b"\x02", b"orders", b"audit"]
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    assert made == hmac.digest(SECRET, text, hashlib.sha256)


CHANGES = st.sampled_from(
    [
        {"sender": b"t" * 16},
        {"destination": "order"},
        {"destination": "ordersa", "subscription": "udit"},
        {"mode": Mode.QUEUE},
        {"subscription": ""},
        {"nonce": b"m" * 32},
    ]
)


@given(CHANGES)
def test_a_proof_is_of_one_conversation(change):
    made = {
        function(SECRET, hello, NONCE)
        for function in (proof.of_receiver, proof.of_sender)
        for hello in (HELLO, replace(HELLO, **change))
    }
    made |= {proof.of_sender(SECRET + b"!", HELLO, NONCE), proof.of_sender(SECRET, HELLO, b"q" * 32)}

    assert len(made) == 6


def test_every_connection_has_a_number_of_its_own():
    assert len({proof.fresh() for _ in range(100)}) == 100
    assert len(proof.fresh()) == proof.NONCE


@pytest.mark.parametrize("secret", ["", "x" * 15, "ä" * 7])
def test_a_secret_has_a_least_length_in_bytes(secret):
    with pytest.raises(ConfigError, match="secret= needs 16 bytes or more, or it can be guessed"):
        proof.checked(secret, "tcp://h:1/orders")


def test_a_long_enough_secret_is_its_bytes():
    assert proof.checked("ä" * 8, "") == "ä".encode() * 8

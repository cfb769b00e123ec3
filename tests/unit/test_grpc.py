"""The parts of grpc:// that need no server: what is joined, what statuses mean, what plain clients may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")

from simlink.channels import registry  # noqa: E402  # behind the skip
from simlink.channels.credentials import Secret  # noqa: E402
from simlink.channels.driver import Mode  # noqa: E402
from simlink.channels.grpc import GrpcDriver  # noqa: E402
from simlink.channels.grpc import driver as driver_module  # noqa: E402
from simlink.channels.grpc import service_pb2 as pb  # noqa: E402
from simlink.channels.grpc.failures import STATUS_OF, connect_error  # noqa: E402
from simlink.channels.grpc.sender import GrpcSender  # noqa: E402
from simlink.channels.grpc.services import _message  # noqa: E402
from simlink.channels.grpc.settings import Token  # noqa: E402
from simlink.channels.url import parse_url  # noqa: E402
from simlink.channels.wire.codec import decode  # noqa: E402
from simlink.channels.wire.frames import BatchFrame, Code, Welcome  # noqa: E402
from simlink.errors import MissingExtra  # noqa: E402
from simlink.message import Batch  # noqa: E402


class Quiet:
    """A stream that takes what it is told to take."""

    def __init__(self):
        self.frames = []
        self.taken = 0
        self.wants_to_know = 0

    @property
    def unsent(self):
        return len(self.frames) - self.taken

    def write(self, data):
        self.frames.append(decode(data))

    def tell_when_hungry(self):
        self.wants_to_know += 1

    def get(self, timeout):
        return None

    heard = float("inf")

    @property
    def sizes(self):
        return [len(f.batch) for f in self.frames if isinstance(f, BatchFrame)]


@pytest.fixture
def sender():
    made = GrpcSender(GrpcDriver(parse_url("grpc://127.0.0.1:1/orders"), mode=Mode.QUEUE))
    made._link.hello()
    made._link.welcome(Welcome(b"i" * 16, credit=65_536, credit_bytes=1 << 30))
    made._stream = Quiet()
    return made


def test_small_batches_are_joined_while_the_stream_is_busy(sender):
    stream = sender._stream
    for position in range(0, 3_000, 100):
        sender.submit(Batch([b"x" * 140] * 100), position)
    # The first goes at once; of what came meanwhile only a whole message of the stream is put behind it.
    assert (stream.sizes, stream.unsent) == ([100, 1_000], 2)
    assert stream.wants_to_know > 0
    stream.taken = 2
    sender.outcomes(0.0)
    stream.taken = len(stream.frames)
    sender.outcomes(0.0)
    assert stream.sizes == [100, 1_000, 1_000, 900]


def test_one_message_goes_at_once(sender):
    sender.submit(Batch([b"x"]), 0)
    assert sender._stream.sizes == [1]


def test_nothing_goes_beyond_the_credit(sender):
    sender._link._credit = 150
    sender.submit(Batch([b"x"] * 1_000), 0)
    assert sender._stream.sizes == [150]
    assert sender.stats()["queued"] == 850


class Failed(grpc.RpcError):
    def __init__(self, code, details):
        super().__init__(details)
        self.answer = code, details

    def code(self):
        return self.answer[0]

    def details(self):
        return self.answer[1]


@pytest.mark.parametrize(
    ("code", "details", "says", "retryable"),
    [
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:5: Connection refused (111)",
            "h:5 cannot be reached: nobody listens there",
            True,
        ),
        (
            "UNAVAILABLE",
            "DNS resolution failed for h:5: no such host",
            "h:5 cannot be reached: its name cannot be resolved: DNS resolution failed for h:5: no such host",
            True,
        ),
        ("UNAVAILABLE", "Socket closed", "h:5 cannot be reached, or not any more: Socket closed", True),
        ("UNAVAILABLE", None, "h:5 cannot be reached, or not any more: no reason given", True),
        ("UNAUTHENTICATED", "the bearer token is wrong", "h:5 refuses: the bearer token is wrong", False),
        ("UNIMPLEMENTED", "", "h:5 is a gRPC server, but no receiver of simlink", False),
        ("INTERNAL", "two\n lines", "h:5 ended the stream: INTERNAL: two lines", True),
    ],
)
def test_a_status_becomes_one_sentence(code, details, says, retryable):
    cause = Failed(grpc.StatusCode[code], details)
    error = connect_error(cause, "h:5", "grpc://h:5/orders")
    assert (str(error), error.retryable, error.__cause__, error.endpoint) == (says, retryable, cause, "h:5")


@pytest.mark.parametrize(
    ("shown", "may"), [(False, "it may want a client certificate"), (True, "it may not trust our certificate")]
)
def test_a_connection_that_is_cut_once_it_is_encrypted_may_be_about_our_certificate(shown, may):
    cause = Failed(grpc.StatusCode.UNAVAILABLE, "ipv4:127.0.0.1:5: Socket closed")
    error = connect_error(cause, "h:5", "grpcs://h:5/orders", secure=True, shown=shown)
    assert str(error) == f"h:5 cannot be reached, or not any more: ipv4:127.0.0.1:5: Socket closed; {may}"


def test_every_reason_to_end_a_link_has_a_status():
    assert set(STATUS_OF) == set(Code)


@given(st.binary(max_size=200))
def test_whatever_a_plain_client_says_is_a_message_or_a_sentence(data):
    wire = pb.Message()
    try:
        wire.ParseFromString(data)
    except Exception:  # not Protobuf: gRPC answers that
        return
    try:
        message = _message(wire)
    except ValueError:
        return
    assert (message.producer is None) == (message.sequence is None)
    assert message.producer is None or len(message.producer) == 16


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=5)


@given(
    st.one_of(st.none(), st.binary(max_size=5)),
    st.dictionaries(texts, texts, max_size=3),
    st.one_of(st.none(), st.integers(0, 2**63 - 1)),
)
def test_what_a_plain_client_says_is_taken_as_it_is(key, headers, sequence):
    wire = pb.Message(body=b"b", headers=headers)
    if key is not None:
        wire.key = key
    if sequence is not None:
        wire.sequence, wire.producer = sequence, b"p" * 16
    message = _message(wire)
    assert (message.body, message.key, dict(message.headers), message.sequence) == (b"b", key, headers, sequence)


def test_a_token_is_compared_by_its_text_and_never_shown():
    def token(text):
        return Token(Secret.of(parse_url("grpc://h:1/n"), "token", text, family="grpc"))

    assert token("hush") == token("hush")
    assert token("hush") == token(lambda: "hush")
    assert token("hush") != token("other")
    assert "hush" not in repr(token("hush"))


def test_without_the_library_the_command_that_adds_it_is_told(monkeypatch):
    monkeypatch.setattr(driver_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"simlink\[grpc\]"):
        registry.driver_class("grpc")(parse_url("grpc://h:1/n"), mode=Mode.QUEUE)

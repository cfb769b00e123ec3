"""tcps:// and the shared secret over real sockets: who is let in, who is refused, in one sentence, and nothing told."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink.channels import tls
from simlink.channels.driver import Mode
from simlink.channels.tcp import TcpDriver
from simlink.channels.tcp.secure import SecureSocket
from simlink.channels.tls import Tls
from simlink.channels.url import parse_url
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import BatchFrame, Challenge, Code, ErrorFrame, Hello, Proof, Welcome
from simlink.channels.wire.framing import FrameReader
from simlink.errors import ConfigError, ConnectError
from simlink.message import Batch, Same
from tests.support.brokerless import LOCAL, PATIENCE, receiving, until
from tests.support.certificates import Authority

SECRET = "S3cr3t-hidden-0123456789"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "stranger")


@pytest.fixture(scope="module")
def server(authority):
    return authority.issue(LOCAL)


def driver(port=0, *, scheme="tcps", **options):
    return TcpDriver(parse_url(f"{scheme}://{LOCAL}:{port}/orders"), mode=Mode.QUEUE, **options)


def port_of(rx):
    return int(rx.address.rpartition(":")[2])


def refusal(d):
    tx = d.sender()
    try:
        with pytest.raises(ConnectError) as caught:
            tx.open(5.0)
    finally:
        tx.close(0.0)
    assert "\n" not in str(caught.value)
    return caught.value


def pair(d):
    return {"cert": d.cert, "key": d.key}


# --- certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "clause"),
    [
        ("expired", "its certificate has expired"),
        ("wrong name", "its certificate is for another name than the one it was called by"),
        ("wrong ca", "its certificate is not signed by a trusted CA; give its CA with ca="),
        ("system's cas", "its certificate is not signed by a trusted CA; give its CA with ca="),
    ],
)
def test_a_receiver_that_cannot_be_trusted(authority, stranger, server, fault, clause):
    shown = {"expired": authority.issue(LOCAL, expired=True), "wrong name": authority.issue("other.example")}
    trusted = {"wrong ca": {"ca": stranger.ca}, "system's cas": {}}.get(fault, {"ca": authority.ca})
    with receiving(driver(**pair(shown.get(fault, server)))) as rx:
        error = refusal(driver(port_of(rx), **trusted))
    assert str(error) == f"TLS with {rx_address(error)} is refused: {clause}"
    assert (error.retryable, isinstance(error.__cause__, ssl.SSLError)) == (False, True)


def rx_address(error):
    assert error.endpoint.startswith(f"{LOCAL}:")
    return error.endpoint


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("shown", [None, "stranger"])
def test_a_sender_without_the_right_certificate_is_not_let_in(
    authority, stranger, server, version, shown, caplog, monkeypatch
):
    if version == "1.2":
        contexts = tls.client_context

        def older(options):
            context = contexts(options)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            return context

        monkeypatch.setattr(tls, "client_context", older)
    mine = pair(stranger.issue("client.example")) if shown else {}
    with receiving(driver(ca=authority.ca, **pair(server))) as rx:
        error = refusal(driver(port_of(rx), ca=authority.ca, **mine))
        until(lambda: rx.stats()["refused"] == 1 and caplog.records)
    clause = {
        (None, "1.3"): "it wants a client certificate; give one with cert= and key=",
        (None, "1.2"): "it broke the handshake off: it may want a client certificate (cert= and key=), or another TLS "
        "version",
    }.get((shown, version), "it does not trust our certificate; see cert= (and ca= at its side)")
    assert str(error) == f"TLS with {rx_address(error)} is refused: {clause}"
    assert error.retryable is False
    why = "certificate is not signed by a trusted CA" if shown else "it wants a client certificate"
    assert [why in record.getMessage() for record in caplog.records] == [True]


def test_a_refusal_ends_a_send_at_once(authority, stranger, server):
    with simlink.queue(f"tcps://{LOCAL}:0/orders", cert=server.cert, key=server.key) as orders, orders.receiver() as rx:
        since = time.monotonic()
        with simlink.queue(rx.url, ca=stranger.ca) as other, pytest.raises(ConnectError, match="a trusted CA"):
            other.send({"n": 1}, timeout=30.0)
    assert time.monotonic() - since < 20.0


def test_the_options_may_stand_in_the_url(authority, server):
    files = f"cert={server.cert}&key={server.key}&ca={authority.ca}&tls_min=1.3"
    with simlink.queue(f"tcps://{LOCAL}:0/orders?{files}") as orders, orders.receiver() as rx:
        orders.send({"n": 1})
        assert rx.take(1) == [{"n": 1}]


def test_a_sender_that_knows_no_tls_is_told_so(server):
    with receiving(driver(**pair(server))) as rx:
        error = refusal(driver(port_of(rx), scheme="tcp"))
    assert str(error) == f"{rx_address(error)} refuses: only TLS is spoken at {rx_address(error)}: use tcps://"
    assert error.retryable is False


def test_a_receiver_that_knows_no_tls_is_told_apart(authority):
    with receiving(driver(scheme="tcp")) as rx:
        error = refusal(driver(port_of(rx), ca=authority.ca))
    assert str(error) == f"TLS with {rx_address(error)} is refused: it does not speak TLS on this port"
    assert error.retryable is False


def test_a_receiver_that_goes_away_in_the_handshake_may_come_back(authority):
    with socket.create_server((LOCAL, 0)) as listener:

        def serve():
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        error = refusal(driver(listener.getsockname()[1], ca=authority.ca))
        thread.join()
    assert error.retryable is True


def test_a_receiver_that_is_silent_in_the_handshake(authority):
    with socket.create_server((LOCAL, 0)) as listener:
        tx = driver(listener.getsockname()[1], ca=authority.ca).sender()
        with pytest.raises(simlink.ConnectTimeout, match="does not answer"):
            tx.open(0.2)
        tx.close(0.0)


def test_a_receiver_needs_a_certificate():
    with pytest.raises(ConfigError, match="a receiver that listens with TLS needs cert= and key="):
        with receiving(driver()):
            pass


def test_options_of_encryption_are_refused_on_tcp(authority):
    with pytest.raises(ConfigError, match="ca= means nothing without TLS"):
        driver(scheme="tcp", ca=authority.ca)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16\x03\x01\x40\x00" + b"\x01" * 200])
def test_a_handshake_that_drips_is_cut_off(server, said):
    with (
        receiving(driver(**pair(server), hello_timeout=0.2)) as rx,
        socket.create_connection((LOCAL, port_of(rx))) as s,
    ):
        s.sendall(said)
        s.settimeout(PATIENCE)
        while s.recv(4096):
            pass
        assert rx.stats()["connections"] <= 1


# --- the stream -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts(authority, server):
    return (
        tls.client_context(Tls(ca=authority.ca)),
        tls.server_context(Tls(cert=server.cert, key=server.key)),
    )


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 300_000), min_size=1, max_size=4),
    room=st.integers(1, 70_000),
    buffer=st.sampled_from([2_048, 65_536]),
)
def test_what_is_written_is_read(contexts, sizes, room, buffer):
    """Both ends never wait: whatever the sizes, pieces and full sockets, every byte comes, once and in order."""
    left, right = socket.socketpair()
    for sock in (left, right):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    one = SecureSocket(left, contexts[0], LOCAL)
    other = SecureSocket(right, contexts[1])
    out = b"".join(bytes([i % 251]) * size for i, size in enumerate(sizes))
    got = bytearray()
    place = memoryview(bytearray(room))
    rest = memoryview(out)
    deadline = time.monotonic() + PATIENCE
    while len(got) < len(out):
        assert time.monotonic() < deadline
        with contextlib.suppress(BlockingIOError):
            one.recv_into(memoryview(bytearray(100)))
        with contextlib.suppress(BlockingIOError):
            while rest:
                rest = rest[one.send(rest) :]
        with contextlib.suppress(BlockingIOError):
            other.flush()
            while count := other.recv_into(place):
                got += place[:count]
                if count < room:
                    break
    assert bytes(got) == out
    one.shutdown(socket.SHUT_WR)
    # Half-closed: the other direction goes on.
    assert other.recv_into(place) == 0
    assert other.send(b"the last word") == 13
    answer = memoryview(bytearray(20_000))
    assert (one.recv_into(answer), bytes(answer[:13])) == (13, b"the last word")
    one.close()
    other.close()


# --- the shared secret ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["tcp", "tcps"])
@pytest.mark.parametrize("way", ["text", "url", "function", "environment"])
def test_a_shared_secret_lets_in(authority, server, scheme, way, monkeypatch):
    given = {"text": {"secret": SECRET}, "function": {"secret": lambda: SECRET}}.get(way, {})
    query = f"?secret={SECRET}" if way == "url" else ""
    if way == "environment":
        monkeypatch.setenv("SIMLINK_TCP_SECRET", SECRET)
    files = {"ca": authority.ca, **pair(server)} if scheme == "tcps" else {}
    with simlink.queue(f"{scheme}://{LOCAL}:0/orders{query}", **given, **files) as orders, orders.receiver() as rx:
        orders.send({"n": 1})
        assert rx.take(1) == [{"n": 1}]


@pytest.mark.parametrize(
    ("here", "there", "says"),
    [
        ("another-secret-0123456789", SECRET, "does not know the shared secret"),
        (None, SECRET, "refuses: a shared secret is needed at {}: give it with secret="),
        (SECRET, None, "does not ask for the shared secret: it was given none, or is too old to know of it"),
    ],
)
def test_a_wrong_secret_is_refused_in_one_sentence(here, there, says, caplog):
    with receiving(driver(scheme="tcp", secret=there)) as rx:
        error = refusal(driver(port_of(rx), scheme="tcp", secret=here))
        # The listener still serves whoever knows it.
        tx = driver(port_of(rx), scheme="tcp", secret=there).sender()
        tx.open(5.0)
        tx.close(1.0)
    assert (str(error), error.retryable) == (f"{rx_address(error)} {says.format(error.endpoint)}", False)
    assert SECRET not in caplog.text


def talk(port, *frames, then=None):
    """Say frames to a listener as a stranger would, and hear what it says until it closes or has nothing more."""
    with socket.create_connection((LOCAL, port)) as sock:
        sock.settimeout(2.0)
        reader = FrameReader()
        for frame in frames:
            sock.sendall(encode(frame))
        heard = []
        while data := sock.recv(65536):
            reader.feed(data)
            for frame in reader.frames():
                heard.append(frame)
                if then is not None and (answer := then(frame)) is not None:
                    sock.sendall(encode(answer))
        return heard


HELLO = Hello(b"s" * 16, "orders", Mode.QUEUE)
UNKNOWN = Hello(b"s" * 16, "nothing", Mode.QUEUE)


def test_an_old_sender_is_refused_in_one_sentence():
    with receiving(driver(scheme="tcp", secret=SECRET)) as rx:
        heard = talk(port_of(rx), HELLO)
        # Nor is it told what is received here.
        assert talk(port_of(rx), UNKNOWN) == heard
        assert heard == [ErrorFrame(Code.SECRET, f"a shared secret is needed at {rx.address}: give it with secret=")]


def test_a_proof_is_of_one_conversation_only():
    """A recorded proof, one's own challenge sent back, and a guess: none of them opens."""
    hello = Hello(b"s" * 16, "orders", Mode.QUEUE, nonce=b"n" * 32)
    with receiving(driver(scheme="tcp", secret=SECRET)) as rx:
        for then in (
            lambda frame: Proof(frame.proof) if isinstance(frame, Challenge) else None,
            lambda frame: Proof(b"\0" * 32) if isinstance(frame, Challenge) else None,
            lambda frame: Proof(b"") if isinstance(frame, Challenge) else None,
        ):
            challenge, error = talk(port_of(rx), hello, then=then)
            assert isinstance(challenge, Challenge)
            assert error == ErrorFrame(Code.SECRET, "the shared secrets differ")
        assert rx.stats()["senders"] == 0


@pytest.mark.parametrize(
    "frames",
    [
        [Proof(b"x" * 32)],
        [Hello(b"s" * 16, "orders", Mode.QUEUE, nonce=b"n" * 32), Hello(b"s" * 16, "orders", Mode.QUEUE)],
        [Hello(b"s" * 16, "orders", Mode.QUEUE, nonce=b"n" * 32), BatchFrame(0, Batch([b"x"]))],
    ],
)
def test_frames_out_of_turn_end_the_connection(frames):
    with receiving(driver(scheme="tcp", secret=SECRET)) as rx:
        last = talk(port_of(rx), *frames)[-1]
        assert (last.code, rx.stats()["senders"]) == (Code.PROTOCOL, 0)


def test_a_secret_that_can_be_guessed_is_refused():
    for where in (lambda: driver(scheme="tcp", secret="short"), refusal_of_short):
        with pytest.raises(ConfigError, match="secret= needs 16 bytes or more"):
            where()


def refusal_of_short():
    with receiving(driver(scheme="tcp", secret=lambda: "short")):
        pass


def test_receivers_of_one_address_share_its_secret():
    with receiving(driver(scheme="tcp", secret=SECRET)) as rx:
        with receiving(driver(port_of(rx), scheme="tcp", secret=SECRET)):
            pass
        with pytest.raises(ConfigError) as caught, receiving(driver(port_of(rx), scheme="tcp")):
            pass
    assert SECRET not in str(caught.value)


# --- who is who -----------------------------------------------------------------------------------------------------


def submit(d, producer=b"p" * 16):
    tx = d.sender()
    tx.open(5.0)
    tx.submit(Batch([b"0", b"1"], producers=Same(producer, 2), sequences=range(2)), 0)
    deadline = time.monotonic() + PATIENCE
    while not tx.outcomes(0.05):
        assert time.monotonic() < deadline
    return tx


def bodies(rx, count):
    got = []
    deadline = time.monotonic() + PATIENCE
    while len(got) < count and time.monotonic() < deadline:
        for incoming in rx.receive(100, 0.05):
            got += incoming.batch.bodies
    for incoming in rx.receive(100, 0.1):
        got += incoming.batch.bodies
    return got


def test_a_peer_cannot_have_another_s_messages_dropped(authority, server):
    """The same producer and sequence from another certificate is another message; from the same one, a duplicate."""
    ann, eve = authority.issue("ann.example"), authority.issue("eve.example")
    with receiving(driver(ca=authority.ca, **pair(server))) as rx:
        ends = [submit(driver(port_of(rx), ca=authority.ca, **pair(who))) for who in (eve, ann, ann)]
        assert bodies(rx, 4) == [b"0", b"1", b"0", b"1"]
        assert rx.stats()["duplicates"] == 2
        for tx in ends:
            tx.close(0.0)


def test_a_peer_cannot_pass_for_another(authority, server):
    """A sender's own name under another certificate neither replaces its connection nor resumes its link."""
    files = [authority.issue("ann.example"), authority.issue("eve.example")]
    hello = encode(Hello(b"s" * 16, "orders", Mode.QUEUE))
    with receiving(driver(ca=authority.ca, **pair(server))) as rx:
        held = []
        for shown in files:
            context = tls.client_context(Tls(ca=authority.ca, cert=shown.cert, key=shown.key))
            raw = socket.create_connection((LOCAL, port_of(rx)))
            held.append(context.wrap_socket(raw, server_hostname=LOCAL))
            held[-1].sendall(hello)
            reader = FrameReader()
            reader.feed(held[-1].recv(65536))
            assert [type(frame) for frame in reader.frames()] == [Welcome]
        assert (rx.stats()["senders"], rx.stats()["connected"]) == (2, 2)
        for sock in held:
            sock.close()


# --- nothing is told ------------------------------------------------------------------------------------------------


def test_no_secret_in_any_repr_log_error_or_report(authority, server, caplog, monkeypatch):
    monkeypatch.setattr("simlink.channels.sender._MAX_BACKOFF", 0.05)
    caplog.set_level(logging.DEBUG)
    said = []
    for url, options in [
        (f"tcp://{LOCAL}:0/orders?secret={SECRET}", {}),
        (f"tcps://{LOCAL}:0/orders", {"secret": SECRET, "ca": authority.ca, **pair(server)}),
        (f"tcp://{LOCAL}:0/orders", {"secret": lambda: SECRET}),
    ]:
        with simlink.queue(url, **options) as orders, orders.receiver() as rx:
            report = simlink.run([{"n": i} for i in range(10)], orders, count=10, progress=False)
            said += [repr(orders), str(orders), repr(rx), rx.url, repr(report), str(report), repr(orders.stats())]
            inside = orders._driver
            said += [repr(inside.target), repr(inside.settings), repr(inside.settings.secret), repr(rx.stats())]
            rx.take(10)
            wrong = {**options, "secret": "another-secret-0123456789"}
            with simlink.queue(rx.url.partition("?")[0], **wrong) as other, pytest.raises(ConnectError) as caught:
                other.send({"n": 1}, timeout=5.0)
            said += [str(caught.value), repr(caught.value), str(caught.value.url)]
    with pytest.raises(ConfigError) as wrong:
        simlink.queue(f"tcp://{LOCAL}:0/orders?secret={SECRET}&sekret=1")
    said += [str(wrong.value), caplog.text]
    assert [text for text in said if SECRET in text or "another-secret" in text] == []

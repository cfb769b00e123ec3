"""http:// and https:// alone: posts, streams, credentials, certificates, options; the rest is in test_link_*.py."""

from __future__ import annotations

from functools import partial

import pytest

from simlink.channels.channel import queue
from simlink.channels.driver import Mode, ReceiverOptions
from simlink.channels.url import parse_url
from simlink.channels.wire.frames import BatchFrame
from simlink.errors import ConfigError, ConnectError, NotSupported
from tests.support import brokerless
from tests.support.brokerless import LOCAL, PATIENCE, bodies, numbered, receiving, sending, take
from tests.support.certificates import Authority
from tests.support.http import JSON, Raw, ask

driver = partial(brokerless.driver, "http")


def test_what_is_queued_goes_out_in_few_posts():
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        for start in range(0, 5_000, 10):
            tx.submit(numbered(start, 10), start)
        assert bodies(rx, 5_000, tx) == [b"%d" % i for i in range(5_000)]
        assert tx.stats()["posts"] < 100


def test_a_stream_that_is_resumed_knows_what_was_taken():
    d = driver()
    with receiving(d) as rx:
        with Raw(d.bound_port) as first:
            welcome = first.hello()
            first.post(BatchFrame(0, numbered(0, 3)))
            take(rx, 1)
        with Raw(d.bound_port) as second:
            again = second.hello(incarnation=welcome.incarnation, next=5)
            assert (again.incarnation, again.accepted) == (welcome.incarnation, 3)
            # A post that was long on its way speaks for a stream that has ended.
            status, said = first.post(BatchFrame(3, numbered(3, 1)))
            assert (status, said["type"]) == (409, "urn:simlink:problem:session")


@pytest.mark.parametrize("options", [{"token": "s3cret"}, {"credentials": lambda: ("ann", "s3cret")}])
def test_only_who_has_the_credentials_gets_in(options):
    with queue(f"http://{LOCAL}:0/orders", **options) as channel, channel.receiver() as rx:
        port = parse_url(rx.url).hosts[0].port
        channel.send(1)
        assert rx.take(1) == [1]
        status, headers, said = ask(port, "POST", "/orders", "1", JSON)
        assert (status, said["detail"]) == (401, "the credentials are missing")
        assert headers["www-authenticate"].partition(" ")[0] in {"Bearer", "Basic"}
        wrong = {**JSON, "authorization": headers["www-authenticate"].partition(" ")[0] + " wrong"}
        assert ask(port, "POST", "/orders", "1", wrong)[2]["detail"] == "the credentials are wrong"
        with queue(f"http://{LOCAL}:{port}/orders", token="wr0ng") as stranger:
            with pytest.raises(ConnectError, match="refuses a stream with 401: the credentials are wrong") as caught:
                stranger.send(1, timeout=5)
            assert not caught.value.retryable
        shown = f"{channel!r}{rx!r}{rx.stats()}{channel.stats()}{caught.value}{channel._driver.server_settings()!r}"
        assert "s3cret" not in shown
        assert "wr0ng" not in shown


def test_tls_with_a_client_certificate(tmp_path):
    authority = Authority(tmp_path)
    server, client = authority.issue(LOCAL), authority.issue("ann")
    options = {"ca": authority.ca}
    with queue(f"https://{LOCAL}:0/orders", **options, cert=server.cert, key=server.key) as here:
        with here.receiver() as rx:
            port = parse_url(rx.url).hosts[0].port
            assert rx.url.startswith("https://")
            url = f"https://{LOCAL}:{port}/orders"
            with queue(url, **options, cert=client.cert, key=client.key) as there:
                there.send_many([f"{i:0200}" for i in range(5_000)])
                assert rx.take(5_000, timeout=PATIENCE)[-1] == f"{4_999:0200}"
            with queue(url, **options, cert=client.cert, key=client.key, rest=True) as rest:
                rest.send("by rest")
                assert rx.take(1) == ["by rest"]
            nobody = Authority(tmp_path, "other").issue("ann")
            with queue(url, **options, cert=nobody.cert, key=nobody.key) as stranger:
                with pytest.raises(ConnectError, match="it does not trust our certificate") as caught:
                    stranger.send(1, timeout=PATIENCE)
            assert not caught.value.retryable
            with queue(url, **options) as stranger, pytest.raises(ConnectError, match="client certificate") as caught:
                stranger.send(1, timeout=5)
            assert not caught.value.retryable
            with queue(url) as trusting, pytest.raises(ConnectError, match="not signed by a trusted CA"):
                trusting.send(1, timeout=5)


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"x-a": "1"}},
        {"path": "/x"},
        {"method": "PUT"},
        {"retry": "always"},
        {"identity": False},
        {"app": object()},
        {"token": "t", "credentials": lambda: ("a", "b")},
        {"rest": True, "headers": {"x-a": "1\r\n"}},
        {"rest": True, "headers": {"host": "x"}},
        {"rest": True, "path": "no slash"},
        {"cert": "x.pem"},
    ],
    ids=str,
)
def test_options_that_cannot_be_honoured_are_refused(options):
    with pytest.raises(ConfigError):
        driver(**options)


def test_rest_only_sends_and_to_queues():
    with pytest.raises(NotSupported):
        driver(rest=True).receiver(None, ReceiverOptions())
    with pytest.raises(NotSupported):
        driver(rest=True, mode=Mode.TOPIC)

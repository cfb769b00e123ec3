"""tcp, http and grpc: where receivers listen, what senders find there, and what neither can be told."""

from __future__ import annotations

import socket
import threading

import pytest

from simlink.channels.driver import Mode, ReceiverOptions
from simlink.channels.url import parse_url
from simlink.errors import ConfigError, ConnectError, InvalidURL, NotSupported
from tests.support import links
from tests.support.brokerless import DRIVERS, LOCAL, free_port, receiving, refused


def test_a_port_in_use_is_one_clear_line(link):
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConnectError) as caught, receiving(link.driver(port)):
            pass
    assert str(caught.value) == f"cannot listen at {LOCAL}:{port}: Address already in use"
    assert not caught.value.retryable


def test_nobody_at_the_address_may_change(link):
    error = refused(link.driver(port := free_port()))
    assert (str(error), error.retryable) == (f"{LOCAL}:{port} cannot be reached: nobody listens there", True)


def test_a_name_that_nobody_receives_may_come(link):
    d = link.driver()
    with receiving(d):
        error = refused(link.driver(d.bound_port, name="other"))
    assert ("nobody receives 'other'" in str(error), error.retryable) == (True, True)


def test_a_queue_is_no_topic(link):
    d = link.driver()
    with receiving(d):
        events = link.driver(d.bound_port, mode=Mode.TOPIC)
        error = refused(events)
        assert ("'orders' is a queue at" in str(error), error.retryable) == (True, False)
        with pytest.raises(ConfigError, match="is received as a queue"), receiving(events):
            pass


def test_port_0_without_a_receiver_says_so(link):
    error = refused(link.driver())
    assert ("port 0 becomes a port when a receiver" in str(error), error.retryable) == (True, True)


def test_the_same_port_is_bound_again_at_once(link):
    d = link.driver()
    with receiving(d):
        port = d.bound_port
    for again in (d, *(link.driver(port) for _ in range(5))):
        with receiving(again) as rx:
            assert rx.address == f"{LOCAL}:{port}"


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
@pytest.mark.parametrize("secured", [False, True])
def test_receivers_of_one_process_share_a_listener_and_agree(scheme, secured):
    link = links.link(scheme)
    option = link.credential
    own = {option: "hush-0123456789abcdef"} if secured else {}
    d = link.driver(**own)
    with receiving(d) as rx:
        with receiving(link.driver(d.bound_port, name="others", **own)) as too:
            assert rx.native is too.native
        for wrong in ({option: "other-0123456789abcdef"}, {**own, link.longest: 5000}):
            with pytest.raises(ConfigError, match="is listened on with") as caught:
                with receiving(link.driver(d.bound_port, **wrong)):
                    pass
            assert "0123456789abcdef" not in str(caught.value)
        assert f"{link.longest}=5000" in str(caught.value)
        with pytest.raises(ConfigError, match="asked for"):
            with receiving(link.driver(d.bound_port, **own, buffer_messages=7)):
                pass
    assert [t.name for t in threading.enumerate() if t.name.startswith(f"simlink-{scheme}")] == []


@pytest.mark.parametrize("scheme", ["tcp", "grpc"])
@pytest.mark.parametrize(
    ("where", "says"),
    [
        (f"{LOCAL}:1/path/orders", "one name behind the address"),
        (f"ann@{LOCAL}:1/orders", "knows no user names"),
        (f"{LOCAL}/orders", "needs a port"),
    ],
)
def test_a_url_that_means_nothing_is_refused(scheme, where, says):
    with pytest.raises(InvalidURL, match=says):
        DRIVERS[scheme](parse_url(f"{scheme}://{where}"), mode=Mode.QUEUE)


def test_several_endpoints_are_refused_for_sending_and_chosen_for_receiving(link):
    d = DRIVERS[link.scheme](parse_url(f"{link.scheme}://{LOCAL}:0,127.0.0.2:0/orders"), mode=Mode.QUEUE)
    with pytest.raises(NotSupported, match="several endpoints"):
        d.sender()
    with pytest.raises(ConfigError, match="at="):
        d.receiver(None, ReceiverOptions())
    with pytest.raises(ConfigError, match="none of its hosts"):
        d.receiver(None, ReceiverOptions(at="127.0.0.3"))
    with receiving(d, at="127.0.0.2") as rx:
        assert rx.address.startswith("127.0.0.2:")


@pytest.mark.parametrize("options", [{"start": "earliest"}, {"start": "new"}, {"exclusive": True}], ids=str)
def test_what_only_a_broker_has_is_refused(link, options):
    with pytest.raises(NotSupported):
        link.driver().receiver(None, ReceiverOptions(**options))


@pytest.mark.parametrize("options", [{"heartbeat": 2.0, "dead": 1.0}, {"dead": 0.5}, {"dead": 20.0}], ids=str)
def test_times_that_do_not_go_together_are_refused(link, options):
    with pytest.raises(ConfigError):
        link.driver(**options)

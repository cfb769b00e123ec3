"""A channel over several endpoints, in one process: what is refused, where messages go, and what a user sees."""

import socket
import threading
from io import StringIO
from random import Random

import pytest
import rich.console

import simlink
from simlink.balancing.pick import Verdict
from simlink.balancing.registry import balancer
from simlink.channels.driver import Mode, Outcome, OutcomeKind, SenderDriver
from simlink.channels.link.reception import Manners
from simlink.channels.pool.flights import Flights
from simlink.channels.pool.pins import Pins
from simlink.channels.pool.resolving import names_of
from simlink.channels.pool.topic import TopicPool
from simlink.channels.pool.world import RealWorld
from simlink.channels.url import parse_url
from simlink.channels.window import Window
from simlink.errors import ConfigError, NoEndpoints, NotSupported
from simlink.health.membership import Membership
from simlink.running.progress import Table
from simlink.testing.clock import VirtualClock
from simlink.testing.ends import SimEnd, SimWorld, numbered
from simlink.testing.network import Network
from simlink.testing.processes import SimProcess
from tests.integration.test_pool_processes import free_ports, until
from tests.support.certificates import Authority

LOCAL = "127.0.0.1"
QUICK = simlink.EmpiricalAccrual(0.1)


def url_of(ports, name="orders", scheme="tcp"):
    return f"{scheme}://{','.join(f'{LOCAL}:{port}' for port in ports)}/{name}"


class Readers:
    """Receivers at the endpoints of a channel, each with a thread; ``got`` has the values by port."""

    def __init__(self, channel, ports, subscriptions=None, **options):
        self.got = {port: [] for port in ports}
        self.receivers = {
            port: channel.receiver((subscriptions or {}).get(port), at=f"{LOCAL}:{port}", **options) for port in ports
        }
        self.threads = []
        for receiver in self.receivers.values():
            receiver.open()
        for port, receiver in self.receivers.items():
            thread = threading.Thread(target=self._read, args=(port, receiver), name=f"reader-{port}")
            thread.start()
            self.threads.append(thread)

    def _read(self, port, receiver):
        for delivery in receiver:
            self.got[port].append(delivery.value)

    def all(self):
        return sorted(value for values in self.got.values() for value in values)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for receiver in self.receivers.values():
            receiver.close(timeout=5)
        for thread in self.threads:
            thread.join(10)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: simlink.pool([]), ConfigError, "at least one URL"),
        (lambda: simlink.pool("tcp://a:1/x"), ConfigError, "takes a list"),
        (lambda: simlink.pool(["tcp://a:1/x", "tcp://a:1/x"]), ConfigError, "given twice"),
        (lambda: simlink.pool(["tcp://a:1/x", "http://a:1/x"]), ConfigError, "one scheme"),
        (lambda: simlink.pool(["tcp://a:1/x"], mode="queues"), ConfigError, "did you mean 'queue'"),
        (lambda: simlink.pool(["tcp://a:1/x?balancer=random"]), ConfigError, "for the whole pool"),
        (lambda: simlink.queue("tcp://a:1,a:1/x"), ConfigError, "names a host twice; name each once"),
        (lambda: simlink.queue("tcp://a:1,http://b:1/x"), ConfigError, "a URL has one scheme"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", weights=[1, 0]), ConfigError, "must be a number above 0"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", weights=[1, -2]), ConfigError, "must be a number above 0"),
        (lambda: simlink.queue("tcp://a:1,b:1/x?weights=1"), ConfigError, "1 weights for 2 endpoints"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", weights={"c:1": 2}), ConfigError, "names 'c:1'"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", weights=5), ConfigError, "a list, or a mapping"),
        (lambda: simlink.queue("tcp://a:1,b:1/x?weights=2,1&balancer=round_robin"), ConfigError, "the same share"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", slow="drop"), ConfigError, "is for a topic"),
        (lambda: simlink.queue("tcp://a:1,b:1/x?backlog=5"), ConfigError, "is for a topic"),
        (lambda: simlink.topic("tcp://a:1,b:1/x", order="per_key"), ConfigError, "is for a queue"),
        (lambda: simlink.topic("tcp://a:1,b:1/x?balancer=consistent_hash"), ConfigError, "goes by keys"),
        (lambda: simlink.queue("tcp://a:1,b:1/x?balancer=round_robbin"), ConfigError, "did you mean 'round_robin'"),
        (lambda: simlink.queue("tcp://a:1,b:1/x?detector=fi"), ConfigError, "phi"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", detector=7), ConfigError, "FailureDetector"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", order="per_field"), ConfigError, "per_key"),
        (lambda: simlink.queue("tcp://a:1,b:1/x", balancer=object()), ConfigError, "choose"),
        (lambda: simlink.queue("kafka://a:1,b:1/x", balancer="random"), NotSupported, "simlink.pool"),
        (lambda: simlink.queue("memory://x?balancer=random"), NotSupported, "simlink.pool"),
        (lambda: simlink.Heartbeat(0.1, suspect=6, dead=5), ConfigError, "suspect"),
        (lambda: simlink.Heartbeat(0.0001), ConfigError, "interval"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_one_endpoint_has_no_pool_around_it():
    with simlink.queue("tcp://127.0.0.1:1/orders") as channel:
        assert type(channel.sender.driver).__name__ == "TcpSender"
        with pytest.raises(NotSupported, match="one endpoint"):
            _ = channel.endpoints
        with pytest.raises(NotSupported, match="one endpoint"):
            channel.on_transition(print)


def test_the_order_that_is_kept_is_declared():
    assert simlink.queue("tcp://a:1,b:1/x").capabilities.order.value == "none"
    assert simlink.queue("tcp://a:1,b:1/x?order=per_key").capabilities.order.value == "exclusive"
    assert simlink.queue("tcp://a:1/x").capabilities.order.value == "exclusive"


def test_a_receiver_says_which_endpoint_it_is():
    with simlink.queue("tcp://127.0.0.1:1,127.0.0.2:1/orders") as channel:
        with pytest.raises(ConfigError, match="at="):
            channel.receiver()
        with pytest.raises(ConfigError, match="none of its endpoints"):
            channel.receiver(at="127.0.0.3")


# --- queues -------------------------------------------------------------------------------------------------------


def test_a_queue_is_spread_and_every_message_is_settled_once():
    ports = free_ports(3)
    with simlink.queue(url_of(ports), balancer="round_robin") as channel, Readers(channel, ports) as readers:
        for first in range(0, 300, 10):
            channel.send_many(list(range(first, first + 10)))
        until(lambda: len(readers.all()) == 300, "all of them")
        assert readers.all() == list(range(300))
        assert sorted(len(values) for values in readers.got.values()) == [100, 100, 100]
        until(lambda: channel.stats()["in_flight"] == 0, "settlements")
        endpoints = channel.endpoints
        assert [(each.name, each.state, each.in_flight, each.sent) for each in endpoints] == [
            (f"{LOCAL}:{port}", "up", 0, 100) for port in ports
        ]
        assert endpoints[f"{LOCAL}:{ports[1]}"].latency > 0
        with pytest.raises(KeyError, match="no endpoint 'nobody'"):
            endpoints["nobody"]
        lines = repr(endpoints).splitlines()
        assert len(lines) == 4
        assert lines[0].split()[:2] == ["endpoint", "state"]
        assert endpoints._repr_html_().count("<tr>") == 4
    assert [t.name for t in threading.enumerate() if t.name.startswith("simlink")] == []


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_same_over_other_transports(scheme):
    ports = free_ports(2)
    with simlink.queue(url_of(ports, scheme=scheme)) as channel, Readers(channel, ports) as readers:
        channel.send_many(list(range(3000)))
        until(lambda: len(readers.all()) == 3000, "all of them")
        assert readers.all() == list(range(3000))
        assert all(len(values) > 500 for values in readers.got.values())


def test_a_pool_of_whole_channels():
    ports = free_ports(2)
    urls = [f"tcp://{LOCAL}:{port}/orders" for port in ports]
    with simlink.pool(urls, balancer="round_robin") as channel, Readers(channel, ports) as readers:
        for number in range(20):
            channel.send(number)
        until(lambda: len(readers.all()) == 20, "all of them")
        assert [len(values) for values in readers.got.values()] == [10, 10]


def test_a_pool_over_transports_with_a_broker_confirms_what_they_confirm():
    with (
        simlink.queue("memory://pool-a") as a,
        simlink.queue("memory://pool-b") as b,
        simlink.pool(["memory://pool-a", "memory://pool-b"], balancer="round_robin") as channel,
    ):
        for number in range(10):
            assert channel.send(number).state == "confirmed"
        assert channel.stats()["in_flight"] == 0
        with a.receiver(idle=0.1) as left, b.receiver(idle=0.1) as right:
            assert sorted([d.value for d in left] + [d.value for d in right]) == list(range(10))


def test_an_endpoint_that_refuses_is_dead_at_once_and_what_it_held_goes_elsewhere(caplog):
    ports = free_ports(2)
    told = []
    with simlink.queue(url_of(ports), detector=QUICK, slow_start=0) as channel:
        channel.on_transition(told.append)
        with Readers(channel, ports, prefetch=10) as readers:
            channel.send_many(list(range(100)))
            until(lambda: len(readers.all()) == 100, "the first hundred")
            readers.receivers[ports[0]].close(timeout=5)
            receipt = channel.send_many(list(range(100, 200)))
            assert receipt.state == "confirmed"
            until(lambda: len(readers.all()) == 200, "the second hundred")
            assert sorted(readers.all()) == list(range(200))
            until(lambda: channel.endpoints[0].state == "dead", "the verdict")
            until(lambda: [t.new.value for t in told if t.endpoint.endswith(str(ports[0]))][-1] == "dead", "the news")
            logged = [record for record in caplog.records if record.getMessage().endswith(str(told[-1]))]
            assert [record.levelname for record in logged] == ["WARNING"]
            with Readers(channel, ports[:1]) as again:
                until(lambda: channel.endpoints[0].state == "half open", "its return")
                channel.send(200)
                until(lambda: channel.endpoints[0].state == "up", "its trial")
                until(lambda: again.all() == [200], "its one message")


def test_with_nobody_there_the_messages_are_kept_and_the_error_says_who_was_seen_when():
    ports = free_ports(2)
    with simlink.queue(url_of(ports), detector=QUICK) as channel:
        with pytest.raises(NoEndpoints, match=f"{LOCAL}:{ports[0]} dead, never seen"):
            channel.send("nobody", timeout=0.2)
        with Readers(channel, ports):
            channel.send("somebody")
        until(lambda: [each.state for each in channel.endpoints] == ["dead", "dead"], "the end of both")
        with pytest.raises(NoEndpoints, match=r"dead, last seen \d+\.\d s ago") as caught:
            channel.send("kept", timeout=0.2)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.receipt.state == "pending"
        with Readers(channel, ports[:1]) as readers:
            assert caught.value.receipt.wait(30).state == "confirmed"
            until(lambda: readers.all() == ["kept"], "what was kept")


class Moody:
    def __init__(self):
        self.bad = True

    def choose(self, endpoints, key):
        if self.bad:
            raise LookupError("no mood")
        return endpoints[0]


def test_a_balancer_that_raises_is_heard_and_the_message_is_kept():
    ports = free_ports(2)
    moody = Moody()
    with simlink.queue(url_of(ports), balancer=moody) as channel, Readers(channel, ports) as readers:
        with pytest.raises(LookupError, match="no mood") as caught:
            channel.send("first")
        assert "messages are kept" in caught.value.__notes__[0]
        moody.bad = False
        channel.send("second")
        until(lambda: len(readers.all()) == 2, "both")
        assert readers.all() == ["first", "second"]


def test_a_balancer_that_chooses_nobody_who_is_there_is_refused():
    class Wrong:
        def choose(self, endpoints, key):
            return "somebody"

    ports = free_ports(2)
    with simlink.queue(url_of(ports), balancer=Wrong, close_timeout=0) as channel, Readers(channel, ports):
        with pytest.raises(ConfigError, match="which is not there"):
            channel.send("first")


def test_one_that_joins_by_a_weight_that_is_not_followed_is_refused():
    ports = free_ports(2)
    with simlink.queue(url_of(ports), balancer="round_robin", close_timeout=0) as channel:
        with pytest.raises(ConfigError, match="the same share"):
            channel.endpoints.add(f"{LOCAL}:9", weight=2)
        assert len(channel.endpoints) == 2


def test_endpoints_come_and_go():
    ports = free_ports(3)
    with simlink.queue(url_of(ports[:2]), detector=QUICK, slow_start=0) as channel:
        with (
            simlink.queue(url_of(ports[2:])) as third,
            Readers(channel, ports[:2]) as readers,
            Readers(third, ports[2:]) as other,
        ):
            channel.send_many(list(range(10)))
            name = f"{LOCAL}:{ports[2]}"
            channel.endpoints.add(name, weight=2)
            with pytest.raises(ConfigError, match="already"):
                channel.endpoints.add(name)
            with pytest.raises(ConfigError, match="no endpoint"):
                channel.endpoints.remove("127.0.0.9:1")
            until(lambda: channel.endpoints[name].state == "up", "the third")
            channel.endpoints.drain(f"{LOCAL}:{ports[0]}")
            channel.endpoints.remove(f"{LOCAL}:{ports[1]}")
            until(lambda: len(channel.endpoints) == 1, "the others to leave")
            channel.send_many(list(range(10, 20)))
            until(lambda: len(readers.all()) + len(other.all()) == 20, "all of them")
            assert set(other.all()) >= set(range(10, 20))
            counts = channel.endpoint_counts()
            assert sum(each["sent"] for each in counts.values()) == 20
            assert counts[f"{LOCAL}:{ports[1]}"]["state"] == "removed"


def test_a_resolver_says_who_the_endpoints_are():
    ports = free_ports(2)
    named = [f"{LOCAL}:{ports[0]}"]
    options = {"resolver": lambda: named, "resolve_every": 0.1}
    with simlink.queue(url_of(ports[:1]), **options) as channel, simlink.queue(url_of(ports[1:])) as other:
        with Readers(channel, ports[:1]), Readers(other, ports[1:]):
            channel.send(1)
            named[:] = [f"{LOCAL}:{ports[1]}"]
            until(lambda: [each.name for each in channel.endpoints] == named, "the change")
            channel.send(2)
            named.clear()  # a resolver that names nobody is not believed
            seen = channel.stats()["driver"]["resolved"]
            until(lambda: channel.stats()["driver"]["resolved"] > seen + 1, "two more answers")
            assert len(channel.endpoints) == 1


def test_every_address_of_a_dns_name_is_an_endpoint(monkeypatch):
    (port,) = free_ports(1)
    there = ["127.0.0.1", "127.0.0.2"]
    ask = socket.getaddrinfo

    def answer(host, *given, **more):
        if host != "workers.example":
            return ask(host, *given, **more)
        if not there:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [found for address in there for found in ask(address, *given, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with simlink.queue(f"tcp://127.0.0.1:{port}/orders", resolver="workers.example", resolve_every=0.1) as channel:
        with simlink.queue(f"tcp://127.0.0.1:{port}/orders").receiver() as rx:
            channel.send("first")
            until(lambda: [e.name for e in channel.endpoints] == [f"{a}:{port}" for a in there], "both addresses")
            there.pop()
            until(lambda: [e.name for e in channel.endpoints] == [f"127.0.0.1:{port}"], "one that has left")
            there.clear()  # the name server is away: who is there stays
            seen = channel.stats()["driver"]["resolved"]
            until(lambda: channel.stats()["driver"]["resolved"] > seen + 1, "two more answers")
            channel.send("second")
            assert rx.take(2, timeout=20) == ["first", "second"]
            assert len(channel.endpoints) == 1


def test_a_dns_name_without_a_port_takes_that_of_the_url():
    target = parse_url("tcp://a:7001,b:7002/orders")
    with pytest.raises(ConfigError, match=r"as workers\.example:7001"):
        names_of(":7001", target)
    with pytest.raises(ConfigError, match="a DNS name or a function"):
        simlink.queue("tcp://a:1,b:1/x", resolver=7)


@pytest.mark.parametrize("scheme", ["tcps", "https", "grpcs"])
def test_the_same_with_tls(scheme, tmp_path):
    authority = Authority(tmp_path)
    server = authority.issue(LOCAL)
    ports = free_ports(2)
    url = url_of(ports, scheme=scheme)
    with (
        simlink.queue(url, cert=server.cert, key=server.key) as there,
        Readers(there, ports) as readers,
        simlink.queue(url, ca=authority.ca, balancer="round_robin") as channel,
    ):
        channel.sender.connect(30)
        until(lambda: [each.state for each in channel.endpoints] == ["up", "up"], "both")
        for number in range(20):
            channel.send(number)
        until(lambda: len(readers.all()) == 20, "all of them")
        assert readers.all() == list(range(20))
        assert [len(values) for values in readers.got.values()] == [10, 10]


def test_messages_of_a_key_are_in_order_and_go_to_one_endpoint_at_a_time():
    ports = free_ports(3)
    options = {"order": "per_key", "balancer": "random"}
    with simlink.queue(url_of(ports), **options) as channel, Readers(channel, ports) as readers:
        for first in range(0, 600, 20):
            channel.send_many([[i % 40, i] for i in range(first, first + 20)], key=lambda v: str(v[0]), wait=False)
        until(lambda: len(readers.all()) == 600, "all of them")
        assert all(len(values) > 20 for values in readers.got.values())
        for values in readers.got.values():
            for key in range(40):
                mine = [i for k, i in values if k == key]
                assert mine == sorted(mine)


# --- topics -------------------------------------------------------------------------------------------------------


def test_every_subscription_of_a_topic_gets_each_message_and_those_of_one_name_share():
    ports = free_ports(3)
    names = {ports[0]: "shared", ports[1]: "shared", ports[2]: None}
    with simlink.topic(url_of(ports, "news"), balancer="round_robin") as channel:
        with Readers(channel, ports, names) as readers:
            for number in range(40):
                channel.send(number)
            until(lambda: len(readers.all()) == 80, "both copies")
            assert readers.got[ports[2]] == list(range(40))
            assert sorted(readers.got[ports[0]] + readers.got[ports[1]]) == list(range(40))
            assert len(readers.got[ports[0]]) == 20
            until(lambda: channel.stats()["in_flight"] == 0, "settlements")


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
def test_of_names_that_overlap_each_message_goes_to_one_endpoint_for_every_name(scheme, caplog):
    ports = free_ports(3)
    url = url_of(ports, "news", scheme=scheme)
    with (
        simlink.topic(url, detector=QUICK, balancer="round_robin") as channel,
        Readers(channel, ports, {ports[0]: "audit", ports[1]: "audit", ports[2]: None}) as audit,
        Readers(channel, ports[1:], {ports[1]: "stock", ports[2]: "stock"}) as stock,
    ):
        channel.sender.connect(30)
        until(lambda: all(each.state == "up" for each in channel.endpoints), "all")
        members = channel.stats()["driver"]["members"]
        at = [f"{LOCAL}:{port}" for port in ports]
        assert {name: member["endpoints"] for name, member in members.items()} == {
            "audit": sorted(at[:2]),
            "stock": sorted(at[1:]),
            at[2]: [at[2]],
        }
        for number in range(40):
            channel.send(number)
        until(lambda: len(audit.all()) == 80 and len(stock.all()) == 40, "one copy for each")
        assert audit.got[ports[2]] == list(range(40))
        assert sorted(audit.got[ports[0]] + audit.got[ports[1]]) == list(range(40))
        assert stock.all() == list(range(40))
        assert [len(audit.got[port]) for port in ports[:2]] == [len(stock.got[port]) for port in ports[1:]] == [20, 20]
        until(lambda: channel.stats()["in_flight"] == 0, "settlements")
    assert [record for record in caplog.records if "gets each message from both" in record.getMessage()] == []


def test_a_subscription_that_dies_is_named_in_the_receipt_and_starts_at_now():
    ports = free_ports(2)
    with simlink.topic(url_of(ports, "news"), detector=QUICK, slow_start=0) as channel:
        with Readers(channel, ports) as readers:
            assert channel.send(0).missed == ()
            until(lambda: len(readers.all()) == 2, "both copies")
            readers.receivers[ports[0]].close(timeout=5)
            receipts = [channel.send(number) for number in range(1, 10)]
            assert {receipt.state for receipt in receipts} == {"confirmed"}
            assert receipts[0].missed in {(f"{LOCAL}:{ports[0]}",), ()}
            assert receipts[-1].missed == ()
            until(lambda: readers.got[ports[1]] == list(range(10)), "the living one's")
            with Readers(channel, ports[:1]) as again:
                until(lambda: channel.endpoints[0].state in {"half open", "up"}, "its return")
                channel.send(10)
                until(lambda: again.all() == [10], "what was sent since")


# --- the books ----------------------------------------------------------------------------------------------------


class Taken:
    """A pick that counts what was closed."""

    def __init__(self):
        self.closed = []

    def close(self, verdict, count=None):
        self.closed.append((verdict, count))


def test_flights_translate_positions_and_close_picks_once():
    resolved = []
    flights = Flights(retains=True, resolved=lambda *what: resolved.append(what))
    first, second = Taken(), Taken()
    flights.add(0, 4, 100, first)
    flights.add(4, 3, [200, 201, 300], second, [b"a", b"b", b"c"])
    out = []
    flights.apply([Outcome(OutcomeKind.CONFIRMED, 2, 7), Outcome(OutcomeKind.SETTLED, 3, 5)], out)
    assert [(o.kind.value, o.first, o.stop) for o in out] == [
        ("confirmed", 102, 104),
        ("confirmed", 200, 202),
        ("confirmed", 300, 301),
        ("settled", 103, 104),
        ("settled", 200, 201),
    ]
    assert flights.open == 5
    flights.apply([Outcome(OutcomeKind.SETTLED, 3, 5)], [])  # said twice
    assert flights.unresolved() == [(100, 103), (201, 202), (300, 301)]
    out = []
    flights.take_back(out)
    assert [(o.kind.value, o.first, o.stop, o.ambiguous) for o in out] == [
        ("returned", 100, 103, True),
        ("returned", 201, 202, True),
        ("returned", 300, 301, True),
    ]
    assert first.closed == [(Verdict.OK, 1), (Verdict.ABANDONED, 3)]
    assert second.closed == [(Verdict.OK, 1), (Verdict.ABANDONED, 2)]
    assert resolved[-1] == (2, [b"b", b"c"], Verdict.ABANDONED)
    late = []
    flights.apply([Outcome(OutcomeKind.SETTLED, 0, 7)], late)
    assert (late, flights.open) == ([], 0)


def test_what_was_of_unknown_fate_can_be_confirmed_late_and_is_forgotten_at_last():
    resolved = []
    flights = Flights(retains=False, resolved=lambda *what: resolved.append(what))
    first, second = Taken(), Taken()
    flights.add(0, 3, 100, first)
    flights.add(3, 1, 103, second)
    out = []
    flights.apply([Outcome(OutcomeKind.UNKNOWN, 0, 3), Outcome(OutcomeKind.CONFIRMED, 3, 4)], out)
    assert (flights.open, flights.unresolved(), first.closed) == (0, [], [(Verdict.TIMEOUT, 3)])
    late = []
    flights.apply([Outcome(OutcomeKind.CONFIRMED, 1, 3)], late)
    assert [(o.kind.value, o.first, o.stop) for o in late] == [("confirmed", 101, 103)]
    assert (flights.open, first.closed, second.closed) == (0, [(Verdict.TIMEOUT, 3)], [(Verdict.OK, 1)])
    assert [verdict for _, _, verdict in resolved] == [Verdict.TIMEOUT, Verdict.OK]
    # So many later ones: now it is gone, and nothing else is taken for it.
    for position in range(4, 400):
        flights.add(position, 1, 100 + position, Taken())
        flights.apply([Outcome(OutcomeKind.CONFIRMED, position, position + 1)], [])
    late = []
    flights.apply([Outcome(OutcomeKind.CONFIRMED, 0, 1)], late)
    assert (late, flights.open, flights.unresolved()) == ([], 0, [])


class Confirmer(SenderDriver):
    """Says of what it is given what the test says."""

    def __init__(self):
        self.says = []

    def open(self, timeout):
        pass

    def submit(self, batch, position):
        pass

    def outcomes(self, timeout):
        said, self.says = self.says, []
        return said

    def close(self, timeout):
        pass


def test_what_one_member_of_a_topic_may_not_have_is_not_confirmed():
    ends = {"a": Confirmer(), "b": Confirmer()}
    pool = TopicPool(
        "any://news",
        ends.__getitem__,
        {"a": 1.0, "b": 1.0},
        membership=Membership(simlink.Heartbeat(1.0)),
        world=RealWorld("any://news"),
        retains=False,
        balancer=balancer("round_robin"),
        drop=False,
        backlog=5,
    )
    try:
        pool.open(10.0)
        until(lambda: pool.outcomes(0.0) or all(slot.connected for slot in pool.slots.values()), "both")
        pool.submit(numbered(b"p" * 16, 0, [b"x"] * 3), 0)
        ends["a"].says = [Outcome(OutcomeKind.UNKNOWN, 1, 2), Outcome(OutcomeKind.CONFIRMED, 0, 1)]
        ends["b"].says = [Outcome(OutcomeKind.CONFIRMED, 0, 3)]
        out = []
        until(lambda: out.extend(pool.outcomes(0.01)) or len(out) == 2, "the first and the second")
        ends["a"].says = [Outcome(OutcomeKind.CONFIRMED, 2, 3)]
        until(lambda: out.extend(pool.outcomes(0.01)) or len(out) == 3, "the third")
        said = {outcome.first: outcome.kind.value for outcome in out}
        assert said == {0: "confirmed", 1: "unknown", 2: "confirmed"}
    finally:
        pool.close(1.0)


def test_a_pin_lasts_while_something_is_unsettled():
    pins = Pins()
    pins.hold("a", [b"k", b"k", None, b"l"])
    assert (pins.of(b"k"), pins.of(b"l"), pins.of(b"m"), len(pins)) == ("a", "a", None, 2)
    assert pins.release([b"k", None, b"m"]) is False
    assert pins.release([b"k"]) is True
    assert (pins.of(b"k"), len(pins)) == (None, 1)


def test_a_slow_member_of_a_topic_holds_the_others_up_or_loses_what_is_beyond_its_backlog():
    clock = VirtualClock()
    random = Random(1)
    network = Network(clock, random)
    handed = []
    processes = [
        SimProcess(
            network,
            name,
            manners=Manners(heartbeat=0.1, dead=30.0, orphan_after=40.0, silence=30.0),
            service=lambda: 0.001,
            handed=handed.append,
            mode=Mode.TOPIC,
        )
        for name in ("quick", "slow")
    ]
    world = SimWorld(clock, random)
    pool = TopicPool(
        "sim://news",
        lambda name: SimEnd(network, name, heartbeat=0.1, dead=60.0, mode=Mode.TOPIC),
        {"quick": 1.0, "slow": 1.0},
        membership=Membership(simlink.Heartbeat(0.1, suspect=3, dead=600), random=random),
        world=world,
        retains=True,
        balancer=balancer("round_robin"),
        drop=True,
        backlog=5,
    )
    window = Window(max_messages=1000, max_bytes=1 << 20, retains=True)

    def rounds(count):
        for _ in range(count):
            window.apply(pool.outcomes(0.0))
            while (flight := window.next_flight()) is not None:
                pool.submit(*flight)
            clock.advance(0.01)

    rounds(5)
    processes[1].stall(2.0)
    rounds(50)
    assert pool.membership.state("slow").value == "suspect"
    entry = window.add(numbered(b"p" * 16, 0, [b"%d" % i for i in range(20)]))
    rounds(10)
    assert pool.dropped == 15
    assert (entry.pending, entry.missed) == (5, ("slow",))
    rounds(300)
    assert (entry.pending, window.messages) == (0, 0)
    assert [hand.identity[1] for hand in handed if hand.process == "slow"] == [15, 16, 17, 18, 19]
    assert [hand.identity[1] for hand in handed if hand.process == "quick"] == list(range(20))


def test_a_run_reports_what_each_endpoint_was_given_and_a_terminal_shows_it_live(monkeypatch):
    ports = free_ports(2)
    shown = StringIO()
    real = rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **_: real(file=shown, force_terminal=True, width=200))
    with simlink.queue(url_of(ports), balancer="round_robin") as channel, Readers(channel, ports) as readers:
        report = simlink.run(list(range(50)), channel, rate=500, progress=Table())
        until(lambda: len(readers.all()) == 50, "all of them")
    assert {name: counts["state"] for name, counts in report.endpoints.items()} == dict.fromkeys(
        (f"{LOCAL}:{port}" for port in ports), "up"
    )
    assert sum(counts["sent"] for counts in report.endpoints.values()) == 50
    assert f"{LOCAL}:{ports[0]}" in str(report)
    assert report.as_dict()["endpoints"] == report.endpoints
    last = shown.getvalue()
    assert "endpoint" in last
    assert f"{LOCAL}:{ports[1]}" in last
    assert simlink.run([1], "memory://one", progress=False).endpoints is None

"""Topics over several endpoints: whose names are served where, who gets which copy, and what is counted."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import simlink
from simlink.channels.driver import Mode
from simlink.channels.link.destination import Destination
from simlink.channels.link.receiver import ReceiverLink
from simlink.channels.pool.members import Members
from simlink.channels.wire.frames import BatchFrame, Hello
from simlink.testing.brokers.ports import free_ports
from simlink.testing.ends import numbered
from tests.integration.test_pool_processes import until
from tests.simulation.scene import Fault, Scene, Schedule

LOCAL = "127.0.0.1"
QUICK = simlink.Heartbeat(interval=0.1, suspect=3, dead=7)


def url_of(ports, scheme="tcp"):
    return f"{scheme}://{','.join(f'{LOCAL}:{port}' for port in ports)}/news"


# --- whose names are served where ---------------------------------------------------------------------------------

ENDPOINTS = ["a", "b", "c"]
NAMES = [("x", ""), ("y", ""), ("z", ""), *(("", endpoint) for endpoint in ENDPOINTS)]
steps = st.lists(
    st.tuples(st.sampled_from(ENDPOINTS), st.none() | st.frozensets(st.sampled_from(NAMES), min_size=1), st.booleans()),
    max_size=12,
)


@given(steps)
def test_each_name_is_of_one_member_and_that_is_served_by_everybody_who_serves_the_name(steps):
    members = Members(lambda: None)
    serves = {}
    for at, (endpoint, names, settled) in enumerate(steps):
        if names is None:
            members.gone(endpoint)
            serves.pop(endpoint, None)
        else:
            members.serve(endpoint, names, at)
            serves[endpoint] = names
        if settled:
            for member in members.all:
                member.settled.add(0, at + 1)
            members.merge(at + 1)
            assert len({frozenset(member.slots) for member in members.all}) == len(members.all)
        found = [name for member in members.all for name in member.names]
        assert sorted(found) == sorted({name for names in serves.values() for name in names})
        for member in members.all:
            for name in member.names:
                assert member.slots == {endpoint for endpoint, names in serves.items() if name in names}
        for each in ENDPOINTS:
            assert members.of.get(each, []) == [member for member in members.all if each in member.slots]


def test_members_that_part_keep_their_past_each():
    members = Members(lambda: None)
    assert members.serve("a", frozenset({("x", ""), ("y", "")}), 5) == []
    (both,) = members.all
    both.confirmed.add(7, 9)
    both.waiting.append((9, 12))
    both.again.append((9, 11))
    members.serve("b", frozenset({("x", "")}), 12)
    named = {member.label: member for member in members.all}
    assert {name: sorted(member.slots) for name, member in named.items()} == {"x": ["a", "b"], "y": ["a"]}
    for member in named.values():
        assert member.confirmed.missing(0, 12) == [(5, 7), (9, 12)]
        assert list(member.waiting) == [(9, 12)]
    assert named["x"].resends(9, 10) == [(9, 10)]
    assert (named["x"].again, named["y"].again) == ([(10, 11)], [(9, 11)])
    (out,) = members.gone("a")
    assert (out.label, [member.label for member in members.all]) == ("y", ["x"])


def test_what_waits_for_an_endpoint_is_for_the_others_that_came_back_in_its_place():
    members = Members(lambda: None)
    members.serve("a", frozenset({("x", "")}), 0)
    members.all[0].waiting.append((0, 3))
    assert members.serve("a", frozenset({("", "a")}), 3) == []
    (member,) = members.all
    assert (member.label, list(member.waiting), member.past) == ("a", [(0, 3)], {("x", "")})


# --- who gets which copy ------------------------------------------------------------------------------------------


class Here:
    """A topic's destination with a link, and a reader for each name."""

    def __init__(self, *names, subscription=""):
        self.destination = Destination("news", Mode.TOPIC)
        self.readers = {name: self.destination.hub.subscribe(name, capacity=100) for name in names}
        self.link = self.destination.hello(Hello(b"s" * 16, "news", Mode.TOPIC, subscription))
        self.destination.pump()
        self.position = 0

    def comes(self, first, count, *to):
        batch = numbered(b"p" * 16, first, [b"%d" % (first + i) for i in range(count)])
        self.destination.batch(self.link, BatchFrame(self.position, batch, 0, {b"p" * 16: 0}, to))
        self.position += count
        self.destination.pump()

    def got(self, name):
        """What a reader is handed now; it settles with `settle`."""
        self.held = self.readers[name].receive(100, 0.0)
        return [int(body) for incoming in self.held for body in incoming.batch.bodies]

    def settle(self, name):
        self.readers[name].settle(
            simlink.channels.driver.Settlement(i.lease, simlink.message.Verdict.ACK, i.tokens[0], i.tokens[-1])
            for i in self.held
        )
        self.destination.pump()

    @property
    def settled(self):
        return [p for p in range(self.position) if p in self.link.resolved]


def test_a_batch_for_some_subscriptions_reaches_no_others():
    here = Here("x", "y", None)
    here.comes(0, 2, "x")
    here.comes(2, 2)
    here.comes(4, 2, "y", "")
    assert [here.got(name) for name in ("x", "y", None)] == [[0, 1, 2, 3], [2, 3, 4, 5], [2, 3, 4, 5]]


def test_a_link_that_names_a_subscription_feeds_that_one():
    here = Here("x", "y", subscription="y")
    here.comes(0, 2)
    assert [here.got(name) for name in ("x", "y")] == [[], [0, 1]]


def test_a_copy_is_a_duplicate_only_for_who_has_had_it():
    here = Here("x", "y", "z")
    here.comes(0, 2, "x")
    here.comes(0, 3, "x", "y")
    assert [here.got(name) for name in ("x", "y", "z")] == [[0, 1, 2], [0, 1, 2], []]
    here.comes(0, 3)
    assert [here.got(name) for name in ("x", "y", "z")] == [[], [], [0, 1, 2]]


def test_what_all_have_had_is_a_duplicate_for_each():
    here = Here("x", "y")
    here.comes(0, 2)
    assert here.got("x") == [0, 1]
    here.comes(0, 2, "y")
    assert (here.got("y"), here.destination.duplicates) == ([0, 1], 2)


def test_a_second_copy_is_settled_with_the_first_of_each_of_its_own():
    here = Here("x", "y")
    here.comes(0, 1, "x")
    here.comes(0, 1, "x", "y")  # x has it in hand or will: the second position waits for both
    assert here.got("y") == [0]
    here.settle("y")
    assert here.settled == []
    assert here.got("x") == [0]
    here.settle("x")
    assert here.settled == [0, 1]
    here.comes(0, 1, "x")
    assert here.settled == [0, 1, 2]  # nobody has it any more


def test_what_is_for_nobody_here_is_settled_and_counted():
    here = Here("x")
    here.comes(0, 3, "gone")
    assert (here.settled, here.destination.hub.unrouted, here.got("x")) == ([0, 1, 2], 3, [])


def test_of_the_names_that_a_peer_writes_only_those_that_are_here_are_kept():
    here = Here("x", "y", None)
    frame = BatchFrame(
        0, numbered(b"p" * 16, 0, [b"0"]), 0, {}, ("", "y", "y", *("n" * 60 + str(i) for i in range(99)))
    )
    here.destination.batch(here.link, frame)
    assert frame.subscriptions == ("", "y")
    assert [here.got(name) for name in ("x", "y", None)] == [[], [0], [0]]


# --- real ones ----------------------------------------------------------------------------------------------------


class Inbox:
    """A receiver with a thread of its own."""

    def __init__(self, channel, name, port):
        self.got = []
        self.receiver = channel.receiver(name, at=f"{LOCAL}:{port}")
        self.receiver.open()
        self.thread = threading.Thread(target=self._read, name=f"inbox-{name}-{port}")
        self.thread.start()

    def _read(self):
        for delivery in self.receiver:
            self.got.append(delivery.value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.receiver.close(timeout=5)
        self.thread.join(10)


def members_of(channel):
    return {name: member["endpoints"] for name, member in channel.stats()["driver"]["members"].items()}


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
def test_a_name_that_joins_at_a_connected_endpoint_is_told_of_and_gets_all_from_then_on(scheme):
    ports = free_ports(2)
    with (
        simlink.topic(url_of(ports, scheme), detector=QUICK, balancer="round_robin") as channel,
        Inbox(channel, "x", ports[0]) as first,
        Inbox(channel, "x", ports[1]) as second,
    ):
        channel.sender.connect(30)
        until(lambda: len(members_of(channel).get("x", ())) == 2, "both")
        with Inbox(channel, "y", ports[0]) as late:
            until(lambda: members_of(channel).get("y") == [f"{LOCAL}:{ports[0]}"], "the news of it")
            for number in range(20):
                channel.send(number)
            until(lambda: late.got == list(range(20)) and len(first.got + second.got) == 20, "one copy for each")
            assert sorted(first.got + second.got) == list(range(20))
            assert [len(first.got), len(second.got)] == [10, 10]


def test_an_older_receiver_gets_all_its_copies_and_that_is_told(monkeypatch, caplog):
    welcome = ReceiverLink.welcome

    def as_before(link, **given):
        frame = welcome(link, **given)
        frame.addressable = False
        return frame

    monkeypatch.setattr(ReceiverLink, "welcome", as_before)
    ports = free_ports(2)
    with (
        simlink.topic(url_of(ports), detector=QUICK) as channel,
        Inbox(channel, "audit", ports[0]) as alone,
        Inbox(channel, "audit", ports[1]) as audit,
        Inbox(channel, "stock", ports[1]) as stock,
    ):
        channel.sender.connect(30)
        until(lambda: all(each.state == "up" for each in channel.endpoints), "all")
        channel.send(1)
        until(lambda: alone.got + audit.got + stock.got == [1, 1, 1], "a copy for each endpoint")
    said = [record.getMessage() for record in caplog.records if "gets each message from both" in record.getMessage()]
    assert (len(said), "'audit' is subscribed to at" in said[0]) == (1, True)


class Moody(simlink.Balancer):
    """Raises while it is told to."""

    broken = False

    def choose(self, endpoints, key):
        if Moody.broken:
            raise RuntimeError("not today")
        return endpoints[0]


def test_a_balancer_that_raises_costs_a_topic_no_message(monkeypatch):
    ports = free_ports(1)
    with simlink.topic(url_of(ports), balancer=Moody(), detector=QUICK) as channel, Inbox(channel, "x", ports[0]) as x:
        channel.send(0)
        monkeypatch.setattr(Moody, "broken", True)
        with pytest.raises(RuntimeError, match="not today"):
            channel.send(1, timeout=0.5)
        monkeypatch.setattr(Moody, "broken", False)
        until(lambda: x.got == [0, 1], "what was kept")


# --- what is counted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["queue", "topic"])
def test_what_is_moved_and_sent_again_after_a_death_is_counted(mode):
    faults = (Fault(0.5, "slow", 1, 60.0), Fault(0.8, "kill", 1, 60.0))
    names = (("x",),) * 3 if mode == "topic" else ()
    scene = Scene(Schedule(3, mode=mode, balancer="round_robin", faults=faults, names=names))
    books = scene.run()
    assert books.problems == []
    ((_, _, held),) = books.crashes
    assert len(held) > 1
    stats = scene.pool.stats()
    # At least those; and what it was given between its end and the news of that.
    assert len(held) <= scene.window.totals.resent <= stats["moved"] <= len(held) + 5
    assert scene.pool.counts()["e1"]["moved"] == stats["moved"]

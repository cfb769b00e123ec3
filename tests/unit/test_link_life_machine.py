"""Senders and readers around the real listeners of tcp, HTTP and gRPC, with small bounds and every kind of trouble: a
model test that after the trouble everything comes to its end.

`test_link_machine` moves frames between the two ends of a link; here it is the listeners that decide when they look.
Half of the time beats never come, for they put right within a second what was forgotten.
"""

import contextlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from simlink.channels.driver import Mode
from simlink.channels.link import destination
from simlink.message import Verdict
from tests.support.carriers import CARRIERS, Clock
from tests.support.linked import LONGEST, Linked

NEVER = 10_000.0
KINDS = [("a", "block"), ("b", "drop"), (None, "block"), (None, "drop")]
"""Subscriptions of a topic: name and overflow."""
which = st.integers(0, 5)
picks = st.lists(st.integers(0, 60), min_size=1, max_size=20)


class LifeMachine(RuleBasedStateMachine):
    kind = "tcp"

    def __init__(self):
        super().__init__()
        self.patches = contextlib.ExitStack()

    @initialize(
        silent=st.booleans(),
        leased=st.booleans(),
        topic=st.booleans(),
        keyed=st.booleans(),
        messages=st.sampled_from([1, 2, 5, 20, 50]),
        nbytes=st.sampled_from([1, 50, 300, 1000]),
        beyond=st.sampled_from([100, 3000, 1 << 24]),
        shallow=st.sampled_from([8, 16_384]),
        senders=st.sampled_from([1, 2, 6]),
        subscriptions=st.integers(1, 4),
    )
    def start(self, silent, leased, topic, keyed, messages, nbytes, beyond, shallow, senders, subscriptions):
        patch = pytest.MonkeyPatch()
        self.patches.callback(patch.undo)
        patch.setattr(destination, "_SHALLOW", shallow)
        self.silent, self.topic, self.beyond = silent, topic, beyond
        self.leased = leased and not silent
        beat = NEVER if silent else 1.0
        carrier = CARRIERS[self.kind](
            Clock(), heartbeat=beat, dead=5 * beat, max_frame_bytes=LONGEST, patch=patch.setattr
        )
        self.patches.callback(carrier.close)
        self.link = Linked(
            carrier,
            mode=Mode.TOPIC if topic else Mode.QUEUE,
            bounds=(messages, nbytes),
            senders=senders,
            heartbeat=beat,
            lease=2.0 if self.leased else 0.0,
        )
        for sender in self.link.senders:
            sender.keyed = keyed
        self.kinds = KINDS[:subscriptions] if topic else [(None, "block")]
        self.kind_of = {}  # of each reader
        self.away = []
        self.labels = 0
        self.join_all()

    def join(self, kind):
        self.labels += 1
        self.kind_of[self.labels] = kind
        self.link.join(self.labels, *kind)

    def join_all(self):
        self.away.clear()
        for kind in self.kinds:
            self.join(kind)
        self.link.destination.beyond = self.beyond

    def sender(self, which):
        return self.link.senders[which % len(self.link.senders)]

    def reader(self, which):
        labels = list(self.link.readers)
        return labels[which % len(labels)]

    # --- the usual way of things ----------------------------------------------------------------------------------

    @rule(
        which=which,
        count=st.integers(1, 12),
        size=st.sampled_from([0, 0, 0, 5, 40, 300, 2000, LONGEST + 1000]),
        to=st.lists(st.integers(0, 3), max_size=2),
    )
    def send(self, which, count, size, to):
        """Longer ones than the buffer takes, too, and such as no frame takes; for some of the subscriptions or all."""
        sender = self.sender(which)
        names = sorted(set(sender.link.subscriptions))
        sender.make(count, size, tuple(sorted({names[n % len(names)] for n in to})) if names else ())
        self.link.submit(sender)

    @rule(which=which, times=st.integers(1, 4))
    def send_much(self, which, times):
        self.send(which, times * self.link.bounds.messages, 0, [])

    @rule(which=which)
    def connect(self, which):
        self.link.connect(self.sender(which))

    @rule(which=which, together=st.sampled_from([1, 1, 3]))
    def write(self, which, together):
        self.link.write(self.sender(which), together)

    @rule(which=which, posts=st.lists(st.integers(0, 5), min_size=1, max_size=5), size=st.none() | st.integers(1, 80))
    def carry(self, which, posts, size):
        for post in posts:
            self.link.carry(self.sender(which), post, size)

    @rule(which=which, count=st.sampled_from([1, 2, 100]), replies_first=st.booleans())
    def hear(self, which, count, replies_first):
        self.link.hear(self.sender(which), count, replies_first)

    @rule(which=which, limit=st.integers(1, 30))
    def receive(self, which, limit):
        self.link.receive(self.reader(which), limit)

    @rule(verdict=st.sampled_from([Verdict.ACK, Verdict.ACK, Verdict.REJECT]), picks=picks)
    def settle(self, verdict, picks):
        self.link.settle(picks, verdict)

    @rule(delay=st.sampled_from([0.0, 0.3]), picks=picks)
    def nack(self, delay, picks):
        self.link.settle(picks, Verdict.NACK, delay)

    @rule(
        which=which, count=st.integers(1, 12), size=st.sampled_from([0, 3, 30]), limit=st.integers(0, 30), picks=picks
    )
    def flow(self, which, count, size, limit, picks):
        """All of that in its order: random steps alone seldom get far."""
        sender = self.sender(which)
        self.connect(which)
        self.send(which, count, size, [])
        self.link.write(sender)
        self.carry(which, [0] * 5, None)
        self.hear(which, 100, False)
        if limit:
            self.receive(which, limit)
            self.settle(Verdict.ACK, picks)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.5, 6.0]))
    def time_passes(self, seconds):
        self.link.pass_time(seconds)

    # --- trouble --------------------------------------------------------------------------------------------------

    @rule(which=which, far_too=st.booleans())
    def cut(self, which, far_too):
        self.link.cut(self.sender(which), far_too)

    @rule(which=which, times=st.integers(2, 4), wrote=st.booleans(), came=st.booleans(), far_too=st.booleans())
    def connect_and_lose_again(self, which, times, wrote, came, far_too):
        sender = self.sender(which)
        for _ in range(times):
            self.link.connect(sender)
            if wrote:
                self.link.write(sender)
            if came:
                self.link.carry(sender)
            self.link.cut(sender, far_too)

    @precondition(lambda self: self.leased)
    @rule(which=which, elsewhere=st.integers(1, 4))
    def withdraw(self, which, elsewhere):
        """Every so manieth message goes elsewhere for good, the others come back here."""
        self.link.withdraw(self.sender(which), lambda sequence: sequence % elsewhere == 1)

    @rule(which=which)
    def bye(self, which):
        self.link.bye(self.sender(which))

    @rule(which=which)
    def another_reader_takes_over(self, which):
        label = self.reader(which)
        if self.topic and len(self.link.readers) > 1:
            self.away.append(self.kind_of[label])
        else:
            self.join(self.kind_of[label])
        self.link.leave(label)

    @precondition(lambda self: self.away)
    @rule()
    def come_back(self):
        self.join(self.away.pop())

    @precondition(lambda self: len(self.link.readers) < 6)
    @rule(which=which)
    def one_more_reader(self, which):
        self.join(self.kinds[which % len(self.kinds)])

    @rule(told=st.booleans())
    def the_receiver_closes(self, told):
        for label in list(self.link.readers):
            self.link.leave(label)
        if told:
            for sender in self.link.senders:
                self.link.hear(sender)
                self.link.connect(sender)
        self.join_all()

    @rule(which=which, writable=st.booleans())
    def the_receiver_cannot_write(self, which, writable):
        wire = self.sender(which).wire
        if hasattr(wire, "writable"):
            self.link.carrier.hold(wire, writable)

    # --- what holds -----------------------------------------------------------------------------------------------

    def teardown(self):
        with self.patches:
            if not hasattr(self, "link"):
                return
            for subscription in self.link.destination.hub.subscriptions.values():
                assert subscription.count <= self.link.bounds.messages
            while self.away:
                self.come_back()
            self.link.drain(
                60 if self.silent else 400,
                whole=[name for name, overflow in self.kinds if overflow == "block" and name]
                if self.topic
                else [self.link.name],
                idle=[label for label in self.link.readers if self.kind_of[label][1] == "drop"],
            )


@pytest.mark.parametrize("kind", CARRIERS)
def test_everything_comes_to_its_end(kind):
    run_state_machine_as_test(
        type("Machine", (LifeMachine,), {"kind": kind}),
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

"""Send, receive, acknowledge, hand back, reject, crash and come back, over a real channel, against a model.

Whatever happens in between: nothing that was confirmed is lost, nothing comes that was not sent, what was settled
stays away, and the messages of a key are handed out first in the order in which they were sent.
"""

from collections import Counter

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from simlink.channels import hands
from simlink.channels.channel import queue
from simlink.errors import ReceiveTimeout

READERS = st.integers(0, 1)
KEYS = st.sampled_from([None, "a", "b"])


class Machine(RuleBasedStateMachine):
    """Two manual receivers at most; the application holds several deliveries at once."""

    def __init__(self):
        super().__init__()
        # A back-off of nothing: the machine decides when a message is asked for again, not the clock.
        self.backoff, hands.backoff = hands.backoff, lambda _attempt: 0.0
        self.channel = queue("memory://machine")
        self.readers = {}
        self.held = {0: [], 1: []}
        self.sent = []  # the key of each message, by number
        self.handouts = Counter()
        self.settled = set()
        self.first_out = {}

    @initialize(prefetch=st.sampled_from([1, 3, 50]))
    def start(self, prefetch):
        self.prefetch = prefetch
        self.connect(0)

    # --- rules --------------------------------------------------------------------------------------------------

    @rule(keys=st.lists(KEYS, min_size=1, max_size=6), one_by_one=st.booleans())
    def send(self, keys, one_by_one):
        first = len(self.sent)
        numbers = list(range(first, first + len(keys)))
        self.sent += keys
        if one_by_one:
            for number, key in zip(numbers, keys, strict=True):
                assert self.channel.send(number, key=key).state == "confirmed"
        else:
            receipt = self.channel.send_many(numbers, key=lambda number: self.sent[number])
            assert receipt.confirmed == len(keys)

    def connect(self, reader):
        if reader not in self.readers:
            self.readers[reader] = self.channel.receiver(settle="manual", prefetch=self.prefetch)
            self.readers[reader].open()

    @rule(reader=READERS, count=st.integers(1, 4))
    def receive(self, reader, count):
        """Coming back, if it was away."""
        self.connect(reader)
        for _ in range(count):
            try:
                delivery = self.readers[reader].get(timeout=0.0)
            except ReceiveTimeout:
                return
            self.check(delivery)
            key = delivery.message.key
            others = [d.value for d in self.held[1 - reader] if key is not None and d.message.key == key]
            assert others == [], "a key is in two hands"
            self.held[reader].append(delivery)

    @precondition(lambda self: any(self.held.values()))
    @rule(reader=READERS, which=st.integers(0, 9), verdict=st.sampled_from(["ack", "nack", "reject"]))
    def settle(self, reader, which, verdict):
        if not self.held[reader]:
            reader = 1 - reader
        delivery = self.held[reader].pop(which % len(self.held[reader]))
        assert getattr(delivery, verdict)() is True
        if verdict != "nack":
            self.settled.add(delivery.value)

    @precondition(lambda self: self.readers)
    @rule(reader=READERS)
    def crash(self, reader):
        """The application dies with what it holds: nothing of that is settled."""
        if reader not in self.readers:
            return
        self.readers.pop(reader).close()
        late, self.held[reader] = self.held[reader], []
        assert [delivery.ack() for delivery in late] == [False] * len(late)

    # --- the promises -------------------------------------------------------------------------------------------

    def check(self, delivery):
        number = delivery.value
        assert 0 <= number < len(self.sent), "nobody sent this"
        assert number not in self.settled, "it was settled, and yet it came again"
        key = self.sent[number]
        assert delivery.message.key == (None if key is None else key.encode())
        assert not [d for held in self.held.values() for d in held if d.value == number], "it is in two hands"
        if key is not None and not self.handouts[number]:
            assert self.first_out.get(key, -1) < number, f"the messages of {key} came out of order"
            self.first_out[key] = number
        self.handouts[number] += 1
        assert delivery.attempt >= self.handouts[number], "an attempt that was not counted"

    def teardown(self):
        try:
            for reader in list(self.readers):
                self.crash(reader)
            missing = set(range(len(self.sent))) - self.settled
            with self.channel.receiver(idle=0.0) as rx:
                rest = []
                for delivery in rx:
                    self.check(delivery)
                    rest.append(delivery.value)
            assert sorted(missing) == sorted(rest), "something was lost, or came twice"
            assert self.channel.stats()["confirmed"] == len(self.sent)
            (subscription,) = self.channel._driver.hub().stats()["subscriptions"].values()
            assert (subscription["messages"], subscription["bytes"]) == (0, 0)
        finally:
            hands.backoff = self.backoff
            self.channel.close()


Machine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain}
)
TestAtLeastOnce = Machine.TestCase

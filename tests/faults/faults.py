"""The columns of the table: what is done to a transport while messages are on their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.child import HAND
from tests.faults.places import BEATS, BROKER, CREDENTIALS, NETWORK, PROCESSES, TLS
from tests.faults.scene import clock_file, set_clock
from tests.faults.secured import HIDDEN

STALL = 10.0
CUTS = 6


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A column.

    Attributes:
        name: of the column.
        act: what happens, in order; the end of the scene is not its business.
        needs: what a transport must have for it.
        count, size, rate: messages, bytes of each, messages a second.
        waits: it is mostly waiting, so that many may wait together.
    """

    name: str
    act: Callable
    needs: frozenset = frozenset()
    count: int = 3_000
    size: int = 100
    rate: float = 2_000.0
    waits: bool = False


def receiver_killed(scene):
    # Each stops by itself: whoever is told from outside may have had everything by then.
    third = scene.count // 3
    scene.start(pause_at=third)
    scene.kill_receiver()
    scene.receive(pause_at=third)
    scene.kill_receiver()
    scene.receive()


def sender_killed(scene):
    scene.start()
    scene.until(1 / 2)
    scene.senders[-1].kill()
    scene.send(scene.count // 5)


def broker_killed(scene):
    scene.start()
    for part in (1 / 3, 2 / 3):
        scene.until(part)
        if scene.transport.forgets is not None:
            scene.held += scene.forgotten(scene.transport.forgets) + HAND
        scene.place.broker.kill()
        scene.breaks += 1
        scene.place.broker.start()


def cut(scene):
    scene.start()
    for number in range(1, CUTS):
        scene.until(number / CUTS)
        scene.proxy.cut("up" if number % 2 else "down")
        scene.proxy.wait_for("cut", number)
        scene.breaks += 1


def sliced(scene):
    scene.proxy.slice(1, 7)
    scene.start()
    scene.until(1)


def stalled(scene):
    scene.start()
    scene.until(1 / 3)
    scene.proxy.stall(STALL)
    scene.pass_time(STALL)
    scene.breaks += 1  # it may be held for dead meanwhile


def throttled(scene):
    scene.start()
    scene.until(1 / 6)
    scene.proxy.throttle(THROTTLE)
    scene.until(1)


THROTTLE = 100_000


def reset(scene):
    scene.start()
    for number in range(1, CUTS):
        scene.until(number / CUTS)
        # Whoever was reset just before may still be on the way back.
        scene.until_true(lambda: scene.proxy.reset() > 0, "a connection to reset")
        scene.breaks += 1


def half_open(scene):
    # Nobody is told, and this never ends by itself: whoever does not look after its connection waits for ever.
    scene.start()
    scene.until(1 / 3)
    scene.proxy.silence(new=False)
    scene.breaks += 1
    scene.proxy.wait_for("swallowed")


def replies_lost(scene):
    scene.start()
    scene.until(1 / 6)
    scene.proxy.lose_replies(10)
    scene.until(5 / 6)
    scene.proxy.heal()
    lost = scene.proxy.counts["lost_replies"]
    assert lost > 0
    scene.breaks += lost
    scene.notes.append(f"{lost} replies lost")


def reader_stops(scene):
    import signal

    scene.start()
    scene.until(1 / 10)
    receiver, sender = scene.receivers[-1], scene.senders[-1]
    receiver.command.signal(signal.SIGUSR1)
    receiver.until_said("paused")
    # Either the sender is stopped by its bounds, or a broker takes it all.
    known = -1
    while sender.command.process.poll() is None and known != (known := len(sender.sent.look())):
        scene.pass_time(1.5)
    receiver.command.signal(signal.SIGUSR2)


def refused_then_accepted(scene):
    scene.proxy.refuse()
    scene.start(wait=False)
    scene.pass_time(2.0)
    scene.proxy.accept()
    scene.until(1 / 2)
    scene.proxy.refuse()
    scene.proxy.reset()
    scene.breaks += 1
    scene.pass_time(2.0)
    scene.proxy.accept()


def clock_set_back(scene):
    file = clock_file(scene)
    scene.start()
    scene.until(1 / 3)
    set_clock(file, -3600)
    scene.until(2 / 3)
    set_clock(file, 3600)


def strangers(scene):
    """Who may not come in is refused, whoever cannot be trusted is left alone, and the right one gets through."""
    scene.receive()
    scene.must_be_refused()
    scene.send()
    scene.until(1)
    scene.show_nothing(HIDDEN)


FAULTS = (
    Fault(name="receiver killed", act=receiver_killed, needs=frozenset({PROCESSES}), waits=True),
    Fault(name="sender killed", act=sender_killed, needs=frozenset({PROCESSES}), waits=True),
    Fault(
        name="broker killed twice", act=broker_killed, needs=frozenset({BROKER}), count=10_000, rate=4_000, waits=True
    ),
    Fault(name="cut mid-frame", act=cut, needs=frozenset({NETWORK})),
    Fault(name="sliced", act=sliced, needs=frozenset({NETWORK}), count=1_000),
    Fault(name="stalled 10 s", act=stalled, needs=frozenset({NETWORK}), waits=True),
    Fault(name="half-open", act=half_open, needs=frozenset({NETWORK, BEATS}), waits=True),
    Fault(name="throttled", act=throttled, needs=frozenset({NETWORK}), waits=True),
    Fault(name="reset", act=reset, needs=frozenset({NETWORK})),
    Fault(name="every tenth reply lost", act=replies_lost, needs=frozenset({NETWORK}), waits=True),
    Fault(name="reader stops", act=reader_stops, count=6_000, size=10_000, rate=20_000),
    Fault(name="refused, then accepted", act=refused_then_accepted, needs=frozenset({NETWORK}), waits=True),
    Fault(name="clock set back", act=clock_set_back),
    Fault(name="wrong credentials", act=strangers, needs=frozenset({CREDENTIALS}), count=100),
    Fault(name="bad certificate", act=strangers, needs=frozenset({TLS}), count=100),
)
"""Every column."""

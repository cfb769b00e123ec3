"""Opening, closing, threads: everything ends, and says how."""

from __future__ import annotations

import os
import threading
import time

from simlink.channels.driver import Kept, Mode
from simlink.errors import ChannelClosed, ConfigError, ConnectError, ForkError, ReceiveTimeout, StateError
from simlink.testing.conformance.harness import Harness, case, in_thread

Q = Mode.QUEUE


@case(Q)
def closing_twice_and_from_several_threads(h: Harness) -> None:
    channel = h.queue()
    rx = channel.receiver()
    rx.open()
    channel.send(1, timeout=h.patience)
    assert rx.take(1, timeout=h.patience) == [1]
    threads = [in_thread(channel.close) for _ in range(4)]
    for thread, raised in threads:
        thread.join(h.patience)
        assert not thread.is_alive(), "close() hangs"
        assert not raised, raised
    rx.close()
    channel.close()


@case(Q)
def closing_wakes_a_waiting_receiver(h: Harness) -> None:
    with h.queue() as channel:
        rx = channel.receiver()
        rx.open()
        waiting = threading.Event()

        def wait() -> None:
            waiting.set()
            rx.get(timeout=None)

        thread, raised = in_thread(wait)
        waiting.wait(h.patience)
        rx.close()
        thread.join(h.patience)

        assert not thread.is_alive(), "close() does not wake a waiting get()"
        assert isinstance(raised[0], ChannelClosed), raised


@case(Q)
def after_close_nothing_works(h: Harness) -> None:
    channel = h.queue()
    rx = channel.receiver()
    channel.close()
    for attempt in (lambda: channel.send(1), lambda: rx.get(timeout=0.1), channel.receiver):
        try:
            attempt()
        except ChannelClosed:
            pass
        else:
            raise AssertionError("a closed channel works")


@case(Q)
def iteration_ends_when_it_is_quiet(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(idle=max(0.5, h.quiet)) as rx:
        channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
        started = time.monotonic()
        assert [d.value for d in rx] == [1, 2, 3]
        assert time.monotonic() - started >= 0.5


@case(Q)
def stopping_ends_iteration(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        channel.send(1, timeout=h.patience)
        seen = []
        for delivery in rx:
            seen.append(delivery.value)
            rx.stop()
        assert seen == [1]


@case(Q)
def a_receiver_belongs_to_one_thread(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        channel.send(1, timeout=h.patience)
        rx.get(timeout=h.patience)
        thread, raised = in_thread(lambda: rx.get(timeout=0.1))
        thread.join(h.patience)

        assert isinstance(raised[0], StateError), raised


@case(Q)
def a_channel_is_dead_after_a_fork(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        channel.send(1, timeout=h.patience)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            # The child says by one byte a call what it met, and leaves without running anybody's clean-up.
            said = b""
            for attempt in (lambda: channel.send(2), lambda: rx.get(timeout=0.1)):
                try:
                    attempt()
                except ForkError:
                    said += b"F"
                except BaseException:
                    said += b"?"
            os.write(write, said)
            os._exit(0)
        os.close(write)
        try:
            assert os.read(read, 10) == b"FF"
        finally:
            os.close(read)
            os.waitpid(pid, 0)
        assert rx.take(1, timeout=h.patience) == [1]


@case(Q)
def nobody_there_is_one_clear_error_in_time(h: Harness) -> None:
    url = h.unreachable()
    if url is None:
        return
    with h.queue(url) as channel:
        started = time.monotonic()
        try:
            channel.send(1, timeout=1.0)
        except ConnectError as error:
            assert "\n" not in str(error), str(error)
        else:
            raise AssertionError("a send to nobody was confirmed")
        assert time.monotonic() - started < 6.0


@case(Q)
def unknown_options_are_refused(h: Harness) -> None:
    try:
        h.queue(windwo=3)
    except ConfigError as error:
        assert "window" in str(error), error
    else:
        raise AssertionError("an unknown option was accepted")


@case(Q, lambda c: c.kept is not Kept.NO)
def purging_drops_what_is_kept(h: Harness) -> None:
    with h.queue() as channel:
        channel.send_many([1, 2, 3], timeout=h.patience)
        channel.purge()
        with channel.receiver() as rx:
            try:
                found = rx.get(timeout=h.quiet)
            except ReceiveTimeout:
                pass
            else:
                raise AssertionError(f"purged, and yet there was {found}")


@case(Q)
def a_repr_and_stats_tell_what_is_going_on(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        channel.send(1, timeout=h.patience)
        rx.take(1, timeout=h.patience)

        assert channel.name in repr(channel)
        assert "1 received" in repr(rx)
        assert channel.stats()["confirmed"] == 1
        assert rx.stats()["acked"] == 1

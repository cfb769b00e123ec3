"""What confluent-kafka does with a client that broke. It breaks by itself only now and then: here, when told."""

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException

from simlink.channels.driver import Mode
from simlink.channels.kafka.confluent import ConfluentProducer
from simlink.channels.kafka.lanes import Lane
from simlink.channels.kafka.settings import Settings
from simlink.channels.url import parse_url

GAP = KafkaException(KafkaError(KafkaError._GAPLESS_GUARANTEE, "unable to satisfy gap-less guarantee", fatal=True))


class Breaking:
    """A producer whose next call raises its fatal error after one report; the other reports come with the next."""

    def __init__(self, lane, error):
        self.lane = lane
        self.error = error

    def __len__(self):
        return self.lane.outstanding

    def purge(self, **_):
        pass

    def flush(self, timeout):
        if self.error is None:
            while self.lane.outstanding:
                self.lane.report(KafkaError(KafkaError._PURGE_INFLIGHT))
            return 0
        error, self.error = self.error, None
        self.lane.report(KafkaError(KafkaError._PURGE_QUEUE))
        raise error

    poll = flush


def as_the_library_does(error):
    # What a call raises whose report came after the error.
    wrapped = SystemError("returned a result with an exception set")
    wrapped.__cause__ = error
    return wrapped


@pytest.fixture(params=[GAP, as_the_library_does(GAP)], ids=["alone", "in a report"])
def breaking(request):
    lane = Lane()
    lane.push(np.arange(5))
    return lane, Breaking(lane, request.param)


@pytest.fixture
def producer(breaking):
    producer = ConfluentProducer(Settings.of(parse_url("kafka+confluent://127.0.0.1:9/orders"), Mode.QUEUE, {}))
    producer._producer = breaking[1]
    return producer


@pytest.mark.parametrize("hurry", [False, True])
def test_a_client_that_breaks_while_reports_come_is_told_to_be_broken(producer, breaking, hurry):
    assert not producer.broken
    producer.poll(0.1, hurry=hurry)
    assert producer.broken
    assert breaking[0].reported == 1


def test_a_client_that_breaks_while_it_is_given_up_still_reports_every_record(producer, breaking):
    producer.abandon(1.0)
    assert breaking[0].reported == 5
    assert producer.broken


@pytest.mark.parametrize("timeout", [0.0, 1.0])
def test_a_client_that_breaks_while_it_closes_is_closed(producer, breaking, timeout):
    producer.close(timeout)
    assert breaking[0].reported == 5
    producer.close(timeout)


def test_what_is_no_error_of_the_librarys_is_not_hidden(producer, breaking):
    breaking[1].error = SystemError("something else")
    with pytest.raises(SystemError, match="something else"):
        producer.poll(0.1)

"""Kafka: one driver and one set of semantics over confluent-kafka and kafka-python."""

from simlink.channels.kafka.driver import KafkaDriver

__all__ = ["KafkaDriver"]

"""RabbitMQ, by AMQP 0-9-1 with pika."""

from simlink.channels.rabbitmq.driver import RabbitMQDriver

__all__ = ["RabbitMQDriver"]

"""Redis: streams with consumer groups, and plain Pub/Sub."""

from simlink.channels.redis.driver import RedisDriver
from simlink.channels.redis.pubsub import RedisPubSubDriver

__all__ = ["RedisDriver", "RedisPubSubDriver"]

"""``tcp://host:port/name``: simlink's frames over plain TCP, without a broker."""

from simlink.channels.tcp.driver import TcpDriver

__all__ = ["TcpDriver"]

"""``grpc://host:port/name``: simlink's frames on a bidirectional gRPC stream, without a broker."""

from simlink.channels.grpc.driver import GrpcDriver

__all__ = ["GrpcDriver"]

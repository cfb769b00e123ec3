"""What a listener serves: links, the unary Publish, and the standard health and reflection services."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from simlink.channels.grpc import service_pb2 as pb
from simlink.channels.grpc.failures import STATUS_OF
from simlink.channels.grpc.guard import caller, proven
from simlink.channels.grpc.settings import SERVICE
from simlink.channels.link.reception import NoRoom, Peer, Reception
from simlink.channels.wire.codec import decode, encode_payload
from simlink.channels.wire.frames import FrameError
from simlink.message import Batch, Message, has_line_break

__all__ = ["Links", "add_services"]

log = logging.getLogger("simlink")


def add_services(server: grpc.aio.Server, reception: Reception) -> tuple[Any, Links]:
    """Put all services into a server: the health servicer, to be told of the end, and the links."""
    links = Links(reception)
    serving = health_pb2.HealthCheckResponse.SERVING
    checks = health.aio.HealthServicer()
    checks._server_status[SERVICE] = serving
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    methods = {
        # No serializers: frames pass as the bytes they are.
        "Link": grpc.stream_stream_rpc_method_handler(links.serve),
        "Publish": grpc.unary_unary_rpc_method_handler(
            _Publisher(reception).serve,
            request_deserializer=pb.PublishRequest.FromString,
            response_serializer=pb.PublishReply.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    return checks, links


# --- links ------------------------------------------------------------------------------------------------------------


class _StreamPeer(Peer):
    """A call of Link."""

    def __init__(self, name: str, now: float, scope: bytes) -> None:
        super().__init__(name, now, scope)
        self.woken = asyncio.Event()

    def wake(self) -> None:
        self.woken.set()


class Links:
    """The method Link. ``idle`` is set while nobody calls it."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._count = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def serve(self, _: Any, context: Any) -> None:
        self._count += 1
        self.idle.clear()
        try:
            await self._serve(context)
        finally:
            self._count -= 1
            if not self._count:
                self.idle.set()

    async def _serve(self, context: Any) -> None:
        peer = _StreamPeer(context.peer(), time.monotonic(), proven(context))
        reading = asyncio.create_task(self._read(peer, context))
        writing = asyncio.create_task(self._write(peer, context))
        self._reception.opened(peer)
        try:
            # Reading ends when the sender has nothing more to say, or is gone; writing when all was said.
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if peer.ended:
                await writing
        finally:
            self._reception.gone(peer)
            for task in (reading, writing):
                task.cancel()
            for end in await asyncio.gather(reading, writing, return_exceptions=True):
                # A call that ends under our hands is cancelled; anything else is a defect, ours or gRPC's.
                if isinstance(end, Exception):
                    log.warning("the stream of %s failed", peer.name, exc_info=end)
        if peer.reason is not None:
            _refuse(context, STATUS_OF[peer.reason.code], peer.reason.message)

    async def _read(self, peer: _StreamPeer, context: Any) -> None:
        received, read, eof = self._reception.received, context.read, grpc.aio.EOF
        while not peer.ended:
            data = await read()
            if data is eof:
                return
            try:
                frame = decode(data)
            except FrameError as error:
                self._reception.garbage(peer, error)
                return
            received(peer, frame)

    async def _write(self, peer: _StreamPeer, context: Any) -> None:
        woken, write = peer.woken, context.write
        while True:
            await woken.wait()
            woken.clear()
            peer.writing = True
            while frames := peer.take():
                for frame in frames:
                    await write(encode_payload(frame))
            peer.writing = False
            if peer.ended:
                return


# --- plain clients ---------------------------------------------------------------------------------------------------


class _Publisher:
    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def serve(self, request: pb.PublishRequest, context: Any) -> pb.PublishReply:
        try:
            if not request.messages:
                raise ValueError("there are no messages in it")
            batch = Batch.of([_message(m) for m in request.messages])
            self._reception.publish(request.destination, batch, caller(context))
        except KeyError:
            message = f"nobody receives {request.destination!r} at {self._reception.address}"
            _refuse(context, grpc.StatusCode.NOT_FOUND, message)
        except ValueError as error:
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except NoRoom:
            message = f"{request.destination!r} has no room now: its receivers are slower than its senders"
            _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        return pb.PublishReply(accepted=len(request.messages))


def _refuse(context: Any, code: grpc.StatusCode, details: str) -> None:
    """The status of a call that returns. Not `abort`: its exception would tie the server into a cycle, and gRPC's
    thread would live until that is collected."""
    context.set_code(code)
    context.set_details(details)


def _message(m: pb.Message) -> Message:
    """One message of a plain client.

    Raises:
        ValueError: what it says of itself cannot be.
    """
    if m.HasField("sequence") != bool(m.producer):
        raise ValueError("producer and sequence come together, or not at all")
    if m.producer and len(m.producer) != 16:
        raise ValueError(f"a producer is 16 bytes, not {len(m.producer)}")
    if m.sequence >= 1 << 63:
        raise ValueError("a sequence beyond 2^63 - 1")
    if has_line_break("".join([m.key_text, *m.headers, *m.headers.values()])):
        raise ValueError("a key of text, or a header, with CR, LF or NUL")
    key = m.key if m.HasField("key") else m.key_text.encode() if m.HasField("key_text") else None
    return Message(
        body=m.text.encode() if m.HasField("text") else m.body,
        key=key,
        headers=dict(m.headers),
        content_type=m.content_type or None,
        producer=m.producer or None,
        sequence=m.sequence if m.HasField("sequence") else None,
        timestamp=m.timestamp if m.HasField("timestamp") else None,
    )

"""A peer of grpc:// that says what it likes, a server that answers what it is told, and grpcurl."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from simlink.channels.driver import Mode
from simlink.channels.grpc import service_pb2 as pb
from simlink.channels.wire.codec import HEAD, decode, encode
from simlink.channels.wire.frames import Hello, Welcome
from simlink.testing.brokers.tools import cache_folder, locked
from tests.support.brokerless import LOCAL

SERVICE = "simlink.v1.Receiver"
# The newest that Debian 12's Go (1.19) builds.
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.1"


def payload(frame):
    return encode(frame)[HEAD.size :]


class Raw:
    """A call of Link by hand."""

    def __init__(self, port, *, metadata=(), compression=None):
        self.channel = grpc.insecure_channel(
            f"{LOCAL}:{port}", options=[("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        )
        self.out = queue.SimpleQueue()
        call = self.channel.stream_stream(f"/{SERVICE}/Link")
        self.call = call(iter(self.out.get, None), metadata=metadata, compression=compression)

    def __enter__(self):
        return self

    @property
    def code(self):
        """Why the call has ended, once `hear` said that it has."""
        return self.call.code().name

    def __exit__(self, *_):
        self.out.put(None)
        self.call.cancel()
        self.channel.close()

    def say(self, *frames):
        for frame in frames:
            self.out.put(frame if isinstance(frame, bytes) else payload(frame))

    def hear(self, kind):
        """The next frame of this kind; None when the call ends first."""
        try:
            for data in self.call:
                frame = decode(data)
                if isinstance(frame, kind):
                    return frame
        except grpc.RpcError:
            pass
        return None

    def hello(self, **changes):
        self.say(Hello(**{"sender": b"r" * 16, "destination": "orders", "mode": Mode.QUEUE, **changes}))
        return self.hear(Welcome)


class Fake:
    """A server whose Link sends what it is given and then waits until it is closed, if it shall."""

    def __init__(self, *answers, service=SERVICE, stays=True, code=None):
        self.answers = answers
        self.code = code
        self.over = queue.SimpleQueue() if stays else None
        self.pool = ThreadPoolExecutor(4)
        self.server = grpc.server(self.pool)
        methods = {"Link": grpc.stream_stream_rpc_method_handler(self.link)}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self.port = self.server.add_insecure_port(f"{LOCAL}:0")

    def link(self, requests, context):
        next(requests)
        for answer in self.answers:
            yield answer if isinstance(answer, bytes) else payload(answer)
        if self.code is not None:
            context.abort(grpc.StatusCode[self.code], "so it is")
        if self.over is not None:
            self.over.get()

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        if self.over is not None:
            for _ in range(8):
                self.over.put(None)
        self.server.stop(0).wait()
        self.pool.shutdown()


def status_of(call):
    """``(code, details)`` of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def publish(port, request, *, metadata=(), timeout=20.0):
    """The reply of Publish, by a client without any code of simlink's own but the schema's."""
    with grpc.insecure_channel(f"{LOCAL}:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/Publish",
            request_serializer=pb.PublishRequest.SerializeToString,
            response_deserializer=pb.PublishReply.FromString,
        )
        return call(request, metadata=metadata, timeout=timeout)


def grpcurl_or_skip() -> Path:
    """The grpcurl of the PATH, or one built with Go into the user's cache; skips the test where there is neither."""
    found = shutil.which("grpcurl")
    if found:
        return Path(found)
    program = cache_folder() / f"grpcurl-{GRPCURL.rpartition('@')[2]}" / "grpcurl"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        pytest.skip("grpcurl is not here, and Go to build it neither: apt-get install golang-go")
    with locked(program.parent.with_suffix(".lock")):
        if not program.exists():
            environment = {**os.environ, "GOBIN": str(program.parent), "GOFLAGS": "-mod=mod"}
            done = subprocess.run(
                [go, "install", GRPCURL], env=environment, capture_output=True, text=True, timeout=280, check=False
            )
            if done.returncode:
                pytest.skip(f"grpcurl could not be built: {done.stderr.strip().splitlines()[-1]}")
    return program

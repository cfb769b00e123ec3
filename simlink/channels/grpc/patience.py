"""How long a call may take to say what it wants: gRPC itself waits for ever for a request that is dripped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from simlink.channels.grpc.settings import LINK

__all__ = ["Patience"]


class Patience(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the library has no types
    """Ends calls whose next request is not complete within ``seconds``; only a link has its own deadlines.

    A call that is ended leaves its connection without calls, which is closed like every idle one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], call: Any) -> Any:
        handler = await continuation(call)
        if handler is None or call.method == LINK:
            return handler
        return grpc.stream_stream_rpc_method_handler(
            self._of_many(handler) if handler.request_streaming else self._of_one(handler),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _of_one(self, handler: Any) -> Callable[[Any, Any], Awaitable[None]]:
        # On the wire one request is a stream of one; read as a stream, it can be waited for as long as we like.
        async def serve(_: Any, context: Any) -> None:
            request = await self._next(context)
            if request is grpc.aio.EOF:
                if context.code() in {None, 0, grpc.StatusCode.OK}:
                    context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
                    context.set_details("there is no request in the call")
            elif handler.response_streaming:
                await handler.unary_stream(request, context)
            else:
                reply = await handler.unary_unary(request, context)
                if context.code() in {None, 0, grpc.StatusCode.OK}:
                    await context.write(reply)

        return serve

    def _of_many(self, handler: Any) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def requests(context: Any) -> AsyncIterator[Any]:
            while (request := await self._next(context)) is not grpc.aio.EOF:
                yield request

        async def serve(_: Any, context: Any) -> AsyncIterator[Any]:
            async for reply in handler.stream_stream(requests(context), context):
                yield reply

        return serve

    async def _next(self, context: Any) -> Any:
        try:
            async with asyncio.timeout(self._seconds):
                return await context.read()
        except TimeoutError:
            context.set_code(grpc.StatusCode.DEADLINE_EXCEEDED)
            context.set_details(f"a request was not complete within {self._seconds:g} s")
            return grpc.aio.EOF

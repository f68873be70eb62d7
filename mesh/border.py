"""The border of a server: every RPC passes here on its way in and on its way out.

In: its trace context, and the saga it belongs to, for all that is logged. Out: a `MeshError` as a
`google.rpc.Status`, and anything else that was raised as INTERNAL, whose words tell nothing but the
trace id; the traceback goes to the log.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from opentelemetry import trace
from structlog.contextvars import bind_contextvars

from mesh.errors import MeshError, Retry, to_status
from mesh.step import SAGA_ID, SAGA_STEP
from mesh.telemetry import TRACER, Metadata, mark, server_span
from mesh.typed_grpc import Context, MethodHandler, ServerInterceptor

Behaviour = Callable[..., Any]
"""What grpc calls for one RPC: (request or requests, context)."""

_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""By (request_streaming, response_streaming)."""
_DETAILS = "grpc-status-details-bin"
_log = structlog.stdlib.get_logger()


class Border(ServerInterceptor):
    """Wraps every handler of a server."""

    def __init__(self, tracer_provider: trace.TracerProvider) -> None:
        self._tracer = tracer_provider.get_tracer(TRACER)
        self._streams: set[asyncio.Timeout] = set()
        self._draining = False

    def drain(self) -> None:
        """End the open response streams: their clients resume them elsewhere."""
        self._draining = True
        for stream in self._streams:
            stream.reschedule(0)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler:
        """Called by grpc for each RPC; None stays None, which means UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        wrap = self._stream if handler.response_streaming else self._unary
        kind, make = _KINDS[handler.request_streaming, handler.response_streaming]
        behaviour = wrap(getattr(handler, kind), handler_call_details.method)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _unary(self, answer: Behaviour, method: str) -> Behaviour:
        async def unary(request: Any, context: Context) -> Message:  # noqa: ANN401
            async with self._crossing(method, context):
                response: Message = await answer(request, context)
                return response

        return unary

    def _stream(self, answer: Behaviour, method: str) -> Behaviour:
        async def stream(request: Any, context: Context) -> None:  # noqa: ANN401
            async with self._crossing(method, context), self._until_drain():
                await _send(answer(request, context), context)

        return stream

    @asynccontextmanager
    async def _until_drain(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(0 if self._draining else None) as stream:
                self._streams.add(stream)
                try:
                    yield
                finally:
                    self._streams.discard(stream)
        except TimeoutError:
            if not stream.expired():
                raise
            raise Retry("DRAINING", "the server is shutting down; resume elsewhere") from None

    @asynccontextmanager
    async def _crossing(self, method: str, context: Context) -> AsyncIterator[None]:
        metadata = context.invocation_metadata() or ()
        _bind_saga(metadata)
        with server_span(self._tracer, method, metadata) as span:
            try:
                yield
                mark(span, grpc.StatusCode.OK)
            except MeshError as error:
                mark(span, error.code)
                _log.info("rpc.refused", method=method, code=error.code.name, reason=error.reason)
                await _abort(context, error, domain=_package(method))
            except grpc.aio.AbortError:
                mark(span, context.code())
                raise
            except asyncio.CancelledError:
                mark(span, grpc.StatusCode.CANCELLED)
                raise
            except Exception:  # noqa: BLE001 - whatever is raised becomes an answer
                mark(span, grpc.StatusCode.INTERNAL)
                _log.exception("rpc.failed", method=method)
                await _abort(context, _internal(span), domain=_package(method))


async def _send(responses: Any, context: Context) -> None:  # noqa: ANN401
    if inspect.isasyncgen(responses):
        async with aclosing(responses):
            async for response in responses:
                await context.write(response)
    else:
        await responses  # a coroutine that writes to the context by itself


async def _abort(context: Context, error: MeshError, *, domain: str) -> None:
    status = to_status(error, domain=domain)
    trailing = (*(context.trailing_metadata() or ()), (_DETAILS, status.SerializeToString()))
    await context.abort(error.code, status.message, trailing)


def _internal(span: trace.Span) -> MeshError:
    context = span.get_span_context()
    words = "internal error; the log of the service says more"
    if not context.is_valid:
        return MeshError("INTERNAL", words)
    trace_id = trace.format_trace_id(context.trace_id)
    return MeshError("INTERNAL", f"{words} about {trace_id}", metadata={"trace_id": trace_id})


def _bind_saga(metadata: Metadata) -> None:
    values = dict(metadata)
    saga = {"saga_id": values.get(SAGA_ID), "step": values.get(SAGA_STEP)}
    bind_contextvars(**{key: value for key, value in saga.items() if value is not None})


def _package(method: str) -> str:
    return method.lstrip("/").partition("/")[0].rpartition(".")[0]

"""The border of a server: every RPC passes here on its way in and on its way out.

In: its trace context, and the saga it belongs to, for all that is logged; then the request, read
here and not below, where refusals have no details. Out: a `MeshError` as a
`google.rpc.Status`, and anything else that was raised as INTERNAL, whose words tell nothing but the
trace id; the traceback goes to the log.

A handler is wrapped once, not again for every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from opentelemetry import trace
from structlog.contextvars import bind_contextvars

from mesh.errors import FieldViolation, InvalidRequest, MeshError, Retry, code_of, to_status
from mesh.rpc.headers import Ending
from mesh.rpc.method import Ended, Method, StreamOver
from mesh.rpc.served import Context
from mesh.step import SAGA_ID, SAGA_STEP
from mesh.telemetry import TRACER, mark, start_server_span
from mesh.typed_grpc import MethodHandler

MAX_REQUEST_BYTES = 4 << 20
"""Largest request that any service takes; a step's limit is lower, and checked by its barrier."""

MessageT = TypeVar("MessageT", bound=Message)
Behaviour = Callable[..., Any]
"""What serves one RPC, called with (request or requests, context)."""
Parse = Callable[[bytes], Message]
Read = Callable[[Any], Any]
"""Makes what a handler is given of what was received."""

_KINDS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
"""By (request_streaming, response_streaming)."""
_BOUND = (("saga_id", SAGA_ID), ("step", SAGA_STEP))
"""What the log says of a call to a step, and in which metadata it comes."""
_DETAILS = "grpc-status-details-bin"
_ABOUT_THE_SERVER = "/grpc."
"""Health and reflection, which are answered to the end."""
_log = structlog.stdlib.get_logger()


class Border:
    """Wraps every handler of a server."""

    def __init__(self, tracer_provider: trace.TracerProvider) -> None:
        self._tracer = tracer_provider.get_tracer(TRACER)
        self._waits: set[asyncio.Timeout] = set()
        self._draining = False

    def drain(self) -> None:
        """Refuse new calls and end the open response streams: their clients go elsewhere."""
        self._draining = True
        for wait in self._waits:
            wait.reschedule(0)

    def wrap(self, method: str, handler: MethodHandler) -> Method:
        """How a handler is to be served; `method` is /package.Service/Method."""
        wrap = self._stream if handler.response_streaming else self._unary
        kind = _KINDS[handler.request_streaming, handler.response_streaming]
        parse, read = _divided(handler)
        return Method(
            perform=wrap(getattr(handler, kind), read, method),
            request_streaming=handler.request_streaming,
            response_streaming=handler.response_streaming,
            parse=parse,
            serialize=handler.response_serializer,
        )

    def _unary(self, answer: Behaviour, read: Read, method: str) -> Behaviour:
        async def unary(received: Any, context: Context) -> Message:  # noqa: ANN401
            async with _Crossing(self._tracer, method, context):
                if self._draining and not method.startswith(_ABOUT_THE_SERVER):
                    raise drained()
                response: Message = await answer(read(received), context)
                return response

        return unary

    def _stream(self, answer: Behaviour, read: Read, method: str) -> Behaviour:
        async def stream(received: Any, context: Context) -> None:  # noqa: ANN401
            async with _Crossing(self._tracer, method, context):
                responses: AsyncGenerator[Any, None] | Awaitable[None]
                responses = answer(read(received), context)
                if isinstance(responses, AsyncGenerator):
                    await self._send(responses, context)
                else:
                    await responses  # it writes by itself, and is left to finish

        return stream

    async def _send(self, responses: AsyncGenerator[Any, None], context: Context) -> None:
        """A drain ends the wait for a response, never a write, so what has begun is said."""
        async with aclosing(responses):
            while True:
                async with self._until_drain():
                    response = await anext(responses, None)
                if response is None:
                    return
                await context.write(response)

    @asynccontextmanager
    async def _until_drain(self) -> AsyncIterator[None]:
        if self._draining:
            raise drained()
        try:
            async with asyncio.timeout(None) as wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if not wait.expired():
                raise
            raise drained() from None


class _Crossing:
    """One RPC, from its arrival to its answer. Each is served in a task, hence in a context, of its
    own: what is set for the logs ends with it.
    """

    __slots__ = ("_context", "_method", "_span", "_tracer")

    def __init__(self, tracer: trace.Tracer, method: str, context: Context) -> None:
        self._tracer = tracer
        self._method = method
        self._context = context

    async def __aenter__(self) -> None:
        metadata = dict(self._context.invocation_metadata())
        _bind_saga(metadata)
        self._span = start_server_span(self._tracer, self._method, metadata)

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._answer(error)
        finally:
            self._span.end()

    def _answer(self, error: BaseException | None) -> None:
        """Answer what was raised; what was ended by hand, or by the client, goes on as it is."""
        if error is None:
            mark(self._span, grpc.StatusCode.OK)
        elif isinstance(error, Ended):
            mark(self._span, error.ending.code)
        elif isinstance(error, asyncio.CancelledError | StreamOver):
            mark(self._span, grpc.StatusCode.CANCELLED)
        elif isinstance(error, Exception):
            status = refusal(error, self._method, self._span)
            trailing = (*self._context.trailing_metadata(), (_DETAILS, status.SerializeToString()))
            raise Ended(Ending(code_of(status), status.message, trailing)) from error


def _divided(handler: MethodHandler) -> tuple[Parse | None, Read]:
    """How requests are read on arrival, and how at the border: there, unless they are a stream.

    Of a stream each message is read as it is awaited, and what is wrong with one is raised there.
    """
    parse = handler.request_deserializer
    if parse is None:
        return None, lambda requests: requests
    if handler.request_streaming:
        return partial(parsed, parse), lambda requests: requests
    return None, partial(parsed, parse)


def parsed(parse: Callable[[bytes], MessageT], received: bytes) -> MessageT:
    """The message that was received.

    Raises:
        InvalidRequest: `REQUEST_TOO_LARGE`, over 4 MiB, or `REQUEST_UNREADABLE`.
    """
    if len(received) > MAX_REQUEST_BYTES:
        size = f"is {len(received)} bytes, at most {MAX_REQUEST_BYTES}"
        raise InvalidRequest([FieldViolation("request", size)], reason="REQUEST_TOO_LARGE")
    try:
        return parse(received)
    except DecodeError:
        violation = FieldViolation("request", "its bytes are no message of the method's type")
        raise InvalidRequest([violation], reason="REQUEST_UNREADABLE") from None


def refusal(error: Exception, method: str, span: trace.Span) -> status_pb2.Status:
    """What a call that raised is answered; its span and the log are told."""
    if isinstance(error, MeshError):
        mark(span, error.code)
        _log.info("rpc.refused", method=method, code=error.code.name, reason=error.reason)
    else:
        mark(span, grpc.StatusCode.INTERNAL)
        _log.exception("rpc.failed", method=method, exc_info=error)
        error = _internal(span)
    return to_status(error, domain=_package(method))


def drained() -> Retry:
    """The refusal of a server that drains."""
    return Retry("DRAINING", "the server is shutting down; ask elsewhere, or again")


def _internal(span: trace.Span) -> MeshError:
    context = span.get_span_context()
    words = "internal error; the log of the service says more"
    if not context.is_valid:
        return MeshError("INTERNAL", words)
    trace_id = trace.format_trace_id(context.trace_id)
    return MeshError("INTERNAL", f"{words} about {trace_id}", metadata={"trace_id": trace_id})


def _bind_saga(metadata: Mapping[str, str | bytes]) -> None:
    saga = {name: metadata[key] for name, key in _BOUND if key in metadata}
    if saga:
        bind_contextvars(**saga)


def _package(method: str) -> str:
    return method.lstrip("/").partition("/")[0].rpartition(".")[0]

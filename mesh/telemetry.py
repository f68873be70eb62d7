"""Traces by OpenTelemetry: one span per RPC, continued from `traceparent`, never a payload.

Spans leave over OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set, and are not recorded otherwise. The
other standard variables (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, ...)
apply as everywhere.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from mesh.step import SAGA_ID, SAGA_STEP
from mesh.typed_grpc import UnaryStreamClientInterceptor, UnaryUnaryClientInterceptor

TRACER = "mesh"

_PROPAGATOR = TraceContextTextMapPropagator()
_DIRECTIONS = {"Do": "do", "Compensate": "compensate"}
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_ODD_DIGITS = frozenset("13579bdf")
"""The last digit of a traceparent whose sampled bit is set."""

Metadata = Iterable[tuple[str, str | bytes]]


@asynccontextmanager
async def tracing(service: str) -> AsyncIterator[trace.TracerProvider]:
    """The tracer provider of this process; what it still holds is sent on the way out.

    Without an endpoint no span is recorded, but every call has a trace id, for the logs.
    """
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        yield Unrecorded()
        return
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        await asyncio.to_thread(provider.shutdown)


class Unrecorded(trace.NoOpTracerProvider):
    """Makes spans that nobody records but that belong to a trace: their caller's, or a new one."""

    @override
    def get_tracer(self, *_: object, **__: object) -> trace.Tracer:
        return _UnrecordedTracer()


class _UnrecordedTracer(trace.NoOpTracer):
    @override
    def start_span(
        self, name: str, context: Context | None = None, *_: object, **__: object
    ) -> trace.Span:
        caller = trace.get_current_span(context).get_span_context()
        return trace.NonRecordingSpan(caller if caller.is_valid else _new_trace())


def _new_trace() -> trace.SpanContext:
    return trace.SpanContext(random.getrandbits(128), random.getrandbits(64), is_remote=False)


def start_server_span(
    tracer: trace.Tracer, method: str, metadata: Mapping[str, str | bytes]
) -> trace.Span:
    """Start the span of one RPC that is served; for the rest of this task it is the current one.

    `method` is /package.Service/Method.
    """
    span = _started(tracer, method, metadata)
    attach(trace.set_span_in_context(span))
    return span


@contextmanager
def server_span(tracer: trace.Tracer, method: str, metadata: Metadata) -> Iterator[trace.Span]:
    """The same for a part of a task."""
    span = _started(tracer, method, dict(metadata))
    with trace.use_span(
        span,
        end_on_exit=True,
        record_exception=False,  # its text may hold what must not leave the process
        set_status_on_exception=False,
    ):
        yield span


def _started(tracer: trace.Tracer, method: str, metadata: Mapping[str, str | bytes]) -> trace.Span:
    caller = _PROPAGATOR.extract(metadata, Context())
    span = tracer.start_span(method.lstrip("/"), caller, trace.SpanKind.SERVER)
    if span.is_recording():
        span.set_attributes(_rpc_attributes(method) | _saga_attributes(method, metadata))
    return span


def is_sampled(traceparent: str) -> bool:
    """Whether the caller records this trace; empty means that there is none."""
    return traceparent[54:55] in _ODD_DIGITS


def mark(span: trace.Span, code: grpc.StatusCode) -> None:
    """Write down how the RPC of this span ended."""
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code in _FAULTS:
        span.set_status(trace.StatusCode.ERROR, code.name)


def client_interceptors(tracer_provider: trace.TracerProvider) -> list[Any]:
    """For `grpc.aio.insecure_channel(..., interceptors=...)`: spans, and `traceparent` sent on."""
    return [_TraceUnary(tracer_provider.get_tracer(TRACER)), _TraceStream()]


class _TraceUnary(UnaryUnaryClientInterceptor):
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Message,
    ) -> Any:  # noqa: ANN401 - the call, where grpc-stubs say the response
        method = _text(client_call_details.method)
        with self._tracer.start_as_current_span(
            method.lstrip("/"),
            kind=trace.SpanKind.CLIENT,
            attributes=_rpc_attributes(method),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            call = await continuation(_with_traceparent(client_call_details), request)
            mark(span, await call.code())
            return call


class _TraceStream(UnaryStreamClientInterceptor):
    """A stream lasts as long as somebody watches: it joins the caller's span, without its own."""

    async def intercept_unary_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Message,
    ) -> Any:  # noqa: ANN401 - the call, an awaitable where grpc-stubs say none
        return await continuation(_with_traceparent(client_call_details), request)


def _with_traceparent(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return grpc.aio.ClientCallDetails(
        details.method,
        details.timeout,
        grpc.aio.Metadata(*(details.metadata or ()), *carrier.items()),
        details.credentials,
        details.wait_for_ready,
    )


def _rpc_attributes(method: str) -> dict[str, str]:
    service, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def _saga_attributes(method: str, metadata: Mapping[str, str | bytes]) -> dict[str, str]:
    direction = _DIRECTIONS.get(method.rpartition("/")[2])
    if direction is None or SAGA_ID not in metadata:
        return {}
    return {
        "saga.id": _text(metadata[SAGA_ID]),
        "saga.step": _text(metadata.get(SAGA_STEP, "")),
        "saga.direction": direction,
    }


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

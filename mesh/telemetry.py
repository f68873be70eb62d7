"""Traces by OpenTelemetry: one span per RPC, continued from `traceparent`, never a payload.

Spans leave over OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set, and are not recorded otherwise. The
other standard variables (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, ...)
apply as everywhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

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
        yield TracerProvider(sampler=ALWAYS_OFF)
        return
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        await asyncio.to_thread(provider.shutdown)


@contextmanager
def server_span(tracer: trace.Tracer, method: str, metadata: Metadata) -> Iterator[trace.Span]:
    """The span of one RPC that is served; `method` is /package.Service/Method."""
    values = {key: value for key, value in metadata if isinstance(value, str)}
    with tracer.start_as_current_span(
        method.lstrip("/"),
        context=_PROPAGATOR.extract(values),
        kind=trace.SpanKind.SERVER,
        attributes=_rpc_attributes(method) | _saga_attributes(method, values),
        record_exception=False,  # its text may hold what must not leave the process
        set_status_on_exception=False,
    ) as span:
        yield span


def is_sampled(traceparent: str) -> bool:
    """Whether the caller records this trace; empty means that there is none."""
    return traceparent[54:55] in _ODD_DIGITS


def remote_span(traceparent: str) -> trace.Span:
    """The caller's span, for its ids alone; invalid when there is none."""
    return trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent}, Context()))


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


def _saga_attributes(method: str, values: dict[str, str]) -> dict[str, str]:
    direction = _DIRECTIONS.get(method.rpartition("/")[2])
    if direction is None or SAGA_ID not in values:
        return {}
    return {
        "saga.id": values[SAGA_ID],
        "saga.step": values.get(SAGA_STEP, ""),
        "saga.direction": direction,
    }


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

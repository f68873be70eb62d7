from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from mesh.rpc.served import Context
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.telemetry import client_interceptors, tracing
from protos.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from protos.saga.v1 import saga_pb2, saga_pb2_grpc
from tests.integration.mesh.sample_service import METADATA, Sagas, Step

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer_provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
async def address(tracer_provider: TracerProvider) -> AsyncIterator[str]:
    server = Server(SETTINGS, tracer_provider=tracer_provider)
    server.add_step(Step())
    server.add_service(saga_pb2_grpc.add_SagaServiceServicer_to_server, Sagas())
    await server.start()
    yield f"127.0.0.1:{server.port}"
    await server.stop()


async def do(channel: grpc.aio.Channel, order_id: str) -> None:
    stub = inventory_pb2_grpc.ReserveStockStub(channel)
    request = inventory_pb2.ReserveStockRequest(order_id=order_id)
    await stub.Do(request, metadata=(*METADATA, TRACEPARENT)).code()


async def server_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    """The span of the one RPC served; it ends a moment after the client has the answer."""
    while not (spans := of_kind(exporter, trace.SpanKind.SERVER)):
        await asyncio.sleep(0)
    assert len(spans) == 1
    return spans[0]


def of_kind(exporter: InMemorySpanExporter, kind: trace.SpanKind) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is kind]


async def test_a_step_has_a_span_in_the_trace_of_its_caller(
    address: str, exporter: InMemorySpanExporter
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await do(channel, "")

    span = await server_span(exporter)
    assert span.name == "inventory.v1.ReserveStock/Do"
    assert span.context is not None
    assert span.parent is not None
    assert trace.format_trace_id(span.context.trace_id) == TRACE_ID
    assert trace.format_span_id(span.parent.span_id) == PARENT_ID
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "inventory.v1.ReserveStock",
        "rpc.method": "Do",
        "rpc.grpc.status_code": 0,
        "saga.id": "saga-1",
        "saga.step": "reserve_stock",
        "saga.direction": "do",
    }


@pytest.mark.parametrize(
    ("order_id", "code", "state"),
    [
        ("reject", grpc.StatusCode.FAILED_PRECONDITION, trace.StatusCode.UNSET),
        ("conflict", grpc.StatusCode.ABORTED, trace.StatusCode.UNSET),
        ("fail", grpc.StatusCode.INTERNAL, trace.StatusCode.ERROR),
    ],
)
async def test_a_span_says_how_the_call_ended_and_never_with_what(
    address: str,
    exporter: InMemorySpanExporter,
    order_id: str,
    code: grpc.StatusCode,
    state: trace.StatusCode,
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await do(channel, order_id)

    span = await server_span(exporter)
    assert (span.attributes or {})["rpc.grpc.status_code"] == code.value[0]
    assert span.status.status_code is state
    assert "4242" not in span.to_json()
    assert span.events == ()


async def test_a_plain_client_and_its_server_share_a_trace(
    address: str, exporter: InMemorySpanExporter, tracer_provider: TracerProvider
) -> None:
    interceptors = client_interceptors(tracer_provider)
    tracer = tracer_provider.get_tracer("test")
    async with grpc.aio.insecure_channel(address, interceptors=interceptors) as channel:
        stub = saga_pb2_grpc.SagaServiceStub(channel)
        with tracer.start_as_current_span("outside") as outside:
            await stub.GetSaga(saga_pb2.GetSagaRequest()).code()

    served = await server_span(exporter)
    (called,) = of_kind(exporter, trace.SpanKind.CLIENT)
    assert called.context is not None
    assert called.parent is not None
    assert served.parent is not None
    assert served.parent.span_id == called.context.span_id
    assert called.parent.span_id == outside.get_span_context().span_id
    assert called.name == "saga.v1.SagaService/GetSaga"
    assert (called.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


async def test_a_watched_stream_joins_the_trace_of_its_caller(
    address: str, exporter: InMemorySpanExporter, tracer_provider: TracerProvider
) -> None:
    interceptors = client_interceptors(tracer_provider)
    tracer = tracer_provider.get_tracer("test")
    async with grpc.aio.insecure_channel(address, interceptors=interceptors) as channel:
        stub = saga_pb2_grpc.SagaServiceStub(channel)
        with tracer.start_as_current_span("outside") as outside:
            events = [event async for event in stub.WatchSaga(saga_pb2.WatchSagaRequest())]

    assert len(events) == 1
    served = await server_span(exporter)
    assert served.parent is not None
    assert served.parent.span_id == outside.get_span_context().span_id


async def test_what_is_logged_during_a_call_carries_its_saga(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with capture_logs(processors=[merge_contextvars]) as logs:
            await do(channel, "reject")

    (line,) = [line for line in logs if line["event"] == "rpc.refused"]
    assert (line["saga_id"], line["step"]) == ("saga-1", "reserve_stock")
    assert (line["code"], line["reason"]) == ("FAILED_PRECONDITION", "OUT_OF_STOCK")


@pytest.mark.parametrize(("caller", "trace_id"), [((TRACEPARENT,), TRACE_ID), ((), "[0-9a-f]{32}")])
async def test_a_call_that_nobody_records_has_the_trace_id_of_its_caller_or_a_new_one(
    caller: tuple[tuple[str, str], ...], trace_id: str
) -> None:
    server = Server(SETTINGS)
    server.add_step(Step())
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = inventory_pb2_grpc.ReserveStockStub(channel)
        request = inventory_pb2.ReserveStockRequest(order_id="fail")
        words = await stub.Do(request, metadata=(*METADATA, *caller)).details()
    await server.stop()
    assert re.fullmatch(f"internal error; .* about {trace_id}", words)


EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


async def collector(
    received: list[trace_service_pb2.ExportTraceServiceRequest],
) -> tuple[grpc.aio.Server, int]:
    """An OTLP receiver and its port."""

    async def export(
        request: trace_service_pb2.ExportTraceServiceRequest, _: Context
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        received.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(EXPORT, {"Export": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def test_spans_leave_over_otlp_before_the_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[trace_service_pb2.ExportTraceServiceRequest] = []
    server, port = await collector(received)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")

    async with tracing("inventory") as tracer_provider:
        with tracer_provider.get_tracer("test").start_as_current_span("a span"):
            pass

    await server.stop(None)
    (resource_spans,) = received[0].resource_spans
    names = {item.key: item.value.string_value for item in resource_spans.resource.attributes}
    assert names["service.name"] == "inventory"
    assert [span.name for span in resource_spans.scope_spans[0].spans] == ["a span"]


async def test_without_an_endpoint_no_span_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)

    async with tracing("inventory") as tracer_provider:
        with tracer_provider.get_tracer("test").start_as_current_span("a span") as span:
            assert not span.is_recording()

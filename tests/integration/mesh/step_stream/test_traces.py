"""Each call of a stream is told of by itself: its span, its saga in the log, its trace id."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from mesh.server import Server
from mesh.settings import ServiceSettings
from tests.integration.mesh.step_stream.client import Stream, call
from tests.integration.mesh.step_stream.service import Step

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
SAMPLED, UNSAMPLED = (f"00-{TRACE_ID}-{PARENT_ID}-{flags}" for flags in ("01", "00"))


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def server(step: Step, exporter: InMemorySpanExporter) -> AsyncIterator[Server]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)
    server = Server(settings, tracer_provider=provider)
    server.add_step(step)
    await server.start()
    yield server
    await server.stop()


async def test_a_sampled_call_has_the_span_that_it_has_by_itself(
    stream: Stream, exporter: InMemorySpanExporter
) -> None:
    await stream.ask(call(1, traceparent=SAMPLED), call(2, "reject", traceparent=SAMPLED))

    done, rejected = exporter.get_finished_spans()
    assert done.name == "inventory.v1.ReserveStock/Do"
    assert done.kind is trace.SpanKind.SERVER
    assert done.context is not None
    assert done.parent is not None
    assert trace.format_trace_id(done.context.trace_id) == TRACE_ID
    assert trace.format_span_id(done.parent.span_id) == PARENT_ID
    assert dict(done.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "inventory.v1.ReserveStock",
        "rpc.method": "Do",
        "rpc.grpc.status_code": 0,
        "saga.id": "saga-1",
        "saga.step": "reserve_stock",
        "saga.direction": "do",
    }
    assert (rejected.attributes or {})["rpc.grpc.status_code"] == 9


@pytest.mark.parametrize("traceparent", ["", UNSAMPLED, "nonsense"])
async def test_a_call_that_is_not_sampled_has_no_span(
    traceparent: str, stream: Stream, exporter: InMemorySpanExporter
) -> None:
    await stream.ask(call(1, traceparent=traceparent), call(2, "reject", traceparent=traceparent))

    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED])
async def test_an_unexpected_exception_tells_the_log_and_not_the_caller(
    traceparent: str, stream: Stream
) -> None:
    with capture_logs(processors=[merge_contextvars]) as logs:
        (result,) = await stream.ask(call(1, "fail", traceparent=traceparent))

    assert TRACE_ID in result.status.message
    assert "4242" not in str(result)
    (line,) = [line for line in logs if line["event"] == "rpc.failed"]
    assert line["method"] == "/inventory.v1.ReserveStock/Do"
    assert (line["saga_id"], line["step"]) == ("saga-1", "reserve_stock")
    assert line["exc_info"]


async def test_a_refusal_is_logged_with_its_saga(stream: Stream) -> None:
    with capture_logs(processors=[merge_contextvars]) as logs:
        await stream.ask(call(1, "reject", saga_id="saga-7"), call(2, "conflict", saga_id="saga-8"))

    refused = [(line["saga_id"], line["reason"]) for line in logs if line["event"] == "rpc.refused"]
    assert refused == [("saga-7", "OUT_OF_STOCK"), ("saga-8", "STEP_BUSY")]


async def test_no_call_is_in_the_trace_of_its_stream(step: Step, channel: grpc.aio.Channel) -> None:
    await Stream(channel).ask(call())

    assert step.trace_ids == [trace.INVALID_TRACE_ID]

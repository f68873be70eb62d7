"""One trace per saga: what the spans of its attempts say."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id
from opentelemetry.trace import StatusCode as SpanStatus

from coordinator.participants.base import Done, Failed
from tests.integration.participants.participant import (
    COMPENSATE,
    DO,
    SERVICE,
    Context,
    Running,
    running,
    wrapped,
)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest_asyncio.fixture(params=["alone", "streamed"])
async def payment(
    request: pytest.FixtureRequest, exporter: InMemorySpanExporter
) -> AsyncIterator[Running]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with running(provider, streams=request.param == "streamed") as payment:
        yield payment


async def test_an_attempt_is_a_client_span_in_the_trace_of_its_saga(
    payment: Running, exporter: InMemorySpanExporter
) -> None:
    answer = await payment.ask(replace(DO, traceparent=SAMPLED, attempt=3))
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == (f"{SERVICE}/Do", SpanKind.CLIENT)
    assert span.parent is not None
    assert format_trace_id(span.context.trace_id) == TRACE
    assert format_span_id(span.parent.span_id) == PARENT
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Do",
        "rpc.grpc.status_code": 0,
        "saga.id": "saga-1",
        "saga.step": "charge_payment",
        "saga.attempt": 3,
        "saga.direction": "do",
    }
    assert isinstance(answer, Done)
    assert answer.span_id == format_span_id(span.context.span_id)
    sent = payment.participant.seen[0].metadata["traceparent"]
    assert sent == f"00-{TRACE}-{answer.span_id}-01"


async def test_a_compensate_links_to_the_do_that_it_undoes(
    payment: Running, exporter: InMemorySpanExporter
) -> None:
    done = await payment.ask(replace(DO, traceparent=SAMPLED))
    await payment.ask(replace(COMPENSATE, traceparent=SAMPLED, link_span_id=done.span_id))
    do, undo = exporter.get_finished_spans()
    assert undo.name == f"{SERVICE}/Compensate"
    (link,) = undo.links
    assert (link.context.trace_id, link.context.span_id) == (
        do.context.trace_id,
        do.context.span_id,
    )


async def test_a_failed_attempt_says_its_code_and_reason(
    payment: Running, exporter: InMemorySpanExporter
) -> None:
    async def behave(_request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    payment.participant.behave = behave
    answer = await payment.ask(replace(DO, traceparent=SAMPLED))
    (span,) = exporter.get_finished_spans()
    assert isinstance(answer, Failed)
    assert answer.span_id == format_span_id(span.context.span_id)
    assert span.status.status_code is SpanStatus.ERROR
    assert (span.attributes or {})["rpc.grpc.status_code"] == 14
    assert (span.attributes or {})["error.type"] == "UNAVAILABLE"


async def test_an_unsampled_saga_stays_unsampled_at_its_participants(
    payment: Running, exporter: InMemorySpanExporter
) -> None:
    answer = await payment.ask(replace(DO, traceparent=UNSAMPLED))
    assert answer.span_id == ""
    assert exporter.get_finished_spans() == ()
    sent = str(payment.participant.seen[0].metadata["traceparent"])
    assert sent.startswith(f"00-{TRACE}-")
    assert sent.endswith("-00")


async def test_a_saga_without_a_trace_gets_no_span_of_its_own(
    payment: Running, exporter: InMemorySpanExporter
) -> None:
    assert await payment.ask(DO) == Done(wrapped(b"answer to request"))
    assert exporter.get_finished_spans() == ()

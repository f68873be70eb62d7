from __future__ import annotations

import pytest

from mesh.telemetry import tracing


async def test_without_an_endpoint_calls_have_a_trace_id_and_no_span_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    async with tracing("order") as tracer_provider:
        span = tracer_provider.get_tracer("test").start_span("a call")
        assert span.get_span_context().is_valid
        assert not span.is_recording()

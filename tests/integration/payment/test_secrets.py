"""No card token leaves the call to the provider: it is in no log, span, error or answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import grpc.aio
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mesh.logs import configure_logging
from tests.integration.payment.till import KEY, SDK_WARNS, Sandbox, Till, open_till

pytestmark = SDK_WARNS

SECRET = "pm_secret_token_of_a_customer"
CARD_NUMBER = "4242424242424242"
TOKENS = [
    "pm_card_visa",
    "pm_card_chargeDeclined",
    "pm_card_authenticationRequired",
    "pm_card_processing",
    SECRET,
    f"pm_{CARD_NUMBER}",
    CARD_NUMBER,
]


@pytest.fixture
def logs(capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """All that this process logs, at debug."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging(level="debug", log_format="json", service="payment")
    yield capfd
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced_till(
    payment_dsn: str, sandbox: Sandbox, spans: InMemorySpanExporter
) -> AsyncIterator[Till]:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    async with open_till(payment_dsn, sandbox.url, tracer_provider) as till:
        yield till
    tracer_provider.shutdown()


@pytest.mark.parametrize("token", TOKENS)
async def test_a_card_token_is_in_no_log_span_or_error(
    traced_till: Till,
    sandbox: Sandbox,
    spans: InMemorySpanExporter,
    logs: pytest.CaptureFixture[str],
    token: str,
) -> None:
    await sandbox.faults({"kind": "error_before", "operation": "confirm"})
    told = [await answer_of(traced_till, token) for _ in range(3)]
    told += [span.to_json() for span in spans.get_finished_spans()]
    told += logs.readouterr()
    everything = "\n".join(told)
    assert "payment.v1.ChargePayment/Do" in everything
    for secret in (token, CARD_NUMBER, KEY):
        assert secret not in everything


async def answer_of(till: Till, token: str) -> str:
    try:
        return str(await till.do(token))
    except grpc.aio.AioRpcError as error:
        return f"{error} {error.trailing_metadata()}"

"""The payment sandbox as a process, and the payment service in this one, on real databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import httpx
import pytest
from google.type import money_pb2
from opentelemetry import trace
from uuid_utils import uuid7

from local.processes import Process
from local.until import until
from mesh.barrier.staged import StagedBarrier
from mesh.postgres import create_engine
from mesh.server import Server
from payment_svc.checked import CheckedCharge
from payment_svc.service import PaymentService
from payment_svc.settings import Settings
from payment_svc.steps import ChargePayment
from payment_svc.store import Payments
from payment_svc.stripe_provider import StripeProvider
from protos.payment.v1 import payment_pb2, payment_pb2_grpc

AMOUNT = 1999
EUROS = money_pb2.Money(currency_code="EUR", units=19, nanos=990_000_000)
DAY = 24 * 3600
VISA = "pm_card_visa"
KEY = "sk_test_sandbox"
SDK_WARNS = pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning")
"""The SDK's httpx client sends forms in a way that httpx is going to drop."""


@dataclass(frozen=True)
class Sandbox:
    """The provider: its ledger, and the switches that make it difficult."""

    process: Process
    url: str
    admin: httpx.AsyncClient

    async def payments(self, saga_id: str) -> list[dict[str, Any]]:
        """What the ledger holds of a saga, per PaymentIntent."""
        return await self._get("ledger", "payments", saga_id=saga_id)

    async def payment(self, saga_id: str) -> dict[str, Any]:
        """The only PaymentIntent that the ledger holds of a saga."""
        (line,) = await self.payments(saga_id)
        return line

    async def kept(self, saga_id: str) -> int:
        """Captured minus refunded."""
        payments = await self.payments(saga_id)
        return sum(line["captured"] - line["refunded"] for line in payments)

    async def faults(self, *faults: Mapping[str, object], **switches: int) -> None:
        """Set all switches; what is not named goes back to its default."""
        body = {"faults": [{"times": 1, **fault} for fault in faults], **switches}
        (await self.admin.put("/_sandbox/switches", json=body)).raise_for_status()

    async def forward(self, seconds: int) -> None:
        """Put the provider's clock forward."""
        (await self.admin.post("/_sandbox/clock", json={"seconds": seconds})).raise_for_status()

    async def until_in_progress(self, operation: str) -> None:
        """Wait until such a request has arrived and waits for its latency."""

        async def arrived() -> bool:
            requests = await self._get("in-progress", "in_progress")
            return any(request["operation"] == operation for request in requests)

        assert await until(arrived, seconds=10)

    async def _get(self, what: str, name: str, **params: str) -> list[dict[str, Any]]:
        answer = await self.admin.get(f"/_sandbox/{what}", params=params)
        found: list[dict[str, Any]] = answer.raise_for_status().json()[name]
        return found


@dataclass(frozen=True, kw_only=True)
class Till:
    """One instance of the service, called as the coordinator calls it."""

    payments: payment_pb2_grpc.PaymentServiceStub
    step: payment_pb2_grpc.ChargePaymentStub
    saga_id: str = field(default_factory=lambda: f"saga-{uuid7()}")

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        return (("saga-id", self.saga_id), ("saga-step", "charge_payment"))

    def request(self, token: str) -> payment_pb2.ChargePaymentRequest:
        """What Do is sent; the order has the saga's id."""
        return payment_pb2.ChargePaymentRequest(
            order_id=self.saga_id, amount=EUROS, payment_method=token
        )

    async def do(self, token: str = VISA) -> payment_pb2.ChargePaymentResponse:
        """One attempt of Do."""
        answer: payment_pb2.ChargePaymentResponse = await self.step.Do(
            self.request(token), metadata=self.metadata
        )
        return answer

    async def done(self, token: str = VISA) -> None:
        """Do, asked again while its outcome is unknown; fails after 10 attempts."""
        await _repeated(lambda: self.do(token))

    async def compensate(self, response: payment_pb2.ChargePaymentResponse | None = None) -> None:
        """One attempt of Compensate."""
        compensation = payment_pb2.ChargePaymentCompensation(
            request=self.request(VISA), response=response
        )
        await self.step.Compensate(compensation, metadata=self.metadata)

    async def compensated(self) -> None:
        """Compensate, asked again while its outcome is unknown; fails after 10 attempts."""
        await _repeated(self.compensate)

    async def payment(self) -> payment_pb2.Payment:
        """The payment as readers see it."""
        request = payment_pb2.GetPaymentRequest(order_id=self.saga_id)
        answer: payment_pb2.GetPaymentResponse = await self.payments.GetPayment(request)
        return answer.payment

    async def state(self) -> str:
        """The payment's state by its name in the contract, without the prefix."""
        state = (await self.payment()).state
        return payment_pb2.PaymentState.Name(state).removeprefix("PAYMENT_STATE_")


@asynccontextmanager
async def open_till(
    dsn: str, api_base: str, tracer_provider: trace.TracerProvider | None = None
) -> AsyncIterator[Till]:
    """Serve on a migrated database."""
    tracers = tracer_provider or trace.NoOpTracerProvider()
    settings = Settings(
        postgres_dsn=dsn, grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0
    )
    engine = create_engine(dsn)
    payments = Payments(engine)
    async with StripeProvider(api_key=KEY, api_base=api_base, tracer_provider=tracers) as provider:
        step = ChargePayment(provider, payments, new_id=lambda: str(uuid7()))
        server = Server(settings, tracer_provider=tracers)
        server.add_service(
            payment_pb2_grpc.add_PaymentServiceServicer_to_server, PaymentService(payments)
        )
        server.add_step(CheckedCharge(StagedBarrier(engine).guard(step)))
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Till(
                payments=payment_pb2_grpc.PaymentServiceStub(channel),
                step=payment_pb2_grpc.ChargePaymentStub(channel),
            )
        await server.stop()
    await engine.dispose()


async def _repeated(attempt: Callable[[], Awaitable[object]]) -> None:
    for _ in range(10):
        try:
            await attempt()
        except grpc.aio.AioRpcError as error:
            if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}:
                raise
        else:
            return
    raise AssertionError("no outcome after 10 attempts")

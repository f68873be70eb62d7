"""A payment service that kills itself (SIGKILL) at the n-th moment of one call.

Moments are after every transaction of its database and after every call to the provider; at the
chosen one the process is gone, as by `kill -9`. Between two moments nothing happens that lasts, so
these are all the places where it matters.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from opentelemetry import trace
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils import uuid7

from mesh.barrier.staged import StagedBarrier
from mesh.errors import MeshError
from mesh.money import Money
from mesh.postgres import create_engine
from mesh.step import StepCall
from payment_svc.provider import Intent, Refund
from payment_svc.steps import ChargePayment
from payment_svc.store import Payments
from payment_svc.stripe_provider import StripeProvider
from protos.payment.v1 import payment_pb2
from tests.moments import when_given_back

ANSWERED = 0
"""Exit code of a call that was answered, whatever the answer was."""

AnswerT = TypeVar("AnswerT")
Tick = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One Do, or one Compensate, in one process."""

    dsn: str
    api_base: str
    saga_id: str
    request: bytes
    """The serialised ChargePaymentRequest."""
    compensate: bool
    kill_at: int


class TickingProvider:
    """A provider that ticks after every call, whatever it answers."""

    def __init__(self, provider: StripeProvider, tick: Tick) -> None:
        self._provider = provider
        self._tick = tick

    async def create(self, amount: Money, metadata: Mapping[str, str], key: str) -> Intent:
        return await self._ticking(self._provider.create(amount, metadata, key))

    async def confirm(self, intent_id: str, payment_method: str, key: str) -> Intent:
        return await self._ticking(self._provider.confirm(intent_id, payment_method, key))

    async def retrieve(self, intent_id: str) -> Intent:
        return await self._ticking(self._provider.retrieve(intent_id))

    async def cancel(self, intent_id: str) -> Intent:
        return await self._ticking(self._provider.cancel(intent_id))

    async def refunds(self, intent_id: str) -> list[Refund]:
        return await self._ticking(self._provider.refunds(intent_id))

    async def refund(self, intent_id: str, key: str) -> Refund:
        return await self._ticking(self._provider.refund(intent_id, key))

    async def _ticking(self, call: Awaitable[AnswerT]) -> AnswerT:
        try:
            return await call
        finally:
            self._tick()


def run(call: Run) -> None:
    """The body of the process; exits with ANSWERED, or not at all."""
    asyncio.run(_run(call))


async def _run(run: Run) -> None:
    moments = itertools.count(1)

    def tick() -> None:
        if next(moments) == run.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = create_engine(run.dsn)
    async with engine.connect() as connection:  # what a new connection asks is of no interest
        await connection.execute(text("SELECT 1"))
    event.listen(engine.sync_engine, "checkin", lambda *_: tick())
    when_given_back(tick)
    await _answer(run, engine, tick)
    await engine.dispose()


async def _answer(run: Run, engine: AsyncEngine, tick: Tick) -> None:
    request = payment_pb2.ChargePaymentRequest.FromString(run.request)
    call = StepCall(saga_id=run.saga_id, step="charge_payment")
    async with StripeProvider(
        api_key="sk_test_sandbox",
        api_base=run.api_base,
        tracer_provider=trace.NoOpTracerProvider(),
    ) as provider:
        step = ChargePayment(
            TickingProvider(provider, tick), Payments(engine), new_id=lambda: str(uuid7())
        )
        guarded = StagedBarrier(engine).guard(step)
        try:
            if run.compensate:
                undo = payment_pb2.ChargePaymentCompensation(request=request)
                await guarded.compensate(call, undo)
            else:
                await guarded.do(call, request)
        except MeshError:
            return

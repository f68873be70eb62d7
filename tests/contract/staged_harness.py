"""The staged barrier for the suite: each effect is a charge in the ledger of a provider in memory.

The provider behaves as payment providers do: a charge is created, then confirmed; the same
idempotency key gives the same charge; what is cancelled can no longer be confirmed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.postgres_effects import PostgresEffects
from mesh.barrier.staged import StagedBarrier, StagedStep, StageRecord, Superseded
from mesh.barrier.tables import barrier, create_barrier
from mesh.clock import Clock, wall_clock_ms
from mesh.effects import Effects
from mesh.errors import Rejected
from mesh.step import GuardedStep, StepCall
from protos.payment.v1 import payment_pb2
from tests.contract.barrier_harness import BarrierHarness, Pause


@dataclass
class Charge:
    charge_id: str
    saga_id: str
    state: str = "created"


class Provider(Protocol):
    """What the step needs of a provider. Every call may be repeated."""

    async def create(self, saga_id: str, key: str) -> str:
        """A charge that nobody has confirmed; the same key gives the same charge."""
        ...

    async def confirm(self, charge_id: str) -> bool:
        """True when it is charged; False when it is refused or was cancelled."""
        ...

    async def undo(self, charge_id: str) -> None:
        """Cancel it, or refund it when it is charged."""
        ...


@dataclass
class MemoryProvider:
    charges: dict[str, Charge] = field(default_factory=dict)
    rejecting: bool = False
    _keys: dict[str, str] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def create(self, saga_id: str, key: str) -> str:
        if key not in self._keys:
            charge = Charge(f"charge-{next(self._numbers)}", saga_id)
            self._keys[key] = charge.charge_id
            self.charges[charge.charge_id] = charge
        return self._keys[key]

    async def confirm(self, charge_id: str) -> bool:
        charge = self.charges[charge_id]
        if charge.state == "created" and not self.rejecting:
            charge.state = "charged"
        return charge.state == "charged"

    async def undo(self, charge_id: str) -> None:
        charge = self.charges[charge_id]
        charge.state = "refunded" if charge.state == "charged" else "cancelled"


Request = payment_pb2.ChargePaymentRequest
Response = payment_pb2.ChargePaymentResponse


class ChargePayment(StagedStep[Request, Response]):
    service = "payment.v1.ChargePayment"

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.pause: Pause | None = None

    async def do(self, call: StepCall, request: Request, record: StageRecord) -> Response:
        if "charge" not in record.note:
            await self._create(call, record)
        charge_id = str(record.note["charge"])
        record.refuse_expired()
        if await self._provider.confirm(charge_id):
            return Response(provider_reference=charge_id)
        await self._provider.undo(charge_id)
        raise Rejected("OUT_OF_STOCK", "declined", metadata={"charge": charge_id})

    async def _create(self, call: StepCall, record: StageRecord) -> None:
        charge_id = await self._provider.create(call.saga_id, key=call.key)
        if self.pause is not None:
            await self.pause.pass_by()
        try:
            await record.advance({"charge": charge_id})
        except Superseded:
            await self._provider.undo(charge_id)
            raise

    async def compensate(self, call: StepCall, request: Request, record: StageRecord) -> None:
        if "charge" in record.note:
            await self._provider.undo(str(record.note["charge"]))


class StagedHarness(BarrierHarness):
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._provider = MemoryProvider()
        self._step = ChargePayment(self._provider)

    async def prepare(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(create_barrier)

    def guarded(self, clock: Clock | None = None) -> GuardedStep:
        return StagedBarrier(self._engine, clock=clock or wall_clock_ms).guard(self._step)

    def effects(self) -> Effects:
        return PostgresEffects(self._engine)

    def request(self, variant: int = 0) -> Message:
        return Request(order_id=f"order-{variant}")

    def large_request(self) -> Message:
        return Request(order_id="o" * (1 << 20))

    async def make_it_reject(self) -> None:
        self._provider.rejecting = True

    async def make_it_accept(self) -> None:
        self._provider.rejecting = False

    async def effects_held(self, saga_id: str) -> int:
        charges = self._provider.charges.values()
        return sum(c.saga_id == saga_id and c.state == "charged" for c in charges)

    async def forget(self, saga_id: str) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(delete(barrier).where(barrier.c.saga_id == saga_id))

    def pause(self) -> Pause:
        self._step.pause = Pause()
        return self._step.pause

"""A participant on a real barrier, called over gRPC by a real engine, and a reconciler of both."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from typing import Self

import grpc
from msgspec.structs import replace
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from coordinator.core.model import Definition, FailureKind, SagaState, Step
from coordinator.participants.effects import GrpcEffects
from coordinator.participants.grpc import GrpcParticipants
from coordinator.reconciliation.base import Finding, Orphan, Summary
from coordinator.reconciliation.reconciler import Books, Reconciler
from mesh.barrier.mongo import Database
from mesh.barrier.mongo_operations import BARRIER
from mesh.barrier.tables import barrier
from mesh.clock import wall_clock_ms
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.step import SAGA_ID, SAGA_STEP
from tests.contract.barrier_harness import BarrierHarness
from tests.integration.participants.participant import contract
from tests.unit.engine.world import World, failed

STEP, LAST = "the_step", "the_last"
LAST_SERVICE = "test.v1.Last"
SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)


class Today(World):
    """Participants go by the wall clock, and so does the store here."""

    @override
    def now_ms(self) -> int:
        return wall_clock_ms()


class Shop(ABC):
    """One participant, called `shop`; what follows its step is always refused by somebody else."""

    def __init__(self, harness: BarrierHarness) -> None:
        self.harness = harness
        step = harness.guarded()
        self.service = step.types.service.full_name
        self.server = Server(SETTINGS)
        self.server.add_step(step)
        self.server.add_effects(harness.effects())
        self.world = Today()

    async def __aenter__(self) -> Self:
        await self.server.start()
        targets = {"shop": f"127.0.0.1:{self.server.port}"}
        self.participants = GrpcParticipants(targets)
        self.participants.route([contract("shop", self.service)])
        self.coordinator = await self.world.coordinator(max_sagas=1_000)
        self._passing_on = asyncio.create_task(self._pass_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._passing_on.cancel()
        with suppress(asyncio.CancelledError):
            await self._passing_on
        await self.world.close()
        await self.participants.close()
        await self.server.stop()

    async def _pass_on(self) -> None:
        while True:
            sent = await self.coordinator.participants.next()
            if sent.attempt.service == LAST_SERVICE:
                sent.answer(failed(FailureKind.REJECTED))
            else:
                self.participants.call(sent.attempt, sent.answered)

    @abstractmethod
    async def rewind(self, saga_id: str) -> None:
        """Make the record of a saga's step DONE, as an older backup would."""

    # --- sagas ----------------------------------------------------------------

    def _definition(self, *services: str) -> Definition:
        request = self.harness.request().SerializeToString()
        steps = zip((STEP, LAST), services, strict=False)
        return Definition(
            name="-".join(services),
            hash="-".join(services),
            steps=tuple(
                Step(name=name, service=service, build=partial(_same, request))
                for name, service in steps
            ),
        )

    async def completed(self, saga_id: str) -> None:
        story = self._definition(self.service)
        await self.world.start(self.coordinator, saga_id=saga_id, story=story)
        await self.world.until(SagaState.COMPLETED, saga_id)

    async def compensated(self, saga_id: str) -> None:
        story = self._definition(self.service, LAST_SERVICE)
        await self.world.start(self.coordinator, saga_id=saga_id, story=story)
        await self.world.until(SagaState.COMPENSATED, saga_id)

    async def rejected(self, saga_id: str) -> None:
        await self.harness.make_it_reject()
        story = replace(self._definition(self.service), hash="rejected")
        await self.world.start(self.coordinator, saga_id=saga_id, story=story)
        await self.world.until(SagaState.COMPENSATED, saga_id)
        await self.harness.make_it_accept()

    async def do_by_hand(self, saga_id: str, step: str = STEP) -> None:
        """Call Do as somebody with grpcurl would."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}") as channel:
            call = channel.unary_unary(f"/{self.service}/Do", None, None)
            metadata = ((SAGA_ID, saga_id), (SAGA_STEP, step))
            await call(self.harness.request().SerializeToString(), metadata=metadata)

    # --- the comparison -------------------------------------------------------

    async def findings(self) -> list[Finding]:
        books = Books(
            effects=GrpcEffects(self.participants.channels),
            journal=self.world.reader,
            definitions=self.world.definitions,
            whose=lambda service: "shop",
        )
        reconciler = Reconciler(books, now_ms=self.world.now_ms, window_ms=3_600_000)
        return [finding async for finding in reconciler.run(["shop"])]

    async def orphans(self) -> list[str]:
        """Each orphan in words, by saga and step; fails when somebody was not compared."""
        *orphans, summary = await self.findings()
        assert isinstance(summary, Summary)
        assert summary.unreachable == {}
        return sorted(
            f"{it.key.saga_id} {it.key.step} {it.kind.value}"
            for it in orphans
            if isinstance(it, Orphan)
        )


def _same(request: bytes, *_: object) -> bytes:
    return request


class PostgresShop(Shop):
    def __init__(self, harness: BarrierHarness, engine: AsyncEngine) -> None:
        super().__init__(harness)
        self._engine = engine

    @override
    async def rewind(self, saga_id: str) -> None:
        async with self._engine.begin() as tx:
            mine = barrier.c.saga_id == saga_id
            await tx.execute(update(barrier).where(mine).values(state="DONE"))


class MongoShop(Shop):
    def __init__(self, harness: BarrierHarness, database: Database) -> None:
        super().__init__(harness)
        self._records = database[BARRIER]

    @override
    async def rewind(self, saga_id: str) -> None:
        change = {"$set": {"state": "DONE"}}
        await self._records.update_one({"_id": f"{saga_id}:{STEP}"}, change)

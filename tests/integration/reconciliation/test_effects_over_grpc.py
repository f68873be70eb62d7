"""What the coordinator makes of what participants tell, be it nonsense."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from coordinator.participants.effects import PAGE, GrpcEffects
from coordinator.reconciliation.base import EffectsUnavailable
from mesh.barrier.postgres_effects import PostgresEffects
from mesh.barrier.tables import create_barrier
from mesh.effect_service import MAX_KEYS
from mesh.effects import EffectKey, EffectState
from mesh.rpc.served import Context
from mesh.server import Server
from mesh.settings import ServiceSettings
from protos.mesh.v1 import mesh_pb2 as pb
from protos.mesh.v1 import mesh_pb2_grpc

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)
HELD = pb.Effect(saga_id="a", step="b", state=pb.EFFECT_STATE_HELD)


class Told(mesh_pb2_grpc.EffectServiceServicer):
    """Always gives the same answer."""

    def __init__(self, page: pb.ListEffectsResponse) -> None:
        self._page = page

    @override
    async def ListEffects(
        self, request: pb.ListEffectsRequest, context: Context
    ) -> pb.ListEffectsResponse:
        return self._page


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[GrpcEffects]:
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield GrpcEffects({"shop": channel})
    await server.stop()


async def refusal(server: Server) -> str:
    async with asking(server) as effects:
        with pytest.raises(EffectsUnavailable) as refused:
            async for _ in effects.held("shop", 0):
                pass
    return str(refused.value)


@pytest.mark.parametrize(
    "nonsense",
    [
        pb.Effect(saga_id="a b", step="c", state=pb.EFFECT_STATE_HELD),
        pb.Effect(saga_id="a", step="", state=pb.EFFECT_STATE_HELD),
        pb.Effect(saga_id="a", step="b"),
    ],
)
async def test_a_record_that_cannot_be_is_the_participants_fault(nonsense: pb.Effect) -> None:
    server = Server(SETTINGS)
    told = Told(pb.ListEffectsResponse(effects=[HELD, nonsense]))
    server.add_service(mesh_pb2_grpc.add_EffectServiceServicer_to_server, told)

    assert await refusal(server) == "shop: it told a record that cannot be"


async def test_pages_that_lead_nowhere_are_left() -> None:
    server = Server(SETTINGS)
    told = Told(pb.ListEffectsResponse(effects=[HELD], next_page_token="again"))
    server.add_service(mesh_pb2_grpc.add_EffectServiceServicer_to_server, told)

    assert await refusal(server) == "shop: its pages do not lead on"


async def test_a_participant_without_the_service_is_told_apart() -> None:
    assert await refusal(Server(SETTINGS)) == "shop: it serves no mesh.v1.EffectService"


async def test_many_records_are_read_by_the_primary_key(engine: AsyncEngine) -> None:
    count = 2 * PAGE + 1
    await plant(engine, count)
    server = Server(SETTINGS)
    server.add_effects(PostgresEffects(engine))
    async with asking(server) as effects:
        pages = [page async for page in effects.held("shop", 0)]
        keys = [EffectKey(f"saga-{number}", "the_step") for number in range(MAX_KEYS + 2)]
        found = await effects.find("shop", keys)

    assert [len(page) for page in pages] == [PAGE, PAGE, 1]
    assert {effect.key for page in pages for effect in page} == {
        EffectKey(f"saga-{number}", "the_step") for number in range(1, count + 1)
    }
    assert len(found) == MAX_KEYS + 1
    assert {effect.state for effect in found} == {EffectState.HELD}
    assert await plan_of_a_page(engine) == "Index Scan barrier_pkey"


async def plant(engine: AsyncEngine, count: int) -> None:
    async with engine.begin() as tx:
        await tx.run_sync(create_barrier)
        await tx.execute(
            text(
                "INSERT INTO barrier"
                " (saga_id, step, service, state, request, request_sha256, response)"
                " SELECT 'saga-' || n, 'the_step', 's', 'DONE', 'x', sha256('x'), 'y'"
                " FROM generate_series(1, :count) n"
            ),
            {"count": count},
        )
    async with engine.connect() as connection:
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await alone.execute(text("ANALYZE barrier"))


async def plan_of_a_page(engine: AsyncEngine) -> str:
    """How PostgreSQL finds the rows of a page in the middle."""
    async with engine.connect() as connection:
        plan = await connection.execute(
            text(
                "EXPLAIN (FORMAT JSON) SELECT saga_id, step, state, update_time FROM barrier"
                " WHERE (saga_id, step) > ('saga-2', 'a') ORDER BY saga_id, step LIMIT 100"
            )
        )
        (node,) = plan.scalar_one()[0]["Plan"]["Plans"]
    return f"{node['Node Type']} {node['Index Name']}"

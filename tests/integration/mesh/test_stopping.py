"""A server has stopped when the calls that it cut off have let go of what its owner closes next."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from mesh.postgres import transaction
from mesh.rpc.served import Context
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.statement import Statement, ask
from protos.saga.v1 import saga_pb2 as pb
from protos.saga.v1 import saga_pb2_grpc

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0.05)
LOCK = Statement("lock", "LOCK TABLE barrier")
WAITING = Statement(
    "waiting", "SELECT true FROM pg_locks WHERE relation = 'barrier'::regclass AND NOT granted"
)


class Asker(saga_pb2_grpc.SagaServiceServicer):
    """A call that waits for the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @override
    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        async with transaction(self._engine) as tx:
            await ask(tx, LOCK())
        return pb.GetSagaResponse()


async def test_a_call_that_is_cut_off_has_given_its_session_back_when_its_server_has_stopped(
    engine: AsyncEngine,
) -> None:
    pool = engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    server = Server(SETTINGS)
    server.add_service(saga_pb2_grpc.add_SagaServiceServicer_to_server, Asker(engine))
    await server.start()
    async with (
        transaction(engine) as other,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await ask(other, LOCK())
        call: Any = saga_pb2_grpc.SagaServiceStub(channel).GetSaga(pb.GetSagaRequest())
        while await ask(other, WAITING()) == [[]]:
            await asyncio.sleep(0.005)

        await server.stop()

        assert pool.checkedout() == 1
        call.cancel()

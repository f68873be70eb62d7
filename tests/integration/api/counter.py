"""A coordinator's API behind its real server, on the real engine and the journal's fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from opentelemetry.sdk.trace import TracerProvider

from coordinator.api.reflection import DefinitionsReflection
from mesh.server import Server
from mesh.settings import ServiceSettings
from protos.saga.v1 import saga_pb2_grpc
from tests.unit.api.desk import Desk, KnownDefinitions
from tests.unit.engine.world import World

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=5)


@dataclass
class Counter:
    """What a client of the API has in hand, and the desk behind it."""

    desk: Desk
    server: Server
    channel: grpc.aio.Channel

    @property
    def sagas(self) -> Any:  # noqa: ANN401 - generated stubs of asyncio channels have no types
        return saga_pb2_grpc.SagaServiceStub(self.channel)

    @property
    def definitions(self) -> Any:  # noqa: ANN401 - as above
        return saga_pb2_grpc.DefinitionServiceStub(self.channel)


@asynccontextmanager
async def open_counter(
    world: World, instance_id: str, definitions: KnownDefinitions, *, max_sagas: int = 20
) -> AsyncIterator[Counter]:
    desk = Desk(world, await world.coordinator(instance_id, max_sagas), definitions)
    server = Server(
        SETTINGS,
        tracer_provider=TracerProvider(),
        reflection=partial(DefinitionsReflection, definitions=definitions),
    )
    server.add_service(
        saga_pb2_grpc.add_SagaServiceServicer_to_server, desk.sagas, drain=desk.sagas.drain
    )
    server.add_service(saga_pb2_grpc.add_DefinitionServiceServicer_to_server, desk.registry)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Counter(desk, server, channel)
    await server.stop()

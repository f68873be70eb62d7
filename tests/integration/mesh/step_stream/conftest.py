"""A server with one step, and a stream to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from mesh.server import Server
from mesh.settings import ServiceSettings
from tests.integration.mesh.step_stream.client import Stream
from tests.integration.mesh.step_stream.service import Step

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)


@pytest.fixture
async def step() -> Step:
    return Step()


@pytest.fixture
async def server(step: Step) -> AsyncIterator[Server]:
    server = Server(SETTINGS)
    server.add_step(step)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture
async def stream(channel: grpc.aio.Channel) -> AsyncIterator[Stream]:
    stream = Stream(channel)
    yield stream
    stream.rpc.cancel()

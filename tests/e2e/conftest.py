"""One mesh of real processes for the whole run, its public API, and the real grpcurl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from local.mesh import Mesh
from local.ports import Ports
from local.sandbox import Sandbox
from local.shop import FIRST_STOCK, Shop, open_shop
from tests.e2e.grpcurl import Grpcurl
from tests.e2e.receiver import Receiver, receiving


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """Where every process of the mesh sends its spans."""
    with receiving() as receiver:
        yield receiver


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(new_folder: Callable[[], Path], receiver: Receiver) -> AsyncIterator[Mesh]:
    """The whole mesh with something to sell."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        running = Mesh(new_folder(), Ports.free())
    async with running:
        async with open_shop(running.address) as shop:
            await shop.stock_up(FIRST_STOCK)
        yield running


@pytest_asyncio.fixture
async def shop(mesh: Mesh) -> AsyncIterator[Shop]:
    """The public API."""
    async with open_shop(mesh.address) as shop:
        yield shop


@pytest_asyncio.fixture
async def sandbox(mesh: Mesh) -> AsyncIterator[Sandbox]:
    """The payment provider; as quick as ever when the test is over."""
    sandbox = Sandbox(mesh.sandbox_url)
    yield sandbox
    await sandbox.slow_down(0)


@pytest.fixture(scope="session")
def grpcurl(mesh: Mesh) -> Grpcurl:
    """The tool that people use."""
    return Grpcurl(mesh.address)

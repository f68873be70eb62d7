from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import pytest_asyncio

from tests.unit.rpc.network import Host, Network
from tests.virtual_time import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test in this folder runs on virtual time."""
    return {"virtual time": VirtualLoop}


@pytest_asyncio.fixture
async def network() -> Network:
    return Network()


@pytest_asyncio.fixture
async def host(network: Network) -> Host:
    return network.host()

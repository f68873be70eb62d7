"""A stream to the desk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.api.desk import Desk
from tests.unit.api.start_sagas.client import Client, Connect


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens streams, which are gone when the test is over."""
    clients: list[Client] = []

    def connect(desk: Desk) -> Client:
        clients.append(Client(desk))
        return clients[-1]

    yield connect
    for client in clients:
        client.stream.cancel()
    await asyncio.gather(*(client.stream for client in clients), return_exceptions=True)


@pytest.fixture
async def client(desk: Desk, connect: Connect) -> Client:
    return connect(desk)

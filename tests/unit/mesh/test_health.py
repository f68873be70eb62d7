from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from grpc_health.v1 import health_pb2

from mesh.errors import NotFound
from mesh.health import LIVENESS, Health
from mesh.rpc.served import Context

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CONTEXT = cast("Context", None)  # never looked at
SERVICE = "order.v1.OrderService"


class Database:
    """A dependency that can be away, or hang."""

    def __init__(self) -> None:
        self.trouble: Callable[[], Awaitable[None]] | None = None

    async def probe(self) -> None:
        if self.trouble is not None:
            await self.trouble()


async def refuse() -> None:
    raise ConnectionRefusedError


async def hang() -> None:
    await asyncio.Event().wait()


async def state(health: Health, service: str) -> int:
    answer = await health.Check(health_pb2.HealthCheckRequest(service=service), CONTEXT)
    return int(answer.status)


async def until(health: Health, expected: int) -> None:
    while await state(health, "") != expected:
        await asyncio.sleep(0)


def health_of(**databases: Database) -> Health:
    probes = {name: database.probe for name, database in databases.items()}
    health = Health(probes, interval_seconds=0.001, timeout_seconds=0.01)
    health.answer_for([SERVICE])
    return health


async def test_nothing_serves_before_the_probes_were_asked() -> None:
    health = health_of()

    assert await state(health, "") == NOT_SERVING
    assert await state(health, SERVICE) == NOT_SERVING
    assert await state(health, LIVENESS) == SERVING


async def test_a_service_that_is_not_served_is_unknown() -> None:
    with pytest.raises(NotFound):
        await state(health_of(), "order.v1.NoSuchService")


async def test_a_watch_tells_every_change_once() -> None:
    database = Database()
    health = health_of(postgres=database)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), CONTEXT)
    assert (await anext(watch)).status == NOT_SERVING
    polling = asyncio.create_task(health.watch())

    assert (await anext(watch)).status == SERVING
    database.trouble = refuse
    assert (await anext(watch)).status == NOT_SERVING
    database.trouble = None
    assert (await anext(watch)).status == SERVING
    health.drain()
    assert (await anext(watch)).status == NOT_SERVING
    polling.cancel()


@pytest.mark.parametrize("trouble", [refuse, hang])
async def test_readiness_follows_the_database_and_liveness_stays(
    trouble: Callable[[], Awaitable[None]],
) -> None:
    database = Database()
    health = health_of(postgres=database)
    watching = asyncio.create_task(health.watch())

    await until(health, SERVING)
    assert await state(health, SERVICE) == SERVING

    database.trouble = trouble
    await until(health, NOT_SERVING)
    assert await state(health, SERVICE) == NOT_SERVING
    assert await state(health, LIVENESS) == SERVING

    database.trouble = None
    await until(health, SERVING)
    watching.cancel()


async def test_one_of_two_dependencies_away_is_enough() -> None:
    present, away = Database(), Database()
    away.trouble = refuse
    health = health_of(postgres=present, mongo=away)
    watching = asyncio.create_task(health.watch())

    away.trouble = None
    await until(health, SERVING)
    away.trouble = refuse
    await until(health, NOT_SERVING)
    watching.cancel()


async def test_a_drain_is_final() -> None:
    health = health_of()
    watching = asyncio.create_task(health.watch())
    await until(health, SERVING)

    health.drain()

    for _ in range(10):
        await asyncio.sleep(0.001)
        assert await state(health, "") == NOT_SERVING
    watching.cancel()

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from mesh.health import LIVENESS, Health

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
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
    servicer: Any = health.servicer  # its annotations promise None
    answer = await servicer.Check(health_pb2.HealthCheckRequest(service=service), None)
    return int(answer.status)


async def until(health: Health, expected: int) -> None:
    while await state(health, "") != expected:
        await asyncio.sleep(0)


async def test_nothing_serves_before_the_probes_were_asked() -> None:
    health = Health({})
    await health.begin([SERVICE])

    assert await state(health, "") == NOT_SERVING
    assert await state(health, SERVICE) == NOT_SERVING
    assert await state(health, LIVENESS) == SERVING


@pytest.mark.parametrize("trouble", [refuse, hang])
async def test_readiness_follows_the_database_and_liveness_stays(
    trouble: Callable[[], Awaitable[None]],
) -> None:
    database = Database()
    health = Health({"postgres": database.probe}, interval_seconds=0.001, timeout_seconds=0.01)
    await health.begin([SERVICE])
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
    health = Health({"postgres": present.probe, "mongo": away.probe}, interval_seconds=0.001)
    await health.begin([SERVICE])
    watching = asyncio.create_task(health.watch())

    away.trouble = None
    await until(health, SERVING)
    away.trouble = refuse
    await until(health, NOT_SERVING)
    watching.cancel()


async def test_a_drain_is_final() -> None:
    health = Health({}, interval_seconds=0.001)
    await health.begin([SERVICE])
    watching = asyncio.create_task(health.watch())
    await until(health, SERVING)

    await health.drain()

    await health.servicer.set("", SERVING)
    assert await state(health, "") == NOT_SERVING
    watching.cancel()

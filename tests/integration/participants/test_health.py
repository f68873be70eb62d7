"""Whether a participant may be called, as its own health service says over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from grpc_health.v1 import health_pb2

from coordinator.participants.base import Failed
from tests.integration.participants.participant import DO, Health, Running, ask, running, serve

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest_asyncio.fixture
async def healthy() -> AsyncIterator[Running]:
    async with running(health=Health()) as payment:
        yield payment


def health_of(payment: Running) -> Health:
    assert payment.participant.health is not None
    return payment.participant.health


async def test_a_participant_tells_by_itself_whether_it_serves(healthy: Running) -> None:
    assert await healthy.participants.serving("payment")
    health_of(healthy).state = NOT_SERVING
    assert not await healthy.participants.serving("payment")


async def test_one_without_a_health_service_serves_when_it_answers(payment: Running) -> None:
    assert await payment.participants.serving("payment")
    await payment.server.stop(None)
    assert not await payment.participants.serving("payment")


async def test_one_that_does_not_tell_in_time_does_not_serve(healthy: Running) -> None:
    health_of(healthy).may_answer.clear()
    loop = asyncio.get_running_loop()
    asked = loop.time()
    assert not await healthy.participants.serving("payment")
    assert 0.9 < loop.time() - asked < 3
    health_of(healthy).may_answer.set()


async def test_one_that_was_away_for_long_is_found_again_within_two_seconds(
    healthy: Running,
) -> None:
    await healthy.server.stop(None)
    loop = asyncio.get_running_loop()
    gone = loop.time()
    while loop.time() < gone + 5:  # long enough for the longest pause between two connections
        assert not await healthy.participants.serving("payment")
        assert isinstance(await ask(healthy.participants, DO), Failed)
        await asyncio.sleep(0.1)
    healthy.server, _ = await serve(healthy.participant, healthy.port)
    back = loop.time()
    while not await healthy.participants.serving("payment"):
        await asyncio.sleep(0.1)
    assert loop.time() - back < 2

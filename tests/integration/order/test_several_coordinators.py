"""An order service that knows several coordinators, of which one is in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from mesh.errors import Overloaded, Retry
from order_svc import coordinator as client
from order_svc.coordinator import CHANNEL_OPTIONS, Coordinator
from tests.integration.order.coordinator import StandInCoordinator

Pair = tuple[StandInCoordinator, StandInCoordinator]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = StandInCoordinator(), StandInCoordinator()
    for one in pair:
        await one.up()
    yield pair
    for one in pair:
        await one.down()


@pytest.fixture
async def coordinators(pair: Pair) -> AsyncIterator[Coordinator]:
    """A client that is connected to both."""
    address = f"ipv4:{','.join(one.address for one in pair)}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        coordinators, number = Coordinator(channel), 0
        while not all(one.sagas for one in pair):
            number += 1
            await coordinators.start(f"first-{number}", b"")
        yield coordinators


async def test_each_is_asked_in_turn(pair: Pair, coordinators: Coordinator) -> None:
    before = [one.starts for one in pair]
    for number in range(10):
        await coordinators.start(f"saga-{number}", b"")
    assert [one.starts - were for one, were in zip(pair, before, strict=True)] == [5, 5]


async def test_a_frozen_coordinator_costs_one_short_try(
    pair: Pair, coordinators: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, other = pair
    frozen.silent = True
    monkeypatch.setattr(client, "TRY_SECONDS", 0.2)
    for number in range(6):
        await coordinators.start(f"saga-{number}", b"")
    assert {f"saga-{number}" for number in range(6)} <= other.sagas.keys()


async def test_a_coordinator_that_drains_is_left_for_another(
    pair: Pair, coordinators: Coordinator
) -> None:
    draining, other = pair
    draining.refusal = Retry("DRAINING", "shutting down")
    for number in range(6):
        await coordinators.start(f"saga-{number}", b"")
    assert {f"saga-{number}" for number in range(6)} <= other.sagas.keys()


async def test_a_coordinator_that_died_is_left_for_another(
    pair: Pair, coordinators: Coordinator
) -> None:
    died, other = pair
    await died.down()
    for number in range(6):
        await coordinators.start(f"saga-{number}", b"")
    assert {f"saga-{number}" for number in range(6)} <= other.sagas.keys()


async def test_one_that_is_just_coming_back_is_waited_for(
    pair: Pair, coordinators: Coordinator
) -> None:
    for one in pair:
        await one.down()
    placing = asyncio.create_task(coordinators.start("saga-1", b""))
    await asyncio.sleep(0)
    await pair[0].up()
    assert (await placing).saga_id == "saga-1"


async def test_one_that_has_too_much_to_do_is_not_asked_again_at_once(
    pair: Pair, coordinators: Coordinator
) -> None:
    for one in pair:
        one.refusal = Overloaded("OVERLOADED", "later", retry_after_ms=7_000)
    before = sum(one.starts for one in pair)
    with pytest.raises(Retry) as refusal:
        await coordinators.start("saga-1", b"")
    assert refusal.value.retry_after_ms == 7_000
    assert sum(one.starts for one in pair) == before + 1

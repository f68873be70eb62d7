"""STUCK sagas are counted in the journal."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, generate_latest

from coordinator.console.stuck import StuckGauges
from coordinator.core.model import FailureKind, SagaState
from coordinator.journal.verbs import VerbKind
from tests.unit.engine.world import Coordinator, World, failed


async def stuck(world: World, one: Coordinator, saga_id: str) -> None:
    await world.start(one, "a", "b", saga_id=saga_id)
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await one.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    await world.until(SagaState.STUCK, saga_id)


async def test_stuck_sagas_are_shown_by_definition_with_the_age_of_the_oldest(
    world: World,
) -> None:
    registry = CollectorRegistry()
    gauges = StuckGauges(registry, world.reader, every_seconds=15)
    counting = asyncio.create_task(gauges.run())
    one = await world.coordinator()
    await stuck(world, one, "saga-1")
    oldest = await world.reader.load("saga-1")
    assert oldest is not None
    await asyncio.sleep(100)
    await stuck(world, one, "saga-2")
    await asyncio.sleep(16)
    text = generate_latest(registry).decode()
    assert 'saga_stuck{definition="story"} 2.0' in text
    (line,) = [x for x in text.splitlines() if x.startswith("saga_stuck_since_timestamp_seconds{")]
    assert float(line.split()[-1]) == oldest.updated_ms / 1_000
    await world.verb(one, VerbKind.ABANDON)
    await asyncio.sleep(16)
    assert 'saga_stuck{definition="story"} 1.0' in generate_latest(registry).decode()
    counting.cancel()


async def test_while_the_journal_is_away_the_last_count_is_shown(world: World) -> None:
    registry = CollectorRegistry()
    one = await world.coordinator()
    await stuck(world, one, "saga-1")
    gauges = StuckGauges(registry, one.journal, every_seconds=15)
    counting = asyncio.create_task(gauges.run())
    await asyncio.sleep(1)
    one.journal.cut()
    await asyncio.sleep(60)
    assert 'saga_stuck{definition="story"} 1.0' in generate_latest(registry).decode()
    counting.cancel()

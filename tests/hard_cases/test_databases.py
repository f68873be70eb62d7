"""S11 and S17: databases that go, come back, and come back with less."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.core.model import SagaState
from coordinator.participants.base import Done
from mesh.effects import Effect, EffectKey, EffectState
from mesh.step import StepCall
from tests.contract.barrier_harness import BarrierHarness
from tests.hard_cases import without
from tests.hard_cases.mesh import NewWorld
from tests.hard_cases.test_calls_that_come_late import undo
from tests.unit.engine.world import World
from tests.unit.reconciliation.audit import Audit


async def sent_during_a_failover(world: World) -> int:
    """How many calls are sent whose events are not on disk yet."""
    one = await world.coordinator()
    await world.start(one, "a", "b")
    first = await one.sent("DO a 1")
    one.journal.lose_next_answer()  # the commit's answer is lost with the server
    first.answer(Done(b"a-ok"))
    await asyncio.sleep(0.5)
    early = one.participants.waiting
    one.journal.mend()
    await one.answer("DO b 1")
    await world.until(SagaState.COMPLETED)
    return early


async def test_s11_during_a_failover_nothing_is_sent_that_is_not_known_to_be_on_disk(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await sent_during_a_failover(new_world()) == 0

    without.write_before_act(monkeypatch)
    assert await sent_during_a_failover(new_world()) == 1


@pytest.fixture
async def audit(new_world: NewWorld) -> AsyncIterator[Audit]:
    """A world of its own, with participants that keep records; see `conftest.py` for the time."""
    async with Audit() as audit:
        yield audit


async def test_s11_commits_that_a_failover_lost_are_found_by_reconciliation(audit: Audit) -> None:
    for number in range(3):
        await audit.completed(f"saga-{number}")
    assert await audit.orphans() == []

    del audit.world.store._sagas["saga-1"]  # a standby that had not heard of it takes over

    assert await audit.orphans() == [
        "inventory saga-1 stock UNKNOWN_SAGA",
        "payment saga-1 money UNKNOWN_SAGA",
    ]
    sagas = audit.world.store.list_sagas("", frozenset(), {}, None, 10)
    assert {saga.state for saga in sagas} == {SagaState.COMPLETED}, "nothing else shows it"


async def test_s11_a_saga_that_lost_its_last_events_asks_again_and_comes_to_the_same_end(
    audit: Audit,
) -> None:
    await audit.completed()
    audit.coordinator.journal.cut()
    await asyncio.sleep(5)  # its lease runs out
    stored = audit.world.store._sagas["saga-1"]
    del stored.rows[1:]  # a standby takes over that had heard of its start alone
    stored.state = SagaState.RUNNING
    audit.coordinator.journal.mend()

    await audit.world.until(SagaState.COMPLETED)

    assert await audit.orphans() == []


async def all_effects(harness: BarrierHarness, page: int) -> list[Effect]:
    """What a consumer that lost its place reads: everything, from the beginning."""
    read: list[Effect] = []
    while found := await harness.effects().page(read[-1].key if read else None, page):
        read += found
    return read


async def test_s17_who_lost_its_place_reads_again_what_a_participant_holds(
    mongo_harness: BarrierHarness,
) -> None:
    calls = [StepCall(saga_id=f"saga-{n}", step="reserve_stock") for n in range(5)]
    for call in calls:
        await mongo_harness.guarded().do(call, mongo_harness.request())
    await undo(mongo_harness, calls[3])

    read = await all_effects(mongo_harness, page=2)

    held, undone = EffectState.HELD, EffectState.COMPENSATED
    assert [(it.key, it.state) for it in read] == [
        (EffectKey(call.saga_id, call.step), undone if call is calls[3] else held) for call in calls
    ]


async def test_s17_what_changes_while_it_is_read_is_read_once(
    mongo_harness: BarrierHarness,
) -> None:
    calls = [StepCall(saga_id=f"saga-{n}", step="reserve_stock") for n in range(5)]
    for call in calls:
        await mongo_harness.guarded().do(call, mongo_harness.request())

    first = await mongo_harness.effects().page(None, 2)
    for call in calls:
        await undo(mongo_harness, call)
    rest = await mongo_harness.effects().page(first[-1].key, 10)

    assert [it.key.saga_id for it in (*first, *rest)] == [call.saga_id for call in calls]

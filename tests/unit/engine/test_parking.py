"""Sagas that wait long leave memory, and come back when something is due."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from coordinator.core.model import Definition, SagaState
from coordinator.core.saga import Saga
from coordinator.engine.live import Live
from coordinator.engine.loader import Loader
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.parking import ParkingLot
from coordinator.engine.ports import Ports
from coordinator.engine.runner import Runner
from coordinator.journal.base import ClaimUnknown, JournalUnavailable, Lease, Parking
from coordinator.journal.memory import MemoryJournal
from coordinator.journal.verbs import VerbKind, VerbState
from coordinator.participants.base import Done
from tests.builders import definition
from tests.unit.engine.world import Coordinator, World, failed

PARK_AFTER_MS = OwnershipSettings(instance_id="any").park_after_ms
LATER_MS = 6 * PARK_AFTER_MS
HEARTBEAT_SECONDS = 1.0


def patient(*steps: str, deadline_ms: int | None = None) -> Definition:
    """Steps whose participants may ask for a long pause."""
    story = definition(*steps)
    policy = replace(story.steps[0].retry, max_interval_ms=10 * LATER_MS)
    chosen = tuple(replace(step, retry=policy) for step in story.steps)
    return replace(story, steps=chosen, hash="patient", deadline_ms=deadline_ms)


async def parked(world: World, coordinator: Coordinator, story: Definition) -> None:
    """A saga whose first attempt was told to come back later, out of memory."""
    await world.start(coordinator, story=story)
    await coordinator.answer("DO a 1", failed(retry_after_ms=LATER_MS))
    await gone(coordinator)


async def gone(coordinator: Coordinator) -> None:
    while coordinator.engine.sagas:
        await asyncio.sleep(0.01)


async def test_a_saga_that_waits_long_leaves_memory_and_comes_back_in_time(world: World) -> None:
    one = await world.coordinator()
    await parked(world, one, patient("a"))
    due_ms = (await world.saga()).steps[0].due_ms
    assert due_ms - world.now_ms() > PARK_AFTER_MS
    await one.answer("DO a 2")
    assert due_ms <= world.now_ms() <= due_ms + 20
    await world.until(SagaState.COMPLETED)


async def test_a_saga_that_is_soon_due_stays_in_memory(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=patient("a"))
    await one.answer("DO a 1", failed(retry_after_ms=PARK_AFTER_MS))
    for _ in range(5):
        await asyncio.sleep(HEARTBEAT_SECONDS)
        assert one.engine.sagas == 1
    await one.answer("DO a 2")
    await world.until(SagaState.COMPLETED)


async def test_a_saga_in_flight_is_not_parked_however_long_it_takes(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=patient("a", deadline_ms=100 * LATER_MS))
    sent = await one.sent("DO a 1")
    await asyncio.sleep(20)
    assert one.engine.sagas == 1
    sent.answer(failed())


async def test_a_parked_saga_outlives_its_owner_and_is_run_by_another(world: World) -> None:
    one = await world.coordinator()
    await parked(world, one, patient("a"))
    await one.kill()
    two = await world.coordinator("two")
    await two.answer("DO a 2")
    await world.until(SagaState.COMPLETED)
    assert two.counts.sagas_claimed == 1


async def test_what_another_left_waiting_is_claimed_and_parked_at_once(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=patient("a"))
    await one.answer("DO a 1", failed(retry_after_ms=LATER_MS))
    await asyncio.sleep(0.01)
    await one.kill()
    two = await world.coordinator("two")
    while not two.counts.sagas_claimed:
        await asyncio.sleep(0.01)
    await gone(two)
    assert (await world.reader.standings(["saga-1"]))["saga-1"].parked_until_ms
    await two.answer("DO a 2")


async def test_a_deadline_that_passes_wakes_a_parked_saga(world: World) -> None:
    one = await world.coordinator()
    await parked(world, one, patient("a", deadline_ms=LATER_MS // 2))
    await one.answer("COMPENSATE a 1")
    saga = await world.until(SagaState.COMPENSATED)
    assert saga.updated_ms - saga.created_ms < LATER_MS * 3 // 4


async def test_a_verb_is_decided_soon_for_a_parked_saga(world: World) -> None:
    one = await world.coordinator()
    await parked(world, one, patient("a"))
    asked_ms = world.now_ms()
    verb = asyncio.create_task(world.verb(one, VerbKind.CANCEL))
    assert (await verb).state is VerbState.ACCEPTED
    assert world.now_ms() - asked_ms < 2_500 * HEARTBEAT_SECONDS
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)


async def test_thousands_of_waiting_sagas_need_no_room(world: World) -> None:
    one = await world.coordinator(max_sagas=50)
    for number in range(200):
        await world.start(one, saga_id=f"saga-{number}", story=patient("a"))
        await one.answer("DO a 1", failed(retry_after_ms=LATER_MS))
        if one.engine.sagas == 50:
            await gone(one)
    for _ in range(200):
        await one.answer("DO a 2")
    for number in range(200):
        await world.until(SagaState.COMPLETED, f"saga-{number}")


async def test_a_store_that_is_away_parks_nothing_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    tried = asyncio.Event()

    async def away(*_: object) -> frozenset[str]:
        tried.set()
        raise JournalUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryJournal, "park", away)
        await world.start(one, story=patient("a"))
        await one.answer("DO a 1", failed(retry_after_ms=LATER_MS))
        await tried.wait()
    await gone(one)
    await one.answer("DO a 2")
    await world.until(SagaState.COMPLETED)


async def test_after_a_parking_of_which_nobody_knows_the_lease_is_given_up_and_all_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    honest, lost = MemoryJournal.park, asyncio.Event()

    async def unheard(self: MemoryJournal, lease: Lease, parkings: list[Parking]) -> frozenset[str]:
        parked = await honest(self, lease, parkings)
        if not lost.is_set():
            lost.set()
            raise ClaimUnknown("the answer was lost", ())
        return parked

    monkeypatch.setattr(MemoryJournal, "park", unheard)
    await world.start(one, story=patient("a"))
    await world.start(one, saga_id="saga-2", story=patient("a"))
    sent = await one.sent("DO a 1")
    await one.answer("DO a 1", failed(retry_after_ms=LATER_MS))
    await lost.wait()
    again = await one.sent("DO a 1")
    assert again.attempt.saga_id == sent.attempt.saga_id == "saga-1"
    again.answer(Done(b"ok"))
    await one.answer("DO a 2")
    for saga_id in ("saga-1", "saga-2"):
        await world.until(SagaState.COMPLETED, saga_id)


async def test_a_verb_that_comes_while_it_is_parked_is_not_overlooked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    honest = MemoryJournal.park
    decided: list[asyncio.Task[object]] = []

    async def late(self: MemoryJournal, lease: Lease, parkings: list[Parking]) -> frozenset[str]:
        if not decided:
            decided.append(asyncio.create_task(world.verb(one, VerbKind.CANCEL)))
            await asyncio.sleep(0.1)
        return await honest(self, lease, parkings)

    monkeypatch.setattr(MemoryJournal, "park", late)
    await world.start(one, story=patient("a"))
    await one.answer("DO a 1", failed(retry_after_ms=LATER_MS))
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)
    await decided[0]


async def test_others_have_their_turn_while_many_sagas_are_looked_at() -> None:
    looked, in_a_turn = 0, [0]

    def now_ms() -> int:  # it is asked once for each
        nonlocal looked
        looked += 1
        return 0

    async def take_turns() -> None:
        while True:
            in_a_turn.append(looked - sum(in_a_turn))
            await asyncio.sleep(0)

    sagas = [Live(cast("Saga", None)) for _ in range(5_000)]
    ports = cast("Ports", SimpleNamespace(journal=None, clock=SimpleNamespace(now_ms=now_ms)))
    runner = cast("Runner", SimpleNamespace(sagas=lambda: sagas))
    lot = ParkingLot(ports, runner, cast("Loader", None), after_ms=PARK_AFTER_MS)
    others = asyncio.create_task(take_turns())
    await lot.fill(cast("Lease", None))
    others.cancel()

    assert looked == len(sagas)
    assert max(in_a_turn) <= 500

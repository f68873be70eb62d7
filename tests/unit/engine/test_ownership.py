"""The lease and the tasks under it: how they end, and how they begin again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordinator.core.commands import Call
from coordinator.core.decide import recover
from coordinator.core.events import Event
from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from coordinator.journal.base import JournalUnavailable, Lease, LeaseLost
from coordinator.journal.memory import MemoryJournal
from coordinator.participants.base import Done
from tests.unit.engine.test_accidents import failing
from tests.unit.engine.world import Coordinator, World, failed, now, settle
from tests.virtual_time import VirtualLoop


def in_ticks(ticks: int, callback: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    if ticks == 0:
        loop.call_soon(callback)
    else:
        loop.call_soon(in_ticks, ticks - 1, callback)


@pytest.mark.parametrize("ticks", range(8))
async def test_an_instance_that_is_stopped_when_it_loses_its_lease_stops(
    world: World, ticks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()

    async def lose(lease: Lease, length_ms: int) -> Lease:
        in_ticks(ticks, one.task.cancel)
        raise LeaseLost("at this moment")

    monkeypatch.setattr(one.journal, "renew_lease", lose)
    await asyncio.wait([one.task], timeout=2)
    assert one.task.cancelled()


async def test_a_bug_in_one_of_its_tasks_ends_an_instance_and_nothing_is_sent_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await Coordinator(world, "one", max_sagas=100).ready()
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    claim = failing(1, ZeroDivisionError("a bug"), one.journal.claim)
    monkeypatch.setattr(one.journal, "claim", claim)
    await asyncio.wait([one.task], timeout=5)
    told = one.task.exception()
    assert isinstance(told, ExceptionGroup)
    assert told.subgroup(ZeroDivisionError) is not None
    assert not one.engine.ready
    sent.answer(Done(b"a-ok"))
    await settle()
    assert (one.engine.sagas, one.participants.waiting) == (0, 0)


async def test_a_bug_in_recovering_one_saga_makes_it_stuck_and_harms_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(saga: Saga, time_ms: int) -> tuple[tuple[Call, ...], tuple[Event, ...]]:
        if saga.saga_id == "saga-1":
            raise ZeroDivisionError("a bug")
        return recover(saga, time_ms)

    one = await world.coordinator()
    await world.start(one, "a")
    await world.start(one, "a", saga_id="saga-2")
    await one.kill()
    monkeypatch.setattr("coordinator.engine.runner.recover", buggy)
    again = await world.coordinator()
    await again.answer("DO a 1")
    await world.until(SagaState.COMPLETED, "saga-2")
    saga = await world.until(SagaState.STUCK)
    assert saga.stuck is not None
    assert saga.stuck.reason == "COORDINATOR_BUG"


async def test_a_drained_instance_hands_over_at_once_also_what_merely_waits(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    await one.answer("DO a 1", failed(retry_after_ms=5_000))
    due = now() + 5
    one.participants.away.add("test")
    await world.start(one, "a", saga_id="saga-2")
    await one.answer("DO a 1", failed())
    await asyncio.sleep(1)
    released = now()
    await one.shut_down()
    await two.answer("DO a 2")
    assert now() - released < 1.1
    await world.until(SagaState.COMPLETED, "saga-2")
    await two.answer("DO a 2")
    assert now() == pytest.approx(due, abs=0.01)
    await world.until(SagaState.COMPLETED)


async def test_an_instance_that_rejoins_has_a_new_epoch_and_leaves_the_others_their_sagas(
    world: World,
) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    before = one.engine._ownership._lease
    await one.shut_down()
    await two.sent("DO a 1")
    again = await world.coordinator("one")
    after = again.engine._ownership._lease
    assert before is not None
    assert after is not None
    assert after.epoch > before.epoch
    await asyncio.sleep(10)
    assert again.engine.sagas == 0


async def test_of_two_processes_under_one_id_the_newer_one_runs_and_the_other_stands_by(
    world: World,
) -> None:
    """Fencing each other in turn, they would convict whatever waits for an answer as poisonous."""
    one = await world.coordinator("one")
    await world.start(one, "a")
    await one.sent("DO a 1")
    namesake = await world.coordinator("one")
    sent = await namesake.sent("DO a 1")
    await asyncio.sleep(60)
    assert (one.engine.ready, namesake.engine.ready) == (False, True)
    assert (one.participants.waiting, namesake.participants.waiting) == (0, 0)
    sent.answer(Done(b"a-ok"))
    await world.until(SagaState.COMPLETED)
    await namesake.kill()
    gone = now()
    await one.ready()
    assert now() - gone < 5


async def test_a_lease_that_was_granted_unheard_is_nobody_elses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator("one")

    async def grant_unheard(instance_id: str, length_ms: int, *, after: Lease | None) -> Lease:
        world.store.acquire(instance_id, length_ms, after)
        raise JournalUnavailable("no answer")

    with monkeypatch.context() as deaf:
        deaf.setattr(one.journal, "acquire_lease", grant_unheard)
        world.store.release(_lease_of(one))
        await asyncio.sleep(1.5)
        assert not one.engine.ready
    before = now()
    await one.ready()
    assert now() - before < 1.1


def _lease_of(coordinator: Coordinator) -> Lease:
    lease = coordinator.engine._ownership._lease
    assert lease is not None
    return lease


async def test_a_process_that_was_paused_sends_nothing_writes_nothing_and_rejoins(
    world: World,
) -> None:
    """Everything that came due meanwhile is in the first turn after it: the fence is before it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    one = await world.coordinator("one")
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    await world.start(one, "a", "b", saga_id="saga-2")
    answered = await one.sent("DO a 1")
    await asyncio.sleep(0.4)  # the retry is due in 0.1 s
    epoch = one.engine._ownership._lease
    answered.answer(Done(b"too late"))
    loop.stand_still(20)
    other = MemoryJournal(world.store)  # in the same turn, as it were meanwhile
    claimed = await other.claim(await other.acquire_lease("two", 3_000), 10)
    await settle()
    assert {stored.saga_id for stored in claimed.sagas} == {"saga-1", "saga-2"}
    assert one.participants.waiting == 0
    assert (await world.saga()).revision == 2
    assert (await world.saga("saga-2")).revision == 1
    await asyncio.sleep(2)
    assert one.participants.waiting == 0
    await one.ready()
    rejoined = one.engine._ownership._lease
    assert rejoined is not None
    assert epoch is not None
    assert rejoined.epoch > epoch.epoch

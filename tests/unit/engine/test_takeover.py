"""Taking over what others have left: as much as fits, without being in anybody's way."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from coordinator.core.model import Definition, SagaState
from coordinator.engine.definitions import DefinitionUnavailable
from coordinator.engine.errors import Overloaded
from coordinator.journal.base import Claimed, Lease, UnreadableHistory
from coordinator.journal.verbs import VerbKind, VerbState
from tests.builders import definition
from tests.unit.engine.test_accidents import failing
from tests.unit.engine.world import Coordinator, World, settle

GONE = DefinitionUnavailable("is not stored")


async def leave_behind(world: World, count: int) -> None:
    """Sagas that nobody runs."""
    dead = await world.coordinator("dead", max_sagas=count)
    for number in range(count):
        await world.start(dead, "a", saga_id=f"saga-{number}")
    await dead.kill()
    await dead.engine.release()


# --- room -----------------------------------------------------------------------------------


async def test_no_more_is_claimed_than_fits_and_the_rest_when_there_is_room(world: World) -> None:
    await leave_behind(world, 12)
    one = await world.coordinator("one", max_sagas=5)
    await asyncio.sleep(10)
    assert one.engine.sagas == one.counts.sagas_claimed == 5
    for _ in range(3):
        await one.answer("DO a 1")
    await asyncio.sleep(1.1)
    assert one.counts.sagas_claimed == 8


async def test_what_does_not_fit_is_left_to_others(world: World) -> None:
    await leave_behind(world, 12)
    one = await world.coordinator("one", max_sagas=5)
    two = await world.coordinator("two", max_sagas=100)
    await asyncio.sleep(2)
    assert (one.engine.sagas, two.engine.sagas) == (5, 7)


async def test_a_start_does_not_wait_for_a_takeover_of_thousands(world: World) -> None:
    await leave_behind(world, 10_000)
    one = Coordinator(world, "one", max_sagas=20_000)
    while one.engine.sagas < 100:
        await asyncio.sleep(0)
    assert one.engine.sagas < 400
    await world.start(one, "a", saga_id="new")
    assert one.engine.sagas < 800
    await asyncio.sleep(1)
    assert one.engine.sagas == 10_001
    await one.kill()


# --- sagas that cannot be run -----------------------------------------------------------------


async def lose_definition(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The definition of saga-0 is gone; returns who asked for it."""
    asked: list[str] = []
    load = world.definitions.load

    async def without(content_hash: str) -> Definition:
        if content_hash == "gone":
            asked.append(content_hash)
            raise GONE
        return await load(content_hash)

    dead = await world.coordinator("dead")
    await world.start(dead, story=replace(definition("a"), hash="gone"), saga_id="saga-0")
    for number in (1, 2, 3):
        await world.start(dead, "a", saga_id=f"saga-{number}")
    await dead.kill()
    await dead.engine.release()
    monkeypatch.setattr(world.definitions, "load", without)
    return asked


async def test_a_saga_without_its_definition_is_told_of_once_and_hides_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await lose_definition(world, monkeypatch)
    with capture_logs() as logs:
        one = await world.coordinator("one")
        for number in (1, 2, 3):
            await one.answer("DO a 1")
            await world.until(SagaState.COMPLETED, f"saga-{number}")
        await asyncio.sleep(120)
    assert one.counts.sagas_unrunnable == 1
    assert len([entry for entry in logs if entry["event"] == "saga.not_runnable"]) == 1
    assert 3 <= len(asked) <= 6  # now and then, never at each heartbeat


async def test_a_saga_whose_definition_is_back_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        await lose_definition(world, patched)
        one = await world.coordinator("one")
        for _ in (1, 2, 3):
            await one.answer("DO a 1")
        await asyncio.sleep(10)
    async with asyncio.timeout(31):
        await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED, "saga-0")
    await asyncio.sleep(2)
    assert one.counts.sagas_unrunnable == 0


async def test_a_saga_that_cannot_be_run_is_never_convicted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lose_definition(world, monkeypatch)
    for _ in range(6):
        one = await world.coordinator("one")
        await settle()
        await one.kill()
    stored = await world.reader.load("saga-0")
    assert stored is not None
    assert stored.claims == 0


async def test_a_verb_for_a_saga_that_cannot_be_run_is_refused_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.kill()
    load = failing(10**6, GONE, world.definitions.load)
    monkeypatch.setattr(world.definitions, "load", load)
    again = await world.coordinator()
    outcome = await world.verb(again, VerbKind.CANCEL)
    assert outcome.state is VerbState.REFUSED
    assert "is not stored" in outcome.explanation


async def test_a_bug_in_folding_one_saga_harms_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_behind(world, 3)
    load = failing(1, ZeroDivisionError("a bug"), world.definitions.load)
    monkeypatch.setattr(world.definitions, "load", load)
    one = await world.coordinator()
    await asyncio.sleep(3)
    assert (one.participants.waiting, one.counts.sagas_unrunnable) == (2, 1)


def hide(one: Coordinator, saga_id: str, monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """This version cannot read one history; returns what each claim has passed over."""
    asked: list[frozenset[str]] = []
    claim = one.journal.claim

    async def without(
        lease: Lease, limit: int, *, passing_over: frozenset[str] = frozenset()
    ) -> Claimed:
        asked.append(passing_over)
        if saga_id not in passing_over:
            return Claimed(sagas=[], unreadable=frozenset({saga_id}))
        return await claim(lease, limit, passing_over=passing_over)

    monkeypatch.setattr(one.journal, "claim", without)
    return asked


async def test_a_history_that_cannot_be_read_is_left_to_others_and_hides_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_behind(world, 3)
    one = Coordinator(world, "one", max_sagas=100)
    asked = hide(one, "saga-0", monkeypatch)
    with capture_logs() as logs:
        await one.ready()
        await asyncio.sleep(100)
    assert one.participants.waiting == 2
    assert one.counts.sagas_unrunnable == 1
    assert len([entry for entry in logs if entry["event"] == "saga.not_runnable"]) == 1
    assert 3 <= asked.count(frozenset()) <= 5
    await one.kill()


async def test_a_history_of_ours_that_cannot_be_read_again_is_tried_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.sent("DO a 1")
    one.engine._ownership.astray("saga-1")
    one.engine._runner.drop_all()
    reload = failing(2, UnreadableHistory("of a newer release"), one.journal.reload)
    monkeypatch.setattr(one.journal, "reload", reload)
    await asyncio.sleep(10)
    assert one.counts.sagas_unrunnable == 1
    async with asyncio.timeout(60):
        await one.sent("DO a 1")


async def test_new_sagas_never_keep_out_those_that_nobody_owns(world: World) -> None:
    one = await world.coordinator("one", max_sagas=10)
    dead = await world.coordinator("dead")
    await world.start(dead, "b", saga_id="orphan")
    await dead.kill()
    for number in range(10):
        await world.start(one, "a", saga_id=f"saga-{number}")
    with pytest.raises(Overloaded):
        await world.start(one, "a", saga_id="one too many")
    await asyncio.sleep(5)
    assert one.engine.sagas == 11
    with pytest.raises(Overloaded):
        await world.start(one, "a", saga_id="still one too many")


async def test_an_instance_that_drains_leaves_the_sagas_of_the_dead_to_others(world: World) -> None:
    one, dead = await world.coordinator("one"), await world.coordinator("dead")
    await world.start(one, "a", saga_id="slow")
    await one.sent("DO a 1")
    await world.start(dead, "b", saga_id="orphan")
    await dead.kill()
    await asyncio.sleep(2)
    draining = asyncio.create_task(one.shut_down())
    await asyncio.sleep(2.5)  # the lease of the dead is over
    assert not draining.done()
    assert (await world.reader.standings(["orphan"]))["orphan"].owner == ""
    await draining

"""Nothing is sent, and no start is answered, that is not on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordinator.core.model import SagaState
from coordinator.journal.base import Append, AppendError, JournalUnavailable, Unwritable
from coordinator.participants.base import Done
from tests.unit.engine.world import World, settle


async def test_a_call_is_sent_only_when_its_event_is_on_disk(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    one.journal.hold()
    await one.answer("DO a 1")
    await settle()
    assert one.participants.waiting == 0
    one.journal.let_go()
    await one.sent("DO b 1")


async def test_a_start_is_answered_only_when_it_is_on_disk(world: World) -> None:
    one = await world.coordinator()
    one.journal.hold()
    starting = asyncio.create_task(world.start(one, "a"))
    await settle()
    assert not starting.done()
    assert one.participants.waiting == 0
    one.journal.let_go()
    assert (await starting).revision == 1


async def test_a_start_that_is_not_known_to_be_on_disk_is_unavailable_and_goes_on(
    world: World,
) -> None:
    one = await world.coordinator()
    one.journal.hold()
    with pytest.raises(JournalUnavailable):
        await world.start(one, "a")
    one.journal.let_go()
    await one.sent("DO a 1")


async def test_a_client_that_goes_away_changes_nothing(world: World) -> None:
    one = await world.coordinator()
    one.journal.hold()
    client = asyncio.create_task(world.start(one, "a"))
    await settle()
    client.cancel()
    one.journal.let_go()
    await one.sent("DO a 1")


async def test_while_the_journal_is_away_nothing_is_started_and_work_resumes_by_itself(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    one.journal.cut()
    sent.answer(Done(b"a-ok"))
    with pytest.raises(JournalUnavailable):
        await world.start(one, "a", saga_id="saga-2")
    assert one.participants.waiting == 0
    one.journal.mend()
    await one.sent("DO b 1")


async def test_a_commit_whose_answer_is_lost_is_performed_once(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    one.journal.lose_next_answer()
    await one.answer("DO a 1")
    await settle()
    one.journal.mend()
    await one.answer("DO b 1")
    assert (await world.until(SagaState.COMPLETED)).revision == 3


async def test_an_event_that_the_store_refuses_makes_its_saga_stuck_and_harms_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    honest = one.journal.append

    def picky(append: Append, done: Callable[[AppendError | None], None]) -> None:
        if getattr(append.event, "response", b"") == b"poison":
            asyncio.get_running_loop().call_soon(done, Unwritable("no"))
        else:
            honest(append, done)

    monkeypatch.setattr(one.journal, "append", picky)
    await world.start(one, "a")
    await world.start(one, "a", saga_id="saga-2")
    await one.answer("DO a 1", Done(b"poison"))
    await one.answer("DO a 1", Done(b"fine"))
    await world.until(SagaState.COMPLETED, "saga-2")
    saga = await world.until(SagaState.STUCK)
    assert saga.stuck is not None
    assert saga.stuck.reason == "EVENT_NOT_STORABLE"

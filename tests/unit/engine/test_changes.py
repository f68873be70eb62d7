"""Who waits for a change hears of it; what other instances write is looked for once for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from coordinator.core.model import SagaState
from coordinator.engine.changes import Changes, ChangesElsewhere
from coordinator.journal.base import JournalBusy, JournalUnavailable
from coordinator.journal.memory import MemoryJournal, MemoryStore
from tests.unit.engine.world import World, now, settle


class Looked(MemoryJournal):
    """A journal that counts looks, and says of the sagas what the test has put there."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(lambda: 0))
        self.looks: list[Sequence[str]] = []
        self.newest: dict[str, int] = {}
        self.refusal: JournalUnavailable | None = None

    async def revisions(self, saga_ids: Sequence[str]) -> Mapping[str, int]:
        self.looks.append(saga_ids)
        if self.refusal is not None:
            raise self.refusal
        return {name: self.newest[name] for name in saga_ids if name in self.newest}


@pytest.fixture
def journal() -> Looked:
    return Looked()


@pytest.fixture
async def changes(journal: Looked) -> AsyncIterator[Changes]:
    changes = Changes(lambda saga_id: 7 if saga_id == "here" else 0)
    looking = asyncio.create_task(ChangesElsewhere(journal, changes).run())
    yield changes
    looking.cancel()


def waiting(changes: Changes, saga_id: str, known: int) -> asyncio.Task[None]:
    return asyncio.create_task(changes.wait(saga_id, known))


async def test_while_nobody_waits_nobody_looks(journal: Looked, changes: Changes) -> None:
    await asyncio.sleep(60)
    assert journal.looks == []
    waiter = waiting(changes, "s1", 1)
    await asyncio.sleep(2)
    waiter.cancel()
    looks = len(journal.looks)
    await asyncio.sleep(60)
    assert 3 <= looks <= 4
    assert len(journal.looks) <= looks + 1


async def test_one_look_is_for_everybody_and_wakes_those_whose_saga_changed(
    journal: Looked, changes: Changes
) -> None:
    waiters = {f"s{number}": waiting(changes, f"s{number}", 1) for number in range(1_000)}
    await asyncio.sleep(10.1)
    assert len(journal.looks) == 20
    assert all(len(asked) == 1_000 for asked in journal.looks)
    journal.newest = {"s7": 2, "s8": 1}
    async with asyncio.timeout(0.5):
        await waiters.pop("s7")
    assert not any(waiter.done() for waiter in waiters.values())


async def test_what_changed_before_somebody_waits_is_not_missed(changes: Changes) -> None:
    changes.remember("s1", 5)
    async with asyncio.timeout(0.1):
        await changes.wait("s1", 4)
        await changes.wait("here", 6)
    waiters = [waiting(changes, "s1", 5), waiting(changes, "here", 7)]
    await asyncio.sleep(10)
    assert not any(waiter.done() for waiter in waiters)


async def test_of_those_that_ended_the_last_are_remembered(changes: Changes) -> None:
    for number in range(20_000):
        changes.remember(f"s{number}", 5)
    await changes.wait("s10000", 4)
    forgotten = waiting(changes, "s9999", 4)
    await asyncio.sleep(10)
    assert not forgotten.done()


async def test_an_old_answer_wakes_nobody(changes: Changes) -> None:
    waiter = waiting(changes, "s1", 5)
    await asyncio.sleep(0)
    changes.notify("s1", 5)
    await asyncio.sleep(1)
    assert not waiter.done()
    changes.notify("s1", 6)
    await waiter


async def test_more_sagas_than_a_question_may_be_about_are_looked_at_in_parts(
    journal: Looked, changes: Changes
) -> None:
    waiters = [waiting(changes, f"s{number}", 1) for number in range(10_001)]
    journal.newest = {"s10000": 2}
    await waiters[-1]
    assert [len(asked) for asked in journal.looks] == [10_000, 1]


async def test_who_waits_is_told_when_the_journal_goes_away(
    journal: Looked, changes: Changes
) -> None:
    waiters = [waiting(changes, "s1", 1), waiting(changes, "s2", 1)]
    journal.refusal = JournalUnavailable("away")
    for waiter in waiters:
        with pytest.raises(JournalUnavailable):
            await waiter
    journal.refusal, journal.newest = None, {"s1": 2}
    await changes.wait("s1", 1)


async def test_who_waits_goes_on_waiting_while_the_journal_is_busy(
    journal: Looked, changes: Changes
) -> None:
    waiter = waiting(changes, "s1", 1)
    journal.refusal = JournalBusy("busy")
    await asyncio.sleep(5)
    assert not waiter.done()
    journal.refusal, journal.newest = None, {"s1": 2}
    async with asyncio.timeout(0.6):
        await waiter


# --- at the engine -------------------------------------------------------------------


async def test_who_waits_for_a_change_hears_of_it(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    waiting = asyncio.create_task(one.engine.wait_for_change("saga-1", 1, 60))
    await settle()
    assert not waiting.done()
    await one.answer("DO a 1")
    await waiting
    assert (await world.saga()).revision == 2
    assert now() < 1


async def test_a_change_before_the_waiting_is_not_missed(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED)
    await one.engine.wait_for_change("saga-1", 1, 60)
    assert now() < 1


async def test_who_waits_in_vain_is_let_go_after_the_timeout(world: World) -> None:
    one = await world.coordinator()
    before = now()
    await one.engine.wait_for_change("saga-1", 0, 2)
    assert now() - before == pytest.approx(2)

"""What the fake adds to the contract: accidents at the moment a test wants them."""

from __future__ import annotations

import asyncio

from coordinator.journal.base import AppendError, Lease, LeaseLost
from coordinator.journal.memory import MemoryJournal, MemoryStore
from tests.contract.journal.harness import LONG, Instance, begun


async def _instance(store: MemoryStore) -> Instance:
    journal = MemoryJournal(store)
    return Instance(journal, journal, await journal.acquire_lease("mine", LONG))


async def _pass_the_turn() -> None:
    """Let everything that is ready on the loop happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_group_commit_that_is_held_ends_when_it_is_let_go() -> None:
    mine = await _instance(MemoryStore(lambda: 0))
    journal = mine.journal
    assert isinstance(journal, MemoryJournal)
    journal.hold()
    told = mine.queue(begun("s1").append)
    await _pass_the_turn()
    assert not told.done()
    assert journal.available
    assert await journal.load("s1") is None
    journal.let_go()
    assert await told is None
    assert await journal.load("s1") is not None


async def test_an_append_queued_under_a_former_lease_is_lost() -> None:
    mine = await _instance(MemoryStore(lambda: 0))
    assert isinstance(mine.journal, MemoryJournal)
    mine.journal.hold()
    told = mine.queue(begun("s1").append)
    await mine.journal.acquire_lease("mine", LONG)
    mine.journal.let_go()
    assert isinstance(await told, LeaseLost)


async def test_an_append_without_any_lease_is_lost() -> None:
    journal = MemoryJournal(MemoryStore(lambda: 0))
    told: asyncio.Future[AppendError | None] = asyncio.get_running_loop().create_future()
    journal.append(begun("s1").append, told.set_result)
    assert isinstance(await told, LeaseLost)


async def test_leases_follow_the_clock_they_are_given() -> None:
    now = [1_000]
    store = MemoryStore(lambda: now[0])
    lease = await MemoryJournal(store).acquire_lease("mine", 500)
    assert lease == Lease("mine", 1, 1_000, 1_500)
    now[0] = 1_499
    assert store.holds(lease)
    now[0] = 1_500
    assert not store.holds(lease)

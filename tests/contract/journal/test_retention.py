"""The contract of `Retention`."""

from __future__ import annotations

import asyncio

from tests.contract.journal.harness import START_MS, Instance, begun, finished, ids
from tests.contract.journal.test_inbox import verb
from tests.contract.journal.test_reader import listed

DAY_MS = 86_400_000


async def ended(instance: Instance, saga_id: str, days_ago: float) -> None:
    """A saga that completed so long ago by the store's clock."""
    now = instance.lease.now_ms
    await instance.tell(*finished(saga_id, at_ms=int(now - days_ago * DAY_MS) - 2))


async def purge(instance: Instance, days: float, limit: int = 100) -> int:
    return await instance.journal.purge(finished_for_ms=int(days * DAY_MS), limit=limit)


async def test_what_ended_long_ago_is_deleted_oldest_first_in_batches(mine: Instance) -> None:
    for saga_id, days_ago in (("b", 32), ("a", 33), ("c", 31), ("young", 29)):
        await ended(mine, saga_id, days_ago)
    assert await purge(mine, 30, limit=2) == 2
    assert ids(await listed(mine)) == ["young", "c"]
    assert await purge(mine, 30, limit=2) == 1
    assert await purge(mine, 30, limit=2) == 0
    assert ids(await listed(mine)) == ["young"]
    assert await mine.journal.load("a") is None
    assert await mine.journal.entries("a", 0, 10) == []


async def test_an_unfinished_saga_is_never_deleted_however_old(mine: Instance) -> None:
    await mine.tell(begun("old", at_ms=1_000).append)
    assert await purge(mine, 0) == 0
    assert await mine.journal.load("old") is not None


async def test_the_verbs_of_a_deleted_saga_go_with_it(mine: Instance) -> None:
    await ended(mine, "s1", 31)
    await ended(mine, "s2", 29)
    for posted in (verb("v1"), verb("v2", "s2")):
        await mine.journal.post_verb(posted)
    await mine.journal.refuse_verb("v2", "no")
    assert await purge(mine, 30) == 1
    assert await mine.journal.verb_outcome("v1") is None
    assert await mine.journal.verb_outcome("v2") is not None
    assert await mine.journal.pending_verbs(mine.lease) == []


async def test_an_id_may_be_used_again_when_its_saga_is_deleted(
    mine: Instance, other: Instance
) -> None:
    await ended(mine, "s1", 31)
    assert await purge(mine, 30) == 1
    await other.tell(*finished("s1", at_ms=START_MS))
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert (stored.created_ms, stored.revision) == (START_MS, 3)


async def test_instances_that_purge_at_once_count_each_saga_once(
    mine: Instance, other: Instance
) -> None:
    for number in range(20):
        await ended(mine, f"s{number}", 31)
    purged = 0
    while await listed(mine):
        purged += sum(await asyncio.gather(*(purge(one, 30, 3) for one in (mine, other))))
    assert purged == 20

"""Parking and posting a verb at the same moment, in two real transactions."""

from __future__ import annotations

import asyncio

from coordinator.journal.base import Parking
from tests.contract.journal.harness import Instance, begun, claim
from tests.contract.journal.test_inbox import verb
from tests.integration.journal.conftest import Database

HOUR = 3_600_000


async def test_a_verb_never_waits_for_a_saga_that_was_parked_meanwhile(
    database: Database, mine: Instance
) -> None:
    other = await database.rig.join("other")
    names = [f"s{number}" for number in range(40)]
    await mine.tell(*(begun(name).append for name in names))
    until_ms = mine.lease.now_ms + HOUR

    async def park(name: str) -> frozenset[str]:
        return await mine.journal.park(mine.lease, [Parking(name, 1, until_ms)])

    async def race(name: str) -> frozenset[str]:
        parked, _ = await asyncio.gather(park(name), other.journal.post_verb(verb(name, name)))
        return parked

    parked: set[str] = set()
    for name in names:
        parked |= await race(name)
    assert set(await claim(other, 100)) == parked
    decidable = [
        shown.saga_id
        for instance in (mine, other)
        for shown in await instance.journal.pending_verbs(instance.lease)
    ]
    assert sorted(decidable) == sorted(names)

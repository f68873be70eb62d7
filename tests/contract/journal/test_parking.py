"""The contract's part "Parking"."""

from __future__ import annotations

import pytest

from coordinator.core.events import StepDone
from coordinator.journal.base import JournalUnavailable, Parking
from tests.contract.journal.harness import LONG, Instance, Rig, begun, claim, finished
from tests.contract.journal.test_inbox import verb

HOUR = 3_600_000


async def park(mine: Instance, *saga_ids: str, in_ms: int = HOUR, revision: int = 1) -> list[str]:
    """Park sagas until so long after the lease was acquired; the ids of those that are."""
    until_ms = mine.lease.now_ms + in_ms
    parkings = [Parking(saga_id, revision, until_ms) for saga_id in saga_ids]
    return sorted(await mine.journal.park(mine.lease, parkings))


async def test_a_parked_saga_is_nobodys_and_not_claimed_before_its_time(
    mine: Instance, other: Instance
) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    assert await park(mine, "s1") == ["s1"]
    assert await mine.journal.reload(mine.lease, "s1") is None
    assert await mine.journal.reload(mine.lease, "s2") is not None
    assert await claim(mine) == await claim(other) == []


async def test_a_parked_saga_is_claimed_by_whoever_comes_once_its_time_has_come(
    mine: Instance, other: Instance
) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    assert await park(mine, "s1", "s2", in_ms=-1) == ["s1", "s2"]
    assert await claim(other, 1) == ["s1"]
    assert await claim(mine) == ["s2"]
    assert await claim(other) == []


async def test_a_saga_that_woke_is_written_and_parked_again(mine: Instance) -> None:
    told = begun("s1")
    await mine.tell(told.append)
    await park(mine, "s1", in_ms=-1)
    await claim(mine)
    await mine.tell(told.done("a"))
    assert await park(mine, "s1", revision=2) == ["s1"]
    assert await claim(mine) == []


async def test_where_a_parked_saga_is_and_until_when_can_be_asked(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    before = (await mine.journal.standings(["s1"]))["s1"]
    assert (before.owner, before.parked_until_ms) == ("mine", 0)
    await park(mine, "s1")
    parked = (await mine.journal.standings(["s1"]))["s1"]
    assert (parked.owner, parked.parked_until_ms) == ("", mine.lease.now_ms + HOUR)
    assert (await mine.journal.load("s1")) is not None


async def test_a_parked_saga_waits_also_when_who_parked_it_dies(mine: Instance, rig: Rig) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    await park(mine, "s1")
    heir = await rig.join("heir")
    await rig.expire(mine.lease)
    assert await claim(heir) == ["s2"]


async def test_a_saga_with_an_undecided_verb_is_not_parked(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.post_verb(verb("v1"))
    assert await park(mine, "s1") == []
    await mine.journal.refuse_verb("v1", "no")
    assert await park(mine, "s1") == ["s1"]


async def test_a_verb_wakes_a_parked_saga(mine: Instance, other: Instance) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    await park(mine, "s1", "s2")
    await other.journal.post_verb(verb("v1"))
    assert await mine.journal.pending_verbs(mine.lease) == []
    assert await claim(mine) == ["s1"]
    assert await mine.journal.pending_verbs(mine.lease) == [verb("v1")]


async def test_the_same_verb_again_does_not_wake_what_it_was_decided_for(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.post_verb(verb("v1"))
    await mine.journal.refuse_verb("v1", "no")
    await park(mine, "s1")
    await mine.journal.post_verb(verb("v1"))
    assert await claim(mine) == []


async def test_only_an_unfinished_saga_of_the_lease_at_its_newest_revision_is_parked(
    mine: Instance, other: Instance
) -> None:
    told = begun("s1")
    await mine.tell(told.append, told.done("a"), *finished("s2"))
    await other.tell(begun("s3").append)
    assert await park(mine, "s1", "s3", "nobody") == []
    assert await park(mine, "s2", revision=3) == []
    assert await park(mine) == []
    former = mine.lease
    renewed = Instance(mine.journal, mine.link, await mine.journal.acquire_lease("mine", LONG))
    assert await claim(renewed) == ["s1"]
    assert await mine.journal.park(former, [Parking("s1", 2, former.now_ms)]) == frozenset()


async def test_an_event_of_who_parked_it_is_no_conflict_and_leaves_it_parked(
    mine: Instance,
) -> None:
    """An owner that goes on although it has parked is harmless: the next one finds its event."""
    told = begun("s1")
    await mine.tell(told.append)
    await park(mine, "s1")
    done = told.done("a")
    await mine.tell(done)
    assert await claim(mine) == []
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert isinstance(stored.entries[-1].event, StepDone)


async def test_parking_acquits(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    reborn = await mine.journal.acquire_lease("mine", LONG)
    (suspect,) = (await mine.journal.claim(reborn, 10)).sagas
    assert suspect.claims == 1
    await mine.journal.park(reborn, [Parking("s1", 1, reborn.now_ms - 1)])
    (woken,) = (await mine.journal.claim(reborn, 10)).sagas
    assert woken.claims == 1


async def test_nothing_is_parked_while_the_store_is_away(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    mine.link.cut()
    with pytest.raises(JournalUnavailable):
        await park(mine, "s1")
    mine.link.mend()
    await mine.journal.renew_lease(mine.lease, LONG)
    assert (await mine.journal.standings(["s1"]))["s1"].owner == "mine"

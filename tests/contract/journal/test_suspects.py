"""The contract's part on sagas that may kill whoever runs them."""

from __future__ import annotations

import pytest

from coordinator.core.events import Stuck
from coordinator.journal import claims, memory_store
from coordinator.journal.base import Claimed, Entry, StoredSaga
from coordinator.journal.codec import Row
from tests.builders import failure
from tests.contract.journal.harness import (
    LONG,
    START_MS,
    Instance,
    Rig,
    Told,
    begun,
    claim,
    finished,
    ids,
)


async def die_and_claim(mine: Instance, limit: int = 100) -> list[StoredSaga]:
    """The owner dies, comes back and claims once."""
    lease = await mine.journal.acquire_lease(mine.lease.instance_id, LONG)
    return list((await mine.journal.claim(lease, limit)).sagas)


async def die_and_claim_all(mine: Instance) -> list[list[str]]:
    """The owner dies, comes back and claims until there is nothing left: the batches."""
    lease = await mine.journal.acquire_lease("mine", LONG)
    batches = []
    while claimed := (await mine.journal.claim(lease, 100)).sagas:
        batches.append(ids(claimed))
    return batches


def stuck(told: Told) -> Told:
    happened = Stuck(time_ms=START_MS + 1, failure=failure(reason="POISON"))
    told.happens(happened)
    return told


async def test_claims_are_counted_until_the_saga_makes_progress(mine: Instance) -> None:
    first, second, _ = finished("s1")
    await mine.tell(first)
    assert [(await die_and_claim(mine))[0].claims for _ in range(4)] == [1, 2, 3, 4]
    await mine.tell(second)
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert stored.claims == 0
    assert [(await die_and_claim(mine))[0].claims for _ in range(2)] == [1, 2]


async def test_an_append_that_is_not_written_is_no_progress(mine: Instance) -> None:
    told, otherwise = begun("s1"), begun("s1")
    await mine.tell(told.append, told.done("a"))
    await die_and_claim(mine)
    await mine.write(otherwise.failed("a"))
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert stored.claims == 1


async def test_the_least_suspected_are_claimed_first_and_suspects_in_ever_smaller_company(
    mine: Instance,
) -> None:
    old, new = [f"old-{n:02}" for n in range(12)], [f"new-{n:02}" for n in range(12)]
    await mine.write(*(begun(name, at_ms=1_000 + at).append for at, name in enumerate(old)))
    assert await die_and_claim_all(mine) == [old]
    await mine.write(*(begun(name, at_ms=5_000 + at).append for at, name in enumerate(new)))
    assert await die_and_claim_all(mine) == [new, old[:10], old[10:]]
    assert await die_and_claim_all(mine) == [new[:10], new[10:], *([name] for name in old)]


async def test_suspects_are_claimed_before_worse_ones_whatever_their_age(mine: Instance) -> None:
    await mine.tell(begun("guilty", at_ms=1_000).append)
    for _ in range(3):
        await die_and_claim(mine)
    await mine.tell(begun("innocent", at_ms=2_000).append)
    assert await die_and_claim_all(mine) == [["innocent"], ["guilty"]]


async def test_a_saga_that_was_acquitted_is_suspected_no_more(mine: Instance) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    lease = await mine.journal.acquire_lease("mine", LONG)
    await mine.journal.claim(lease, 10)
    await mine.journal.acquit(lease, ["s1", "nobody"])
    await mine.journal.acquit(lease, [])
    assert {saga.saga_id: saga.claims for saga in await die_and_claim(mine)} == {"s1": 1}
    assert {saga.saga_id: saga.claims for saga in await die_and_claim(mine)} == {"s1": 2, "s2": 2}


async def test_only_the_owner_acquits(mine: Instance, other: Instance) -> None:
    await mine.tell(begun("s1").append)
    lease = await mine.journal.acquire_lease("mine", LONG)
    await mine.journal.claim(lease, 10)
    await other.journal.acquit(other.lease, ["s1"])
    assert (await die_and_claim(mine))[0].claims == 2
    await mine.journal.acquit(lease, ["s1"])  # it was ours, under a former lease
    assert (await die_and_claim(mine))[0].claims == 3


async def test_a_stuck_saga_is_claimed_and_never_suspected(mine: Instance) -> None:
    told = begun("stuck")
    await mine.tell(told.append)
    await die_and_claim(mine)
    await mine.tell(stuck(told).append)
    for _ in range(4):
        (claimed,) = await die_and_claim(mine)
        assert (claimed.saga_id, claimed.claims) == ("stuck", 0)
        assert not claimed.entries  # there is nothing to run: its history is not read


class Death(BaseException):
    """Of the process, as far as it can be played in a test."""


async def test_a_claim_counts_also_when_reading_the_history_kills(
    mine: Instance, other: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(row: Row) -> Entry:
        raise Death

    await mine.tell(begun("s1").append, begun("s2").append)
    await mine.journal.release_lease(mine.lease)
    with monkeypatch.context() as deadly:
        for reader in (claims, memory_store):
            deadly.setattr(reader, "decode", die)
        with pytest.raises(Death):
            await other.journal.claim(other.lease, 10)
    claimed = await die_and_claim(other)
    assert {saga.saga_id: saga.claims for saga in claimed} == {"s1": 2, "s2": 2}


async def test_a_history_that_cannot_be_read_is_no_more_suspected_than_before(
    rig: Rig, mine: Instance, other: Instance
) -> None:
    await mine.tell(begun("s1").append)
    await die_and_claim(mine)
    await rig.damage("s1")
    await rig.expire(await mine.journal.acquire_lease("mine", LONG))
    for _ in range(3):
        claimed = await other.journal.claim(other.lease, 10)
        assert claimed == Claimed(sagas=[], unreadable=frozenset({"s1"}))
    (listed,) = await mine.journal.list_sagas(
        definition="", states=frozenset(), keys={}, before=None, limit=10
    )
    assert listed.claims == 1


async def test_sagas_that_are_passed_over_are_left_to_others(
    mine: Instance, other: Instance
) -> None:
    for number in range(5):
        await mine.tell(begun(f"s{number}", at_ms=1_000 + number).append)
    await mine.journal.release_lease(mine.lease)
    assert await claim(other, 2, passing_over={"s0", "s2"}) == ["s1", "s3"]
    assert await claim(other, passing_over={"s0", "s2", "s4"}) == []
    assert await claim(other) == ["s0", "s2", "s4"]


async def test_a_history_that_cannot_be_read_is_named_and_left_to_others(
    rig: Rig, mine: Instance, other: Instance
) -> None:
    for number in range(3):
        await mine.tell(begun(f"s{number}", at_ms=1_000 + number).append)
    await rig.damage("s1")
    await mine.journal.release_lease(mine.lease)
    claimed = await other.journal.claim(other.lease, 10)
    assert ids(claimed.sagas) == ["s0", "s2"]
    assert claimed.unreadable == frozenset({"s1"})
    again = await other.journal.claim(other.lease, 10)
    assert again == Claimed(sagas=[], unreadable=frozenset({"s1"}))
    nothing = await other.journal.claim(other.lease, 10, passing_over=again.unreadable)
    assert nothing == Claimed(sagas=[])


async def test_many_unreadable_histories_hide_nobody_behind_them(
    rig: Rig, mine: Instance, other: Instance
) -> None:
    names = [f"s{number:03}" for number in range(250)]
    await mine.write(*(begun(name, at_ms=1_000 + at).append for at, name in enumerate(names)))
    await mine.tell(begun("last", at_ms=5_000).append)
    await rig.damage(*names)
    await mine.journal.release_lease(mine.lease)
    passed: frozenset[str] = frozenset()
    while not (claimed := await other.journal.claim(other.lease, 100, passing_over=passed)).sagas:
        assert claimed.unreadable
        passed |= claimed.unreadable
    assert ids(claimed.sagas) == ["last"]
    assert passed | claimed.unreadable == set(names)

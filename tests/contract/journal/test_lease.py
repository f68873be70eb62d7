"""The contract's part "Lease"."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.journal.base import InstanceIdInUse, LeaseLost
from tests.contract.journal.harness import LONG, Instance, Rig, begun, claim, finished, ids


async def test_nothing_is_written_without_a_lease(rig: Rig, mine: Instance) -> None:
    await mine.journal.release_lease(mine.lease)
    (error,) = await mine.write(begun("s1").append)
    assert isinstance(error, LeaseLost)
    assert await mine.journal.load("s1") is None


async def test_nothing_is_written_under_an_expired_lease(rig: Rig, mine: Instance) -> None:
    first, second, _ = finished("s1")
    await mine.tell(first)
    await rig.expire(mine.lease)
    for error in await mine.write(second, begun("s2").append):
        assert isinstance(error, LeaseLost)
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert stored.revision == 1
    assert await mine.journal.load("s2") is None


async def test_a_new_lease_of_the_same_instance_ends_the_one_before(
    rig: Rig, mine: Instance
) -> None:
    successor = await rig.join("mine")
    assert successor.lease.epoch > mine.lease.epoch
    (error,) = await mine.write(begun("s1").append)
    assert isinstance(error, LeaseLost)
    await successor.tell(begun("s1").append)
    with pytest.raises(LeaseLost):
        await mine.journal.renew_lease(mine.lease, LONG)


async def test_who_was_fenced_by_another_that_is_alive_leaves_the_id_to_it(
    rig: Rig, mine: Instance
) -> None:
    successor = await rig.join("mine")
    with pytest.raises(InstanceIdInUse):
        await mine.journal.acquire_lease("mine", LONG, after=mine.lease)
    await successor.tell(begun("s1").append)
    await rig.expire(successor.lease)
    again = await mine.journal.acquire_lease("mine", LONG, after=mine.lease)
    assert again.epoch > successor.lease.epoch
    await mine.tell(begun("s2").append)


async def test_whoever_stands_in_the_way_of_its_own_next_lease_is_no_other(
    rig: Rig, mine: Instance, other: Instance
) -> None:
    again = await mine.journal.acquire_lease("mine", LONG, after=mine.lease)
    await rig.expire(again)
    await claim(other)  # ends it
    await mine.journal.acquire_lease("mine", LONG, after=again)
    await mine.tell(begun("s1").append)


async def test_every_lease_has_a_higher_epoch_also_after_a_release(mine: Instance) -> None:
    await mine.journal.release_lease(mine.lease)
    again = await mine.journal.acquire_lease("mine", LONG)
    assert again.epoch > mine.lease.epoch
    await mine.tell(begun("s1").append)


async def test_a_lease_lasts_as_long_as_was_asked_by_the_clock_of_the_store(mine: Instance) -> None:
    renewed = await mine.journal.renew_lease(mine.lease, 2 * LONG)
    assert (renewed.instance_id, renewed.epoch) == ("mine", mine.lease.epoch)
    assert renewed.now_ms >= mine.lease.now_ms
    for lease, length in ((mine.lease, LONG), (renewed, 2 * LONG)):
        assert length - 1_000 <= lease.expires_ms - lease.now_ms <= length


async def test_an_expired_lease_cannot_be_renewed(rig: Rig, mine: Instance) -> None:
    await rig.expire(mine.lease)
    with pytest.raises(LeaseLost):
        await mine.journal.renew_lease(mine.lease, LONG)


async def test_releasing_a_lost_lease_leaves_its_successor_alone(rig: Rig, mine: Instance) -> None:
    successor = await rig.join("mine")
    await mine.journal.release_lease(mine.lease)
    await successor.tell(begun("s1").append)


async def test_a_released_instances_sagas_are_claimed_at_once(
    mine: Instance, other: Instance
) -> None:
    appends = finished("s1", order_id="o1")
    await mine.tell(*appends[:-1])
    await mine.journal.release_lease(mine.lease)
    (claimed,) = (await other.journal.claim(other.lease, 10)).sagas
    assert claimed == await other.journal.load("s1")
    assert [entry.event for entry in claimed.entries] == [a.event for a in appends[:-1]]
    await other.tell(appends[-1])


async def test_the_sagas_of_a_live_instance_are_not_claimed(
    mine: Instance, other: Instance
) -> None:
    await mine.tell(begun("s1").append)
    assert await claim(other) == []
    assert await claim(mine) == []


async def test_a_dead_instances_sagas_are_claimed_and_it_can_write_no_more(
    rig: Rig, mine: Instance, other: Instance
) -> None:
    first, second, _ = finished("s1")
    await mine.tell(first)
    await rig.expire(mine.lease)
    assert await claim(other) == ["s1"]
    (error,) = await mine.write(second)
    assert isinstance(error, LeaseLost)
    await other.tell(second)


async def test_an_instance_claims_what_it_owned_under_its_former_lease(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    again = await mine.journal.acquire_lease("mine", LONG)
    assert await mine.journal.reload(again, "s1") is None
    assert ids((await mine.journal.claim(again, 10)).sagas) == ["s1"]
    assert await mine.journal.reload(again, "s1") is not None


async def test_unfinished_sagas_are_claimed_oldest_first_up_to_the_limit(
    mine: Instance, other: Instance
) -> None:
    await mine.tell(*finished("done", at_ms=1))
    for saga_id, at_ms in (("c", 30), ("b", 20), ("a", 20), ("d", 10)):
        await mine.tell(begun(saga_id, at_ms=at_ms).append)
    await mine.journal.release_lease(mine.lease)
    assert await claim(other, 3) == ["d", "a", "b"]
    assert await claim(other, 3) == ["c"]
    assert await claim(other, 3) == []


async def test_who_holds_no_lease_claims_nothing(rig: Rig, mine: Instance, other: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.release_lease(mine.lease)
    await rig.expire(other.lease)
    with pytest.raises(LeaseLost):
        await other.journal.claim(other.lease, 10)


async def test_instances_that_claim_at_once_never_share_a_saga(rig: Rig, mine: Instance) -> None:
    await mine.write(*(begun(f"s{number:02}").append for number in range(60)))
    heirs = await asyncio.gather(*(rig.join(f"heir-{number}") for number in range(4)))
    await mine.journal.release_lease(mine.lease)
    claimed: list[str] = []

    async def claim_all(heir: Instance) -> None:
        while sagas := await claim(heir, 7):
            claimed.extend(sagas)

    await asyncio.gather(*map(claim_all, heirs))
    assert sorted(claimed) == [f"s{number:02}" for number in range(60)]


async def test_only_unfinished_sagas_of_this_lease_are_reloaded(
    mine: Instance, other: Instance
) -> None:
    await mine.tell(begun("s1").append, *finished("s2"))
    assert await mine.journal.reload(mine.lease, "s1") == await other.journal.load("s1")
    assert await mine.journal.reload(mine.lease, "s2") is None
    assert await mine.journal.reload(mine.lease, "s3") is None
    assert await other.journal.reload(other.lease, "s1") is None

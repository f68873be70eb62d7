"""The contract's part "Append"."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from coordinator.core.events import Started
from coordinator.core.model import SagaState
from coordinator.journal.base import AppendError, LeaseLost, RevisionConflict, Unwritable
from tests.contract.journal.harness import Instance, Rig, begun, claim, finished, poisoned


async def test_an_append_is_on_disk_when_its_caller_hears_so(
    mine: Instance, other: Instance
) -> None:
    told = begun("s1", order_id="o1")
    assert await mine.write(told.append) == [None]
    stored = await other.journal.load("s1")
    assert stored is not None
    assert [(e.revision, e.event, e.commands) for e in stored.entries] == [
        (1, told.event, told.decision.commands)
    ]
    assert (stored.state, stored.keys, stored.revision) == (
        SagaState.RUNNING,
        {"order_id": "o1"},
        1,
    )
    assert (stored.definition, stored.definition_hash) == ("story", "story-1")


async def test_the_state_of_a_saga_is_that_of_its_newest_event(mine: Instance) -> None:
    appends = finished("s1")
    await mine.tell(*appends[:-1])
    before = await mine.journal.load("s1")
    await mine.tell(appends[-1])
    after = await mine.journal.load("s1")
    assert before is not None
    assert after is not None
    created_ms, finished_ms = appends[0].event.time_ms, appends[-1].event.time_ms
    assert (before.state, before.created_ms, before.updated_ms, before.revision) == (
        SagaState.RUNNING,
        created_ms,
        created_ms,
        2,
    )
    assert (after.state, after.created_ms, after.updated_ms, after.revision) == (
        SagaState.COMPLETED,
        created_ms,
        finished_ms,
        3,
    )
    assert [entry.event for entry in after.entries] == [append.event for append in appends]


async def test_a_group_of_many_sagas_is_written(mine: Instance) -> None:
    sagas = [finished(f"s{number}") for number in range(300)]
    for group in zip(*sagas, strict=True):
        assert await mine.write(*group) == [None] * 300
    for number in (0, 299):
        stored = await mine.journal.load(f"s{number}")
        assert stored is not None
        assert stored.state is SagaState.COMPLETED


async def test_a_caller_that_raises_when_told_takes_nothing_from_its_neighbours(
    mine: Instance,
) -> None:
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context.get("exception")))
    gone = RuntimeError("its caller has gone")

    def raises(_: AppendError | None) -> None:
        raise gone

    first = mine.queue(begun("s1").append)
    mine.journal.append(begun("s2").append, raises)
    last = mine.queue(begun("s3").append)
    assert list(await asyncio.gather(first, last)) == [None, None]
    assert complaints == [gone]
    loop.set_exception_handler(None)


async def test_writing_the_same_event_again_is_success(mine: Instance) -> None:
    first, second, _ = finished("s1")
    await mine.tell(first, first, second, second, first)
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert stored.revision == 2


async def test_another_event_at_the_same_revision_is_a_conflict(mine: Instance) -> None:
    told, otherwise = begun("s1"), begun("s1")
    await mine.tell(told.append, told.done("a"))
    (error,) = await mine.write(otherwise.failed("a"))
    assert isinstance(error, RevisionConflict)
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert stored.entries[-1].event == told.event


async def test_a_conflict_changes_neither_the_saga_nor_its_neighbours(mine: Instance) -> None:
    appends = finished("s1")
    await mine.tell(*appends[:-1])
    late = replace(appends[-1], saga=replace(appends[-1].saga, revision=2))
    first, error, last = await mine.write(begun("s0").append, late, begun("s2").append)
    assert (first, last) == (None, None)
    assert isinstance(error, RevisionConflict)
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert (stored.state, stored.revision) == (SagaState.RUNNING, 2)


async def test_an_event_that_leaves_a_gap_is_a_conflict(mine: Instance) -> None:
    first, _, third = finished("s1")
    await mine.tell(first)
    for append in (third, finished("never-started")[1]):
        (error,) = await mine.write(append)
        assert isinstance(error, RevisionConflict)
    assert await mine.journal.load("never-started") is None


async def test_a_saga_that_another_lease_started_is_a_conflict(
    mine: Instance, other: Instance
) -> None:
    await other.tell(begun("s1").append)
    for append in (begun("s1").append, begun("s1", at_ms=5).append):
        (error,) = await mine.write(append)
        assert isinstance(error, RevisionConflict)
    assert await mine.journal.reload(mine.lease, "s1") is None


async def test_of_two_instances_that_start_the_same_sagas_at_once_one_starts_each(
    mine: Instance, other: Instance
) -> None:
    appends = [begun(f"s{number}").append for number in range(50)]
    ours, theirs = await asyncio.gather(mine.write(*appends), other.write(*reversed(appends)))
    for here, there in zip(ours, reversed(theirs), strict=True):
        assert {type(here), type(there)} == {type(None), RevisionConflict}


async def test_an_event_that_cannot_be_stored_takes_nothing_from_its_neighbours(
    mine: Instance,
) -> None:
    append = begun("s2").append
    first, error, last = await mine.write(begun("s1").append, poisoned(append), append)
    assert (first, last) == (None, None)
    assert isinstance(error, Unwritable)


async def test_keys_and_messages_written_by_others_are_cleaned_and_stored(mine: Instance) -> None:
    told = begun("s1", note="a\0b\ud800")
    await mine.tell(told.append)
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert stored.keys == {"note": "a\N{REPLACEMENT CHARACTER}b?"}
    assert isinstance(stored.entries[0].event, Started)
    assert stored.entries[0].event.keys == stored.keys


async def test_appends_wait_in_order_while_the_store_is_away(
    mine: Instance, other: Instance
) -> None:
    assert mine.journal.available
    mine.link.cut()
    first = mine.queue(begun("s1").append)
    while mine.journal.available:
        await asyncio.sleep(0)
    second = mine.queue(begun("s2").append)
    assert await other.journal.load("s1") is None
    order: list[int] = []
    first.add_done_callback(lambda _: order.append(1))
    second.add_done_callback(lambda _: order.append(2))
    mine.link.mend()
    assert list(await asyncio.gather(first, second)) == [None, None]
    assert order == [1, 2]
    assert mine.journal.available


async def test_a_commit_whose_answer_was_lost_is_found_written(mine: Instance) -> None:
    first, second, third = finished("s1")
    await mine.tell(first)
    mine.link.lose_next_answer()
    told = mine.queue(second)
    while mine.journal.available:
        await asyncio.sleep(0)
    assert not told.done()
    mine.link.mend()
    assert await told is None
    await mine.tell(third)
    stored = await mine.journal.load("s1")
    assert stored is not None
    assert [entry.event for entry in stored.entries] == [first.event, second.event, third.event]


async def test_a_caller_is_told_once_whatever_happens_on_the_way(mine: Instance) -> None:
    answers: list[AppendError | None] = []
    mine.link.lose_next_answer()
    mine.journal.append(begun("s1").append, answers.append)
    while mine.journal.available:
        await asyncio.sleep(0)
    assert answers == []
    mine.link.mend()
    await mine.tell(begun("s2").append, begun("s3").append)
    assert answers == [None]


async def test_a_lost_answer_is_told_as_it_is_even_when_the_lease_is_gone_by_then(
    rig: Rig, mine: Instance, other: Instance
) -> None:
    first, second, _ = finished("s1")
    await mine.tell(first)
    mine.link.lose_next_answer()
    written = mine.queue(second)
    while mine.journal.available:
        await asyncio.sleep(0)
    never_sent = mine.queue(begun("s2").append)
    await rig.expire(mine.lease)
    assert await claim(other) == ["s1"]
    mine.link.mend()
    assert await written is None
    assert isinstance(await never_sent, LeaseLost)
    assert await other.journal.load("s2") is None


async def test_appends_that_the_store_never_saw_are_lost_with_their_lease(
    rig: Rig, mine: Instance, other: Instance
) -> None:
    mine.link.cut()
    told = mine.queue(begun("s1").append)
    while mine.journal.available:
        await asyncio.sleep(0)
    await rig.expire(mine.lease)
    mine.link.mend()
    assert isinstance(await told, LeaseLost)
    assert await other.journal.load("s1") is None

"""Verbs: a saga's owner decides each once; one bound to a revision by compare-and-set."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.events import Aborted
from coordinator.core.model import SagaState
from coordinator.journal.verbs import VerbKind, VerbState
from coordinator.participants.base import Done
from tests.unit.engine.test_halts import MISCONFIGURED, patient
from tests.unit.engine.world import World, failed, now, settle, stuck


async def test_a_verb_bound_to_the_present_revision_is_accepted(world: World) -> None:
    one = await world.coordinator()
    await stuck(world, one)
    revision = (await world.saga()).revision
    outcome = await world.verb(one, VerbKind.RETRY, revision=revision)
    assert outcome.state is VerbState.ACCEPTED


async def test_a_verb_bound_to_another_revision_is_refused_and_changes_nothing(
    world: World,
) -> None:
    one = await world.coordinator()
    await stuck(world, one)
    before = await world.saga()
    outcome = await world.verb(one, VerbKind.ABANDON, revision=before.revision - 1)
    assert outcome.state is VerbState.REFUSED
    for revision in (before.revision, before.revision - 1):
        assert str(revision) in outcome.explanation
    assert await world.saga() == before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (VerbKind.RETRY, VerbKind.RETRY),
        (VerbKind.RETRY, VerbKind.ABANDON),
        (VerbKind.ABANDON, VerbKind.RETRY),
    ],
)
async def test_of_two_operators_who_saw_the_same_saga_exactly_one_wins(
    world: World, first: VerbKind, second: VerbKind
) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await stuck(world, one)
    seen = (await world.saga()).revision
    outcomes = await asyncio.gather(
        world.verb(one, first, revision=seen, request_id="ann"),
        world.verb(two, second, revision=seen, request_id="bob"),
    )
    assert sorted(outcome.state.value for outcome in outcomes) == ["ACCEPTED", "REFUSED"]
    assert (await world.saga()).revision == seen + 1


async def test_a_retry_that_was_meant_for_an_earlier_halt_does_not_end_a_later_one(
    world: World,
) -> None:
    """Without the revision, the second of two equal retries would spend a third round of tries."""
    one = await world.coordinator()
    await stuck(world, one)
    seen = (await world.saga()).revision
    await world.verb(one, VerbKind.RETRY, revision=seen, request_id="ann")
    for attempt in (4, 5, 6, 7):
        await one.answer(f"COMPENSATE a {attempt}", failed())
    await world.until(SagaState.STUCK)
    outcome = await world.verb(one, VerbKind.RETRY, revision=seen, request_id="bob")
    assert outcome.state is VerbState.REFUSED
    assert (await world.saga()).state is SagaState.STUCK


async def test_of_a_cancel_and_a_completion_being_written_the_completion_wins(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    sent = await one.sent("DO b 1")
    seen = (await world.saga()).revision
    one.journal.hold()
    sent.answer(Done(b"b-ok"))
    await settle()
    cancelling = asyncio.create_task(world.verb(one, VerbKind.CANCEL, revision=seen))
    await settle()
    one.journal.let_go()
    assert (await cancelling).state is VerbState.REFUSED
    assert (await world.saga()).state is SagaState.COMPLETED


async def test_of_a_cancel_and_an_answer_that_are_written_one_after_the_other_the_first_wins(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    one.journal.hold()
    sent.answer(Done(b"a-ok"))
    await settle()
    cancelling = asyncio.create_task(world.verb(one, VerbKind.CANCEL, revision=1))
    await settle()
    one.journal.let_go()
    outcome = await cancelling
    assert outcome.state is VerbState.REFUSED
    assert outcome.explanation == "it is at revision 2, not at 1"
    assert (await world.saga()).state is SagaState.RUNNING


async def test_a_cancel_that_meets_the_moment_of_the_halt_is_judged_by_the_halted_saga(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, story=patient("a"))
    for attempt in (1, 2):
        await one.answer(f"DO a {attempt}", MISCONFIGURED)
    sent = await one.sent("DO a 3")
    one.journal.hold()
    sent.answer(MISCONFIGURED)
    await settle()
    cancelling = asyncio.create_task(world.verb(one, VerbKind.CANCEL))
    await settle()
    one.journal.let_go()
    assert (await cancelling).state is VerbState.ACCEPTED
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)


# --- what each of them does ----------------------------------------------------------


async def test_a_cancelled_saga_waits_for_the_do_in_flight_and_undoes_it(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    outcome = await world.verb(one, VerbKind.CANCEL)
    assert outcome.state is VerbState.ACCEPTED
    assert one.participants.waiting == 0
    sent.answer(Done(b"a-ok"))
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)


async def test_a_cancel_reaches_the_owner_through_the_inbox_without_being_told(
    world: World,
) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    await one.sent("DO a 1")
    outcome = await world.verb(two, VerbKind.CANCEL)
    assert outcome.state is VerbState.ACCEPTED
    assert now() < 1


async def test_of_a_cancel_and_the_last_answer_exactly_one_wins(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    sent = await one.sent("DO a 1")
    one.journal.hold()
    sent.answer(Done(b"a-ok"))
    await settle()
    cancelling = asyncio.create_task(world.verb(one, VerbKind.CANCEL))
    await settle()
    one.journal.let_go()
    outcome = await cancelling
    assert outcome.state is VerbState.REFUSED
    assert "COMPLETED" in outcome.explanation
    assert (await world.saga()).state is SagaState.COMPLETED


async def test_a_cancelled_saga_remembers_who_and_why(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await world.verb(one, VerbKind.CANCEL)
    entries = await world.reader.entries("saga-1", 1, 10)
    assert isinstance(entries[0].event, Aborted)
    assert (entries[0].event.actor, entries[0].event.note) == ("ann", "told to")


async def test_a_stuck_saga_leaves_memory_and_goes_on_when_it_is_retried(world: World) -> None:
    one = await world.coordinator()
    await stuck(world, one)
    assert one.engine.sagas == 0
    outcome = await world.verb(one, VerbKind.RETRY)
    assert outcome.state is VerbState.ACCEPTED
    await one.answer("COMPENSATE a 4")
    await world.until(SagaState.COMPENSATED)


async def test_a_step_undone_by_hand_ends_a_stuck_saga(world: World) -> None:
    one = await world.coordinator()
    await stuck(world, one)
    assert (await world.verb(one, VerbKind.SKIP, step="a")).state is VerbState.ACCEPTED
    await world.until(SagaState.COMPENSATED)


async def test_an_abandoned_saga_says_so(world: World) -> None:
    one = await world.coordinator()
    await stuck(world, one)
    assert (await world.verb(one, VerbKind.ABANDON)).state is VerbState.ACCEPTED
    assert (await world.saga()).state is SagaState.ABANDONED


@pytest.mark.parametrize("kind", [VerbKind.CANCEL, VerbKind.SKIP])
async def test_a_verb_that_is_not_legal_is_refused_and_changes_nothing(
    world: World, kind: VerbKind
) -> None:
    one = await world.coordinator()
    await stuck(world, one)
    before = await world.saga()
    outcome = await world.verb(one, kind, step="nonsense")
    assert outcome.state is VerbState.REFUSED
    assert await world.saga() == before
    assert one.engine.sagas == 0


async def test_a_retry_of_a_running_saga_is_refused(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    assert (await world.verb(one, VerbKind.RETRY)).state is VerbState.REFUSED

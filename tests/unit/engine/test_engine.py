from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from coordinator.core.events import Aborted
from coordinator.core.model import FailureKind, RequestNotBuildable, SagaState
from coordinator.engine.errors import Draining, Overloaded
from coordinator.journal.base import (
    Append,
    AppendError,
    JournalUnavailable,
    RevisionConflict,
    Unwritable,
)
from coordinator.journal.verbs import VerbKind, VerbState
from coordinator.participants.base import Done
from tests.builders import definition
from tests.unit.engine.world import EPOCH_MS, Coordinator, World, failed


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(50):
        await asyncio.sleep(0)


# --- the way forward and back ---------------------------------------------------


async def test_a_saga_runs_step_by_step_to_its_end(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    await one.answer("DO b 1")
    saga = await world.until(SagaState.COMPLETED)
    assert saga.revision == 3
    assert one.engine.sagas == 0
    assert one.counts.attempts == {"DO DONE": 2}
    assert one.counts.states == {SagaState.COMPLETED: 1}


async def test_a_rejection_undoes_what_was_done(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    await one.answer("COMPENSATE a 1")
    saga = await world.until(SagaState.COMPENSATED)
    assert saga.failure is not None
    assert (saga.failure.reason, saga.failure.step) == ("TOLD", "b")


async def test_an_attempt_says_what_a_participant_must_know(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    attempt = (await one.sent("DO a 1")).attempt
    assert (attempt.saga_id, attempt.service) == ("saga-1", "test.v1.A")
    assert attempt.timeout_ms == 30_000
    assert attempt.not_after_ms == pytest.approx(EPOCH_MS + 30_000 + 300_000, abs=100)


async def test_a_compensation_links_to_the_span_of_its_do_and_never_expires(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1", Done(b"a-ok", "00000000000000aa"))
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    attempt = (await one.sent("COMPENSATE a 1")).attempt
    assert (attempt.link_span_id, attempt.not_after_ms) == ("00000000000000aa", None)


# --- nothing is sent that is not on disk --------------------------------------------


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


# --- attempts ---------------------------------------------------------------------


async def test_an_unclear_answer_is_tried_again_after_a_wait(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    before = now()
    await one.answer("DO a 2")
    assert now() - before == pytest.approx(0.5, abs=0.01)
    await world.until(SagaState.COMPLETED)


async def test_a_participant_that_says_when_is_asked_again_then(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed(retry_after_ms=7_000))
    before = now()
    await one.sent("DO a 2")
    assert now() - before == pytest.approx(7, abs=0.01)


async def test_an_answer_heard_twice_counts_once(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    sent.answer(Done(b"a-ok"))
    sent.answer(Done(b"a-ok"))
    await one.answer("DO b 1")
    assert (await world.until(SagaState.COMPLETED)).revision == 3


async def test_a_request_that_cannot_be_built_refuses_the_start(world: World) -> None:
    one = await world.coordinator()
    with pytest.raises(RequestNotBuildable):
        await world.start(one, story=definition("a", broken=frozenset("a")))
    assert await world.reader.load("saga-1") is None


async def test_a_later_request_that_cannot_be_built_undoes_the_rest(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=definition("a", "b", broken=frozenset("b")))
    await one.answer("DO a 1")
    await one.answer("COMPENSATE a 1")
    saga = await world.until(SagaState.COMPENSATED)
    assert saga.failure is not None
    assert saga.failure.reason == "REQUEST_NOT_BUILDABLE"


async def test_a_deadline_that_passes_aborts_the_saga(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=replace(definition("a", "b"), deadline_ms=5_000))
    await one.answer("DO a 1")
    late = await one.sent("DO b 1")
    await world.until(SagaState.COMPENSATING)
    assert now() == pytest.approx(5, abs=0.1)
    late.answer(Done(b"b-ok"))
    await one.answer("COMPENSATE b 1")
    await one.answer("COMPENSATE a 1")
    saga = await world.until(SagaState.COMPENSATED)
    assert saga.failure is not None
    assert saga.failure.reason == "SAGA_DEADLINE_EXCEEDED"


# --- one id, one saga ----------------------------------------------------------------


async def test_the_same_id_twice_is_one_saga(world: World) -> None:
    one = await world.coordinator()
    first = asyncio.create_task(world.start(one, "a"))
    second = asyncio.create_task(world.start(one, "a"))
    done = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result).__name__ for result in done] == ["Saga", "RevisionConflict"]
    await one.sent("DO a 1")
    await settle()
    assert one.participants.waiting == 0


async def test_the_id_of_a_finished_saga_is_taken(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED)
    with pytest.raises(RevisionConflict):
        await world.start(one, "a")


async def test_an_id_that_another_instance_has_started_is_taken(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    with pytest.raises(RevisionConflict):
        await world.start(two, "a")


async def test_no_more_sagas_are_started_than_may_be_held(world: World) -> None:
    one = await world.coordinator(max_sagas=1)
    await world.start(one, "a")
    with pytest.raises(Overloaded):
        await world.start(one, "a", saga_id="saga-2")


# --- crashes and several instances ------------------------------------------------------


async def test_a_restarted_coordinator_performs_what_was_outstanding_as_written(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    before = (await one.sent("DO b 1")).attempt
    await one.kill()
    again = await world.coordinator()
    after = (await again.sent("DO b 1")).attempt
    assert (after.request, after.attempt) == (before.request, before.attempt)


async def test_a_restarted_coordinator_keeps_to_a_backoff_that_it_did_not_begin(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed(retry_after_ms=20_000))
    due = now() + 20
    await settle()
    await one.kill()
    again = await world.coordinator()
    await again.sent("DO a 2")
    assert now() == pytest.approx(due, abs=0.01)


async def test_a_dead_instances_sagas_run_elsewhere_once_its_lease_is_over(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    await one.sent("DO a 1")
    await one.kill()
    killed = now()
    await two.sent("DO a 1")
    assert 2 < now() - killed < 5


async def test_a_live_instances_sagas_are_left_alone(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    await asyncio.sleep(30)
    assert (one.participants.waiting, two.participants.waiting) == (1, 0)


async def test_an_instance_that_lost_its_lease_writes_nothing_and_rejoins(world: World) -> None:
    one = await world.coordinator("one")
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    one.journal.cut()  # as if it were frozen: no heartbeat arrives
    two = await world.coordinator("two")
    taken = await two.sent("DO a 1")
    assert not one.engine.ready
    one.journal.mend()
    sent.answer(Done(b"stale"))
    taken.answer(Done(b"fresh"))
    await two.answer("DO b 1")
    saga = await world.until(SagaState.COMPLETED)
    assert saga.steps[0].response == b"fresh"
    await one.ready()
    assert one.participants.waiting == 0


async def test_what_comes_due_behind_a_closed_fence_is_sent_when_the_lease_was_kept(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    one.engine._ownership._fence.close()
    await one.answer("DO a 1", failed())
    await one.sent("DO a 2")


async def test_a_drained_instance_hears_what_is_in_flight_and_gives_the_rest_away_at_once(
    world: World,
) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    stopping = asyncio.create_task(one.shut_down())
    await settle()
    with pytest.raises(Draining):
        await world.start(one, "a", saga_id="saga-2")
    sent.answer(Done(b"a-ok"))
    await stopping
    assert one.participants.waiting == 0
    released = now()
    await two.sent("DO b 1")
    assert now() - released < 1.1


async def test_a_drain_waits_no_longer_than_others_would_wait_for_the_dead(world: World) -> None:
    one = await world.coordinator("one")
    await world.start(one, "a")
    await one.sent("DO a 1")
    before = now()
    await one.shut_down()
    assert now() - before == pytest.approx(3, abs=0.1)


async def test_a_saga_that_keeps_stopping_its_owners_is_isolated(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    for _ in range(6):
        await one.kill()
        one = await world.coordinator()
        await settle()
    saga = await world.until(SagaState.STUCK)
    assert saga.stuck is not None
    assert saga.stuck.reason == "SAGA_POISONOUS"


# --- data that the store refuses ---------------------------------------------------------


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


# --- verbs --------------------------------------------------------------------------------


async def stuck(world: World, one: Coordinator) -> None:
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await one.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    await world.until(SagaState.STUCK)


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


# --- watching -------------------------------------------------------------------------------


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

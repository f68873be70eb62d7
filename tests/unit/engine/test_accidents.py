"""What goes wrong around a saga must neither lose it, nor a verb for it, nor the instance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import pytest
from msgspec.structs import replace

from coordinator.core.decide import Decision, decide
from coordinator.core.events import Event
from coordinator.core.model import Definition, SagaState
from coordinator.core.saga import Saga
from coordinator.journal.base import (
    Append,
    AppendError,
    JournalUnavailable,
    LeaseLost,
    RevisionConflict,
    UnreadableHistory,
    Unwritable,
)
from coordinator.journal.verbs import VerbKind, VerbState
from coordinator.participants.base import Done
from tests.builders import definition
from tests.unit.engine.world import World, failed, now, settle, stuck

P = ParamSpec("P")
T = TypeVar("T")
Append1 = Callable[[Append, Callable[[AppendError | None], None]], None]


def failing(
    times: int, error: Exception, honest: Callable[P, Awaitable[T]]
) -> Callable[P, Awaitable[T]]:
    """The same, after it has failed a few times."""
    left = [error] * times

    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if left:
            raise left.pop()
        return await honest(*args, **kwargs)

    return call


def refusing(kind: str, error: AppendError, honest: Append1) -> Append1:
    """The same, but the first event of this kind is refused."""
    left = [error]

    def append(append: Append, done: Callable[[AppendError | None], None]) -> None:
        if left and type(append.event).__name__ == kind:
            asyncio.get_running_loop().call_soon(done, left.pop())
        else:
            honest(append, done)

    return append


AWAY = JournalUnavailable("away for a moment")


# --- verbs --------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["reload", "refuse_verb", "pending_verbs"])
async def test_a_verb_is_decided_although_the_journal_was_away_for_a_moment(
    world: World, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await stuck(world, one)
    monkeypatch.setattr(one.journal, call, failing(1, AWAY, getattr(one.journal, call)))
    async with asyncio.timeout(5):
        outcome = await world.verb(one, VerbKind.CANCEL)
    assert outcome.state is VerbState.REFUSED


@pytest.mark.parametrize("error", [RevisionConflict("another"), Unwritable("no"), LeaseLost("no")])
async def test_a_verb_that_waits_for_its_turn_outlives_an_event_that_is_not_written(
    world: World, error: AppendError, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    told: list[Callable[[AppendError | None], None]] = []
    with monkeypatch.context() as patched:
        patched.setattr(one.journal, "append", lambda _, done: told.append(done))
        await one.answer("DO a 1")
        await settle()
    deciding = asyncio.create_task(world.verb(one, VerbKind.CANCEL))
    await settle()
    (done,) = told
    done(error)
    async with asyncio.timeout(10):
        await deciding


async def test_the_inbox_closes_with_the_lease_also_when_a_verb_comes_at_that_moment(
    world: World,
) -> None:
    for ticks in range(8):
        one = await world.coordinator(f"one-{ticks}")
        lease = await world.reader.acquire_lease("nobody", 1_000)
        inbox = asyncio.create_task(one.engine._ownership.inbox.run(lease))
        await settle()
        one.engine.verb_posted()
        for _ in range(ticks):
            await asyncio.sleep(0)
        inbox.cancel()
        done, _ = await asyncio.wait([inbox], timeout=60)
        assert done


# --- claims and loading -----------------------------------------------------------------------


@pytest.mark.parametrize("error", [AWAY])
async def test_claimed_sagas_go_on_although_their_definition_was_not_there_at_once(
    world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    for number in (1, 2, 3):
        await world.start(one, "a", saga_id=f"saga-{number}")
    await one.kill()
    load = world.definitions.load
    monkeypatch.setattr(world.definitions, "load", failing(2, error, load))
    again = await world.coordinator()
    async with asyncio.timeout(10):
        for _ in (1, 2, 3):
            await again.answer("DO a 1")


async def test_a_saga_written_elsewhere_goes_on_although_loading_it_failed_at_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    append = refusing("StepDone", RevisionConflict("another"), one.journal.append)
    monkeypatch.setattr(one.journal, "append", append)
    monkeypatch.setattr(one.journal, "reload", failing(2, AWAY, one.journal.reload))
    await one.answer("DO a 1")
    async with asyncio.timeout(10):
        await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED)


async def test_a_saga_whose_append_found_no_lease_goes_on_when_the_lease_is_held_after_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    append = refusing("StepDone", LeaseLost("a clock that went back"), one.journal.append)
    monkeypatch.setattr(one.journal, "append", append)
    await one.answer("DO a 1")
    async with asyncio.timeout(10):
        await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED)


@pytest.mark.parametrize("error", [UnreadableHistory("of a newer release")])
async def test_a_history_that_cannot_be_read_again_harms_no_other_saga(
    world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await world.start(one, "a", saga_id="saga-2")
    append = refusing("StepDone", RevisionConflict("another"), one.journal.append)
    monkeypatch.setattr(one.journal, "append", append)
    monkeypatch.setattr(one.journal, "reload", failing(10**6, error, one.journal.reload))
    await one.answer("DO a 1")
    await asyncio.sleep(10)
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED, "saga-2")
    assert not one.task.done()


async def test_a_saga_that_is_claimed_and_asked_about_at_once_is_run_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim holds a history that a verb, meanwhile, has made old."""
    one = await world.coordinator()
    await world.start(one, "a")
    await one.sent("DO a 1")
    await one.kill()
    load, slow = world.definitions.load, [True]

    async def slowly(content_hash: str) -> Definition:
        if slow:
            slow.clear()
            await asyncio.sleep(2)
        return await load(content_hash)

    monkeypatch.setattr(world.definitions, "load", slowly)
    again = await world.coordinator()
    await settle()
    await world.verb(again, VerbKind.CANCEL)
    await again.answer("DO a 1")
    await again.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)
    await asyncio.sleep(10)
    assert again.participants.waiting == 0


# --- starts -----------------------------------------------------------------------------------


async def test_a_start_that_fails_makes_way_for_one_of_those_who_waited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    append = refusing("Started", Unwritable("no"), one.journal.append)
    monkeypatch.setattr(one.journal, "append", append)
    starts = (world.start(one, "a") for _ in range(3))
    done = await asyncio.gather(*starts, return_exceptions=True)
    assert [type(result).__name__ for result in done] == ["Unwritable", "Saga", "RevisionConflict"]


async def test_a_start_that_is_confirmed_under_a_later_lease_is_left_to_who_claims_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator("one")
    monkeypatch.setattr(one.journal, "claim", failing(10**6, AWAY, one.journal.claim))
    one.journal.lose_next_answer()
    starting = asyncio.create_task(world.start(one, "a"))
    await settle()
    one.journal.hold()
    await asyncio.sleep(3.1)
    one.journal.mend()
    await one.ready()
    one.journal.let_go()
    assert (await starting).revision == 1
    await settle()
    assert one.participants.waiting == 0
    two = await world.coordinator("two")
    await two.answer("DO a 1")
    await world.until(SagaState.COMPLETED)


# --- the fence and the timers --------------------------------------------------------------------


async def test_a_do_held_behind_the_fence_is_not_sent_after_an_abort(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    sent = await one.sent("DO b 1")
    one.engine._ownership._fence.close()
    sent.answer(failed())
    await asyncio.sleep(0.6)
    await world.verb(one, VerbKind.CANCEL)
    await one.answer("COMPENSATE b 1")
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)
    assert one.participants.waiting == 0


async def test_a_retry_that_comes_due_while_an_abort_is_written_is_not_sent(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    await settle()
    one.journal.hold()
    cancelling = asyncio.create_task(world.verb(one, VerbKind.CANCEL))
    await asyncio.sleep(2)
    assert one.participants.waiting == 0
    one.journal.let_go()
    await cancelling
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)


async def test_a_retry_that_comes_due_while_something_else_is_written_is_sent_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    await settle()
    told: list[Callable[[AppendError | None], None]] = []
    with monkeypatch.context() as patched:
        patched.setattr(one.journal, "append", lambda _, done: told.append(done))
        asking = asyncio.create_task(world.verb(one, VerbKind.CANCEL))
        await asyncio.sleep(2)
    assert one.participants.waiting == 0
    (done,) = told
    done(Unwritable("no"))
    assert (await asking).state is VerbState.REFUSED
    await one.answer("DO a 2")
    await world.until(SagaState.COMPLETED)


async def test_a_saga_retried_on_its_way_forward_still_has_its_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.coordinator()
    append = refusing("AttemptFailed", Unwritable("no"), one.journal.append)
    monkeypatch.setattr(one.journal, "append", append)
    await world.start(one, story=replace(definition("a"), deadline_ms=20_000))
    await one.answer("DO a 1", failed())
    await world.until(SagaState.STUCK)
    await world.verb(one, VerbKind.RETRY)
    await one.sent("DO a 2")
    async with asyncio.timeout(60):
        saga = await world.until(SagaState.COMPENSATING)
    assert saga.failure is not None
    assert saga.failure.reason == "SAGA_DEADLINE_EXCEEDED"


# --- bugs -----------------------------------------------------------------------------------------


async def test_a_bug_met_by_one_saga_makes_it_stuck_and_harms_no_other(world: World) -> None:
    def buggy(input_bytes: bytes, responses: object) -> bytes:
        raise ZeroDivisionError("a bug")

    one = await world.coordinator()
    story = definition("a", "b")
    a, b = story.steps
    broken = replace(story, steps=(a, replace(b, build=buggy)), hash="buggy")
    await world.start(one, story=broken)
    await world.start(one, "a", saga_id="saga-2")
    await one.answer("DO a 1")
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED, "saga-2")
    saga = await world.until(SagaState.STUCK)
    assert saga.stuck is not None
    assert saga.stuck.reason == "COORDINATOR_BUG"


async def test_a_saga_that_cannot_even_be_made_stuck_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 2

    def buggy(saga: Saga, event: Event) -> Decision:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError("a bug")
        return decide(saga, event)

    one = await world.coordinator()
    await world.start(one, "a")
    monkeypatch.setattr("coordinator.engine.runner.decide", buggy)
    async with asyncio.timeout(10):
        await one.answer("DO a 1")
        await one.answer("DO a 1")
        await world.until(SagaState.COMPLETED)


# --- the end ------------------------------------------------------------------------------------


async def test_a_drain_ends_with_the_last_answer_also_when_it_counts_no_more(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    sent = await one.sent("DO a 1")
    live = one.engine._runner.get("saga-1")
    assert live is not None
    live.saga = replace(live.saga, steps=(replace(live.saga.steps[0], call=None),))
    stopping = asyncio.create_task(one.shut_down())
    await settle()
    sent.answer(Done(b"a-ok"))
    await stopping
    assert now() < 1


async def test_a_drain_ends_when_the_lease_is_lost_meanwhile(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.sent("DO a 1")
    stopping = asyncio.create_task(one.engine.drain())
    await settle()
    one.engine._runner.drop_all()
    await stopping
    assert now() < 1


async def test_an_instance_stops_although_its_lease_cannot_be_given_back(world: World) -> None:
    one = await world.coordinator()
    one.journal.cut()
    await one.shut_down()

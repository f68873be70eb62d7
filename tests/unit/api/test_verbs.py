from __future__ import annotations

import asyncio
from copy import deepcopy

import pytest

from coordinator.api.refusals import SagaChanged
from coordinator.api.validate import VerbRequest
from coordinator.core.model import FailureKind, SagaState
from coordinator.participants.base import Done
from mesh.errors import AlreadyExists, InvalidRequest, NotFound, NotNow, Retry
from protos.saga.v1 import saga_pb2 as pb
from tests.unit.api.desk import Desk, caller
from tests.unit.engine.world import World, failed

VERBS: dict[str, VerbRequest] = {
    "CancelSaga": pb.CancelSagaRequest(saga_id="saga-1", reason="changed my mind", actor="ann"),
    "RetrySaga": pb.RetrySagaRequest(saga_id="saga-1", reason="mended", actor="ann"),
    "SkipStep": pb.SkipStepRequest(saga_id="saga-1", step="a", reason="by hand", actor="ann"),
    "AbandonSaga": pb.AbandonSagaRequest(saga_id="saga-1", reason="written off", actor="ann"),
}


async def ask(desk: Desk, rpc: str, request: VerbRequest, seconds: float | None = None) -> pb.Saga:
    response = await getattr(desk.sagas, rpc)(request, caller(seconds))
    saga: pb.Saga = response.saga
    return saga


async def stick(desk: Desk) -> None:
    """Bring saga-1 to STUCK: b was rejected, and a cannot be undone."""
    await desk.start()
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await desk.coordinator.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    await desk.world.until(SagaState.STUCK)


async def test_a_cancelled_saga_is_undone(desk: Desk) -> None:
    await desk.start()
    await desk.coordinator.answer("DO a 1")
    b = await desk.coordinator.sent("DO b 1")
    saga = await ask(desk, "CancelSaga", VERBS["CancelSaga"])
    assert saga.state == pb.SAGA_STATE_COMPENSATING
    assert saga.failure.reason == "SAGA_CANCELLED"
    b.answer(Done(b"late"))
    await desk.coordinator.answer("COMPENSATE b 1")
    await desk.coordinator.answer("COMPENSATE a 1")
    await desk.world.until(SagaState.COMPENSATED)


async def test_a_stuck_saga_goes_on_when_it_is_retried(desk: Desk) -> None:
    await stick(desk)
    saga = await ask(desk, "RetrySaga", VERBS["RetrySaga"])
    assert saga.state == pb.SAGA_STATE_COMPENSATING
    await desk.coordinator.answer("COMPENSATE a 4")
    await desk.world.until(SagaState.COMPENSATED)


async def test_a_step_undone_by_hand_is_skipped(desk: Desk) -> None:
    await stick(desk)
    saga = await ask(desk, "SkipStep", VERBS["SkipStep"])
    assert saga.state == pb.SAGA_STATE_COMPENSATED
    assert [step.state for step in saga.steps] == [
        pb.STEP_STATE_SKIPPED,
        pb.STEP_STATE_REJECTED,
    ]


async def test_an_abandoned_saga_names_the_effects_that_stay(desk: Desk) -> None:
    await stick(desk)
    request = pb.AbandonSagaRequest(saga_id="saga-1", reason="written off", actor="ann")
    response = await desk.sagas.AbandonSaga(request, caller())
    assert response.saga.state == pb.SAGA_STATE_ABANDONED
    assert response.open_steps == ["a"]


async def test_a_verb_asked_again_under_its_id_has_its_first_outcome(desk: Desk) -> None:
    await desk.start()
    request = pb.CancelSagaRequest(saga_id="saga-1", reason="why", request_id="cancel-1")
    await ask(desk, "CancelSaga", request)
    again = await ask(desk, "CancelSaga", request)
    assert again.state == pb.SAGA_STATE_COMPENSATING
    history = await desk.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="saga-1"), caller())
    kinds = [event.kind for event in history.events]
    assert kinds.count(pb.SAGA_EVENT_KIND_ABORTED) == 1


async def test_a_request_id_used_for_something_else_is_refused(desk: Desk) -> None:
    await desk.start()
    await desk.start("saga-2")
    first = pb.CancelSagaRequest(saga_id="saga-1", reason="why", request_id="r-1")
    await ask(desk, "CancelSaga", first)
    other = pb.CancelSagaRequest(saga_id="saga-2", reason="why", request_id="r-1")
    with pytest.raises(AlreadyExists) as refusal:
        await ask(desk, "CancelSaga", other)
    assert refusal.value.reason == "REQUEST_ID_REUSED"
    assert (await desk.get("saga-2")).state == pb.SAGA_STATE_RUNNING


@pytest.mark.parametrize("rpc", ["RetrySaga", "SkipStep", "AbandonSaga"])
async def test_operators_verbs_are_not_legal_for_a_running_saga(desk: Desk, rpc: str) -> None:
    await desk.start()
    with pytest.raises(NotNow) as refusal:
        await ask(desk, rpc, VERBS[rpc])
    assert refusal.value.reason == "VERB_NOT_LEGAL"
    assert refusal.value.metadata == {"state": "RUNNING", "allowed_states": "STUCK", "verb": rpc}
    assert (await desk.get()).revision == 1


async def test_a_saga_stuck_on_its_way_back_cannot_be_cancelled_again(desk: Desk) -> None:
    await stick(desk)
    with pytest.raises(NotNow) as refusal:
        await ask(desk, "CancelSaga", VERBS["CancelSaga"])
    assert refusal.value.message == "CancelSaga is not legal for a saga that was aborted already"


# --- revisions --------------------------------------------------------------------


def for_revision(rpc: str, revision: int, **changes: str) -> VerbRequest:
    request = deepcopy(VERBS[rpc])
    request.revision = revision
    for name, value in changes.items():
        setattr(request, name, value)
    return request


@pytest.mark.parametrize("rpc", ["RetrySaga", "SkipStep", "AbandonSaga"])
async def test_a_verb_for_another_revision_is_told_what_the_saga_is_now(
    desk: Desk, rpc: str
) -> None:
    await stick(desk)
    before = await desk.get()
    for wrong in (before.revision - 1, before.revision + 1):
        with pytest.raises(SagaChanged) as refusal:
            await ask(desk, rpc, for_revision(rpc, wrong, request_id=f"r-{wrong}"))
        assert (refusal.value.code.name, refusal.value.reason) == (
            "FAILED_PRECONDITION",
            "SAGA_CHANGED",
        )
        assert refusal.value.metadata == {
            "saga_id": "saga-1",
            "state": "STUCK",
            "revision": str(before.revision),
            "expected_revision": str(wrong),
        }
        assert await desk.world.reader.verb_outcome(f"r-{wrong}") is None
    assert await desk.get() == before
    await ask(desk, rpc, for_revision(rpc, before.revision))


async def test_a_cancel_for_another_revision_is_refused_and_one_for_any_is_not(
    desk: Desk,
) -> None:
    await desk.start()
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.sent("DO b 1")
    with pytest.raises(SagaChanged):
        await ask(desk, "CancelSaga", for_revision("CancelSaga", 1))
    assert (await desk.get()).state == pb.SAGA_STATE_RUNNING
    saga = await ask(desk, "CancelSaga", VERBS["CancelSaga"])
    assert saga.state == pb.SAGA_STATE_COMPENSATING


@pytest.mark.parametrize("second", ["RetrySaga", "SkipStep", "AbandonSaga"])
async def test_of_two_operators_who_see_the_same_stuck_saga_one_wins(
    desk: Desk, world: World, second: str
) -> None:
    await stick(desk)
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    answers = await asyncio.gather(
        ask(desk, "RetrySaga", VERBS["RetrySaga"]),
        ask(other, second, for_revision(second, 0, actor="bob", request_id="bobs")),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, SagaChanged)]
    assert len(refused) == 1
    assert len(answers) == 2
    history = await desk.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="saga-1"), caller())
    assert len([event for event in history.events if event.actor]) == 1


async def test_an_operator_who_saw_an_earlier_halt_does_not_win_after_the_next(
    desk: Desk,
) -> None:
    await stick(desk)
    seen = (await desk.get()).revision
    await ask(desk, "RetrySaga", for_revision("RetrySaga", seen))
    for attempt in (4, 5, 6):
        await desk.coordinator.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    await desk.world.until(SagaState.STUCK)
    with pytest.raises(SagaChanged) as refusal:
        await ask(desk, "AbandonSaga", for_revision("AbandonSaga", seen))
    assert refusal.value.metadata["state"] == "STUCK"
    assert (await desk.get()).state == pb.SAGA_STATE_STUCK


async def test_a_retry_asked_again_under_its_id_has_its_first_outcome_whatever_came_since(
    desk: Desk,
) -> None:
    await stick(desk)
    request = for_revision("RetrySaga", 0, request_id="retry-1")
    await ask(desk, "RetrySaga", request)
    await desk.coordinator.answer("COMPENSATE a 4")
    await desk.world.until(SagaState.COMPENSATED)
    revision = (await desk.get()).revision
    again = await ask(desk, "RetrySaga", request)
    assert (again.state, again.revision) == (pb.SAGA_STATE_COMPENSATED, revision)


async def test_the_same_id_for_another_revision_is_another_request(desk: Desk) -> None:
    await stick(desk)
    await ask(desk, "RetrySaga", for_revision("RetrySaga", 0, request_id="retry-1"))
    with pytest.raises(AlreadyExists) as refusal:
        await ask(desk, "RetrySaga", for_revision("RetrySaga", 1, request_id="retry-1"))
    assert refusal.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("rpc", VERBS)
async def test_a_final_saga_refuses_every_verb_at_once(desk: Desk, rpc: str) -> None:
    await desk.start()
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)
    with pytest.raises(NotNow) as refusal:
        await ask(desk, rpc, VERBS[rpc])
    assert refusal.value.metadata["state"] == "COMPLETED"


@pytest.mark.parametrize("rpc", VERBS)
async def test_a_saga_that_does_not_exist_takes_no_verb(desk: Desk, rpc: str) -> None:
    with pytest.raises(NotFound) as refusal:
        await ask(desk, rpc, VERBS[rpc])
    assert refusal.value.reason == "SAGA_NOT_FOUND"


async def test_a_step_that_the_definition_does_not_have_is_named_with_those_it_has(
    desk: Desk,
) -> None:
    await stick(desk)
    request = pb.SkipStepRequest(saga_id="saga-1", step="c", reason="by hand", actor="ann")
    with pytest.raises(InvalidRequest) as refusal:
        await ask(desk, "SkipStep", request)
    (violation,) = refusal.value.violations
    assert (violation.field, violation.description) == ("step", "must be one of a, b")


async def test_the_owner_says_why_it_refuses(desk: Desk) -> None:
    await stick(desk)
    request = pb.SkipStepRequest(saga_id="saga-1", step="b", reason="by hand", actor="ann")
    with pytest.raises(NotNow) as refusal:
        await ask(desk, "SkipStep", request)
    assert "REJECTED" in refusal.value.message
    assert (await desk.get()).state == pb.SAGA_STATE_STUCK


async def test_a_verb_that_nobody_decides_can_be_asked_again(desk: Desk, world: World) -> None:
    await desk.start()
    await desk.coordinator.sent("DO a 1")
    await desk.coordinator.kill()
    request = pb.CancelSagaRequest(saga_id="saga-1", reason="why", request_id="r-1")
    for seconds in (None, 2.0, 0.1):
        with pytest.raises(Retry) as refusal:
            await ask(desk, "CancelSaga", request, seconds)
        assert refusal.value.reason == "VERB_PENDING"
        assert refusal.value.metadata == {"request_id": "r-1"}
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    saga = await ask(other, "CancelSaga", request)
    assert saga.failure.reason == "SAGA_CANCELLED"


async def test_an_instance_that_does_not_own_the_saga_can_be_asked(
    desk: Desk, world: World
) -> None:
    await desk.start()
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    saga = await ask(other, "CancelSaga", VERBS["CancelSaga"])
    assert saga.state == pb.SAGA_STATE_COMPENSATING


async def test_a_saga_that_completes_while_it_is_cancelled_is_complete(desk: Desk) -> None:
    await desk.start()
    await desk.coordinator.answer("DO a 1")
    b = await desk.coordinator.sent("DO b 1")
    desk.coordinator.journal.hold()
    b.answer(Done(b""))
    cancelled = asyncio.create_task(ask(desk, "CancelSaga", VERBS["CancelSaga"]))
    await asyncio.sleep(0.1)
    desk.coordinator.journal.let_go()
    with pytest.raises(NotNow) as refusal:
        await cancelled
    assert refusal.value.metadata["state"] == "COMPLETED"


async def test_a_journal_that_is_away_is_worth_a_retry(desk: Desk) -> None:
    await desk.start()
    desk.coordinator.journal.cut()
    with pytest.raises(Retry) as refusal:
        await ask(desk, "CancelSaga", VERBS["CancelSaga"])
    assert refusal.value.reason == "JOURNAL_UNAVAILABLE"


@pytest.mark.parametrize(
    ("rpc", "changes", "field"),
    [
        ("CancelSaga", {"revision": -1}, "revision"),
        ("RetrySaga", {"revision": 2**31}, "revision"),
        ("AbandonSaga", {"reason": "r" * 1_000_000}, "reason"),
        ("CancelSaga", {"saga_id": ""}, "saga_id"),
        ("CancelSaga", {"saga_id": "a" * 65}, "saga_id"),
        ("CancelSaga", {"reason": ""}, "reason"),
        ("CancelSaga", {"reason": " \n"}, "reason"),
        ("CancelSaga", {"reason": "why\x00"}, "reason"),
        ("CancelSaga", {"reason": "\x1b[2Jwhy"}, "reason"),
        ("CancelSaga", {"reason": "r" * 1_025}, "reason"),
        ("CancelSaga", {"actor": "a" * 129}, "actor"),
        ("CancelSaga", {"request_id": "r" * 129}, "request_id"),
        ("RetrySaga", {"actor": ""}, "actor"),
        ("AbandonSaga", {"actor": ""}, "actor"),
        ("SkipStep", {"step": "No Step"}, "step"),
    ],
)
async def test_a_verb_that_is_not_well_formed_changes_nothing(
    desk: Desk, rpc: str, changes: dict[str, str | int], field: str
) -> None:
    await desk.start()
    request = deepcopy(VERBS[rpc])
    for name, value in changes.items():
        setattr(request, name, value)
    with pytest.raises(InvalidRequest) as refusal:
        await ask(desk, rpc, request)
    assert [violation.field for violation in refusal.value.violations] == [field]
    assert (await desk.get()).revision == 1


async def test_a_client_may_cancel_without_a_name_and_with_the_longest_reason(desk: Desk) -> None:
    await desk.start()
    request = pb.CancelSagaRequest(saga_id="saga-1", reason="r" * 1_024)
    assert (await ask(desk, "CancelSaga", request)).state == pb.SAGA_STATE_COMPENSATING
    history = await desk.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="saga-1"), caller())
    assert history.events[-1].actor == "client at [::1]"

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import cast

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from coordinator.api.refusals import HistoryNotReadable
from coordinator.core.model import FailureKind, SagaState
from mesh.errors import InvalidRequest, NotFound, RecordMissing, Retry
from protos.saga.v1 import saga_pb2 as pb
from tests.unit.api.desk import Desk, caller, compiled
from tests.unit.engine.world import EPOCH_MS, World, failed

NO_STATE, UNHEARD = pb.SAGA_STATE_UNSPECIFIED, cast("pb.SagaState", 99)


async def events(desk: Desk, saga_id: str = "saga-1", size: int = 500) -> list[pb.SagaEvent]:
    request = pb.ListSagaEventsRequest(saga_id=saga_id, page_size=size)
    return list((await desk.sagas.ListSagaEvents(request, caller())).events)


async def watch(desk: Desk, *, after: int = 0, saga_id: str = "saga-1") -> list[pb.SagaEvent]:
    request = pb.WatchSagaRequest(saga_id=saga_id, after_revision=after)
    return [response.event async for response in desk.sagas.WatchSaga(request, caller())]


async def run(desk: Desk) -> None:
    """Undo saga-1, with one attempt that fails on the way."""
    await desk.start()
    await desk.coordinator.answer("DO a 1", failed())
    await desk.coordinator.answer("DO a 2")
    await desk.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
    await desk.coordinator.answer("COMPENSATE a 1")
    await desk.world.until(SagaState.COMPENSATED)


async def test_a_saga_is_shown_with_its_steps_its_input_and_its_next_attempt(desk: Desk) -> None:
    await desk.start()
    await desk.coordinator.answer("DO a 1", failed())
    while (saga := await desk.get()).revision < 2:
        await asyncio.sleep(0.001)
    given = StringValue()
    assert saga.input.Unpack(given)
    assert given.value == "in"
    assert dict(saga.keys) == {"text": "in"}
    a, b = saga.steps
    assert (a.name, a.service, a.state, a.attempt) == ("a", "test.v1.A", pb.STEP_STATE_DOING, 2)
    assert (a.failure.reason, a.failure.step) == ("TOLD", "a")
    assert a.next_attempt_time.ToMilliseconds() > desk.world.now_ms()
    assert (b.state, b.attempt) == (pb.STEP_STATE_PENDING, 0)
    assert not b.HasField("next_attempt_time")
    assert not saga.HasField("failure")
    assert not saga.HasField("stuck")
    assert not saga.HasField("deadline_time")
    assert saga.create_time.ToMilliseconds() >= EPOCH_MS


async def test_an_attempt_that_is_under_way_has_no_next_time(desk: Desk) -> None:
    await desk.start()
    await desk.coordinator.answer("DO a 1", failed())
    await desk.coordinator.sent("DO a 2")
    saga = await desk.get()
    assert saga.steps[0].attempt == 2
    assert not saga.steps[0].HasField("next_attempt_time")


async def test_a_saga_that_does_not_exist_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound) as refusal:
        await desk.get("unheard-of")
    assert refusal.value.reason == "SAGA_NOT_FOUND"
    with pytest.raises(NotFound):
        await desk.sagas.ExplainSaga(pb.ExplainSagaRequest(saga_id="unheard-of"), caller())
    with pytest.raises(NotFound):
        await events(desk, "unheard-of")
    with pytest.raises(NotFound):
        await watch(desk, saga_id="unheard-of")


async def test_the_history_says_what_happened_and_what_was_decided(desk: Desk) -> None:
    await run(desk)
    told = [(event.revision, event.kind, event.step, event.attempt) for event in await events(desk)]
    assert told == [
        (1, pb.SAGA_EVENT_KIND_STARTED, "", 0),
        (2, pb.SAGA_EVENT_KIND_ATTEMPT_FAILED, "a", 1),
        (3, pb.SAGA_EVENT_KIND_STEP_DONE, "a", 2),
        (4, pb.SAGA_EVENT_KIND_STEP_REJECTED, "b", 1),
        (5, pb.SAGA_EVENT_KIND_STEP_COMPENSATED, "a", 1),
    ]
    history = await events(desk)
    assert [event.state for event in history] == [
        pb.SAGA_STATE_RUNNING,
        pb.SAGA_STATE_RUNNING,
        pb.SAGA_STATE_RUNNING,
        pb.SAGA_STATE_COMPENSATING,
        pb.SAGA_STATE_COMPENSATED,
    ]
    (retry,) = history[1].commands
    assert (retry.step, retry.direction, retry.attempt) == ("a", pb.DIRECTION_DO, 2)
    assert retry.due_time.ToMilliseconds() > history[1].event_time.ToMilliseconds()
    assert history[1].failure.reason == "TOLD"
    (undo,) = history[3].commands
    assert (undo.step, undo.direction) == ("a", pb.DIRECTION_COMPENSATE)
    assert not undo.HasField("due_time")
    assert history[4].direction == pb.DIRECTION_COMPENSATE


async def test_events_are_paged_without_gaps(desk: Desk) -> None:
    await run(desk)
    request = pb.ListSagaEventsRequest(saga_id="saga-1", page_size=2)
    pages = []
    while True:
        response = await desk.sagas.ListSagaEvents(request, caller())
        pages.append([event.revision for event in response.events])
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert pages == [[1, 2], [3, 4], [5]]


async def test_sagas_are_listed_newest_first_page_by_page(desk: Desk) -> None:
    for number in range(5):
        await desk.start(f"saga-{number}")
    request = pb.ListSagasRequest(page_size=2)
    pages = []
    while True:
        response = await desk.sagas.ListSagas(request, caller())
        pages.append([saga.saga_id for saga in response.sagas])
        if not response.next_page_token:
            break
        request.page_token, request.page_size = response.next_page_token, 3
    assert pages == [["saga-4", "saga-3"], ["saga-2", "saga-1", "saga-0"]]


async def test_a_listed_saga_has_no_steps_and_no_input(desk: Desk) -> None:
    await desk.start()
    (saga,) = (await desk.sagas.ListSagas(pb.ListSagasRequest(), caller())).sagas
    assert (saga.definition, saga.revision) == ("story", 1)
    assert not saga.steps
    assert not saga.HasField("input")


async def test_sagas_are_found_by_definition_state_and_keys(desk: Desk) -> None:
    desk.know(compiled("other", "x"))
    await run(desk)
    await desk.start("saga-2", value="blue")
    await desk.start("saga-3", name="other", value="blue")

    async def found(request: pb.ListSagasRequest) -> list[str]:
        return [saga.saga_id for saga in (await desk.sagas.ListSagas(request, caller())).sagas]

    assert await found(pb.ListSagasRequest(definition="story")) == ["saga-2", "saga-1"]
    undone = pb.ListSagasRequest(states=[pb.SAGA_STATE_COMPENSATED])
    assert await found(undone) == ["saga-1"]
    assert await found(pb.ListSagasRequest(keys={"text": "blue"})) == ["saga-3", "saga-2"]
    other = pb.ListSagasRequest(keys={"text": "blue"}, definition="other")
    assert await found(other) == ["saga-3"]
    assert await found(pb.ListSagasRequest(definition="unheard-of")) == []


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.ListSagasRequest(page_size=-1), ["page_size"]),
        (pb.ListSagasRequest(page_token="garbage"), ["page_token"]),
        (pb.ListSagasRequest(page_token="Z2FyYmFnZQ=="), ["page_token"]),
        (pb.ListSagasRequest(page_token="\N{SNOWMAN}"), ["page_token"]),
        (pb.ListSagasRequest(definition="No Name"), ["definition"]),
        (pb.ListSagasRequest(states=[NO_STATE, UNHEARD]), ["states[0]", "states[1]"]),
        (pb.ListSagasRequest(keys={"a\0": "b"}), ["keys"]),
        (pb.ListSagasRequest(keys={"a": "b" * 1_025}), ["keys"]),
        (pb.ListSagasRequest(page_size=-1, page_token="x"), ["page_size", "page_token"]),
    ],
)
async def test_a_list_that_cannot_be_is_refused(
    desk: Desk, request_: pb.ListSagasRequest, fields: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await desk.sagas.ListSagas(request_, caller())
    assert [violation.field for violation in refusal.value.violations] == fields


async def test_a_token_leads_nowhere_in_another_list(desk: Desk) -> None:
    await desk.start("saga-1")
    await desk.start("saga-2")
    first = await desk.sagas.ListSagas(pb.ListSagasRequest(page_size=1), caller())
    assert first.next_page_token
    other = pb.ListSagasRequest(definition="story", page_token=first.next_page_token)
    with pytest.raises(InvalidRequest):
        await desk.sagas.ListSagas(other, caller())
    foreign = pb.ListSagaEventsRequest(saga_id="saga-1", page_token=first.next_page_token)
    with pytest.raises(InvalidRequest):
        await desk.sagas.ListSagaEvents(foreign, caller())


# --- watching -------------------------------------------------------------------


async def test_a_watcher_sees_every_event_and_the_stream_ends_after_the_final_one(
    desk: Desk,
) -> None:
    await desk.start()
    watched = asyncio.create_task(watch(desk))
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    seen = await watched
    assert [event.revision for event in seen] == [1, 2, 3]
    assert seen[-1].state == pb.SAGA_STATE_COMPLETED
    assert seen == await events(desk)


async def test_a_watcher_resumes_where_it_was(desk: Desk) -> None:
    await run(desk)
    assert [event.revision for event in await watch(desk, after=3)] == [4, 5]
    assert await watch(desk, after=5) == []
    assert await watch(desk, after=1_000) == []


async def test_a_watcher_of_another_instances_saga_sees_every_event(
    desk: Desk, world: World
) -> None:
    await desk.start()
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    watched = asyncio.create_task(watch(other))
    await desk.coordinator.answer("DO a 1")
    await asyncio.sleep(2)
    await desk.coordinator.answer("DO b 1")
    assert [event.revision for event in await watched] == [1, 2, 3]


async def test_a_watcher_sees_an_event_as_soon_as_it_is_on_disk(desk: Desk) -> None:
    await desk.start()
    request = pb.WatchSagaRequest(saga_id="saga-1", after_revision=1)
    async with aclosing(desk.sagas.WatchSaga(request, caller())) as stream:
        next_event = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(10)
        before = asyncio.get_running_loop().time()
        await desk.coordinator.answer("DO a 1")
        assert (await next_event).event.kind == pb.SAGA_EVENT_KIND_STEP_DONE
        assert asyncio.get_running_loop().time() - before < 0.1


async def test_nothing_is_read_ahead_of_a_slow_watcher(desk: Desk) -> None:
    await desk.start()
    async with aclosing(desk.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="saga-1"), caller())) as s:
        assert (await anext(s)).event.revision == 1
        await desk.coordinator.answer("DO a 1")
        await desk.coordinator.answer("DO b 1")
        await desk.world.until(SagaState.COMPLETED)
        desk.coordinator.journal.cut()
        with pytest.raises(Retry):
            await anext(s)


async def test_a_watcher_that_waits_is_told_when_the_journal_goes_away(desk: Desk) -> None:
    await desk.start()
    watched = asyncio.create_task(watch(desk))
    await asyncio.sleep(1)
    desk.coordinator.journal.cut()
    with pytest.raises(Retry) as refusal:
        await watched
    assert refusal.value.reason == "JOURNAL_UNAVAILABLE"


@pytest.mark.parametrize("revision", [-1, 2**31])
async def test_a_revision_that_cannot_be_is_refused(desk: Desk, revision: int) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await watch(desk, after=revision)
    assert [violation.field for violation in refusal.value.violations] == ["after_revision"]


async def test_a_saga_whose_definition_is_gone_says_so(desk: Desk) -> None:
    await desk.start()
    desk.definitions.versions.clear()
    with pytest.raises(RecordMissing) as refusal:
        await desk.get()
    assert refusal.value.reason == "DEFINITION_MISSING"


# --- sagas that cannot be read ------------------------------------------------------


async def explained(desk: Desk) -> pb.ExplainSagaResponse:
    return await desk.sagas.ExplainSaga(pb.ExplainSagaRequest(saga_id="saga-1"), caller())


async def test_a_saga_whose_definition_is_gone_is_explained_as_far_as_it_is_known(
    desk: Desk,
) -> None:
    pinned_to = (await desk.start()).definition_hash
    desk.definitions.versions.clear()
    answer = await explained(desk)
    assert f"Saga saga-1 is RUNNING and runs definition {pinned_to}." in answer.explanation
    assert "which is not stored" in answer.explanation
    assert answer.legal_verbs == []


async def test_a_history_that_this_release_cannot_read_says_so(desk: Desk) -> None:
    await desk.start()
    desk.world.store.damage("saga-1")
    cancel = pb.CancelSagaRequest(saga_id="saga-1", reason="why")
    for call in (
        desk.sagas.GetSaga(pb.GetSagaRequest(saga_id="saga-1"), caller()),
        desk.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="saga-1"), caller()),
        desk.sagas.CancelSaga(cancel, caller()),
    ):
        with pytest.raises(HistoryNotReadable) as refusal:
            await call
        assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert refusal.value.reason == "HISTORY_NOT_READABLE"
    answer = await explained(desk)
    assert "This coordinator can tell no more of it: stored by a newer release" in (
        answer.explanation
    )
    assert answer.legal_verbs == []


async def test_an_explanation_tells_how_the_participants_do_that_a_saga_waits_for(
    desk: Desk,
) -> None:
    await desk.start()
    await desk.coordinator.sent("DO a 1")
    (participant,) = (await explained(desk)).participants
    assert participant == pb.ParticipantCondition(
        participant="test", circuit=pb.CIRCUIT_STATE_CLOSED, calls_in_flight=1
    )


async def test_an_explanation_names_the_owner_wherever_it_is_asked(
    desk: Desk, world: World
) -> None:
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    await desk.start()
    explanation = (await explained(other)).explanation
    assert "Its owner is one." in explanation
    assert "waits for its answer, or to be sent: one knows." in explanation
    await desk.coordinator.kill()
    await other.coordinator.sent("DO a 1")
    assert "Its owner is two." in (await explained(other)).explanation


async def test_an_explanation_of_a_participant_that_is_away_says_so(desk: Desk) -> None:
    desk.coordinator.participants.away.add("test")
    await desk.start()
    await desk.coordinator.answer("DO a 1", failed())
    while not (condition := desk.coordinator.engine.circuit_of("test.v1.A")).open:
        await asyncio.sleep(0.1)
    answer = await explained(desk)
    (participant,) = answer.participants
    assert participant.circuit == pb.CIRCUIT_STATE_OPEN
    assert participant.since_time.ToMilliseconds() == condition.since_ms
    assert participant.failure.reason == "TOLD"
    assert "its last attempt failed: step a, UNAVAILABLE TOLD." in answer.explanation
    assert "Participant test has been away for 0 s. Its circuit is open" in answer.explanation
    assert answer.legal_verbs == ["CancelSaga"]

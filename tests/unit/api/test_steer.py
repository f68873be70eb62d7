"""One verb for every saga that a filter finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from copy import deepcopy
from typing import Any

import pytest

from coordinator.api import steer
from coordinator.api.steer import answers
from coordinator.core.model import FailureKind, SagaState
from mesh.errors import InvalidRequest, NotFound, Retry
from protos.saga.v1 import saga_pb2 as pb
from tests.unit.api.desk import Desk, caller, compiled
from tests.unit.engine.world import World, failed

RETRY_ALL = pb.SteerSagasRequest(
    verb=pb.SAGA_VERB_RETRY,
    filter=pb.SagaFilter(definition="story"),
    reason="warehouse is back",
    actor="ann",
    request_id="batch-1",
)


def retry_all(**changes: Any) -> pb.SteerSagasRequest:  # noqa: ANN401 - the message's fields
    request = deepcopy(RETRY_ALL)
    for name in changes:
        request.ClearField(name)
    request.MergeFrom(pb.SteerSagasRequest(**changes))
    return request


async def steered(desk: Desk, request: pb.SteerSagasRequest) -> dict[str, pb.SteerSagasResponse]:
    told = [answer async for answer in desk.sagas.SteerSagas(request, caller())]
    by_id = {answer.saga_id: answer for answer in told}
    assert len(by_id) == len(told)
    return by_id


def results(told: dict[str, pb.SteerSagasResponse]) -> dict[str, str]:
    return {
        saga_id: pb.SteerResult.Name(answer.result).removeprefix("STEER_RESULT_")
        for saga_id, answer in told.items()
    }


async def stick(desk: Desk, *saga_ids: str, name: str = "story", value: str = "in") -> None:
    """Bring sagas to STUCK: b was rejected, and a cannot be undone."""
    for saga_id in saga_ids:
        await desk.start(saga_id, name=name, value=value)
        await desk.coordinator.answer("DO a 1")
        await desk.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
        for attempt in (1, 2, 3):
            await desk.coordinator.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
        await desk.world.until(SagaState.STUCK, saga_id)


async def events(desk: Desk, *saga_ids: str) -> Sequence[int]:
    return [(await desk.get(saga_id)).revision for saga_id in saga_ids]


async def test_a_verb_reaches_every_saga_that_the_filter_finds_and_no_other(desk: Desk) -> None:
    desk.know(compiled("other", "a", "b"))
    await stick(desk, "s-1", "s-2")
    await stick(desk, "s-3", name="other")
    await desk.start("s-4")
    told = await steered(desk, RETRY_ALL)
    assert results(told) == {"s-1": "ACCEPTED", "s-2": "ACCEPTED"}
    assert told["s-1"].definition == "story"
    assert told["s-1"].state == pb.SAGA_STATE_STUCK
    assert (await desk.get("s-1")).state == pb.SAGA_STATE_COMPENSATING
    assert (await desk.get("s-3")).state == pb.SAGA_STATE_STUCK
    assert (await desk.get("s-4")).revision == 1


async def test_sagas_are_found_by_their_keys(desk: Desk) -> None:
    await stick(desk, "s-1", value="seven")
    await stick(desk, "s-2", value="eight")
    only = retry_all(filter=pb.SagaFilter(keys={"text": "seven"}))
    assert results(await steered(desk, only)) == {"s-1": "ACCEPTED"}


async def test_each_saga_keeps_who_asked_and_why(desk: Desk) -> None:
    await stick(desk, "s-1")
    await steered(desk, RETRY_ALL)
    history = await desk.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s-1"), caller())
    newest = history.events[-1]
    assert newest.kind == pb.SAGA_EVENT_KIND_RETRIED
    assert (newest.actor, newest.note) == ("ann", "warehouse is back")


async def test_a_dry_run_changes_nothing_and_tells_who_would_be_asked(desk: Desk) -> None:
    await stick(desk, "s-1", "s-2")
    before = await events(desk, "s-1", "s-2")
    told = await steered(desk, retry_all(dry_run=True))
    assert results(told) == {"s-1": "WOULD_ASK", "s-2": "WOULD_ASK"}
    assert await events(desk, "s-1", "s-2") == before
    assert await desk.world.reader.verb_outcome("batch-1/s-1") is None


async def test_a_dry_run_tells_who_would_refuse(desk: Desk) -> None:
    await stick(desk, "s-1")
    await desk.start("s-2")
    states = [pb.SAGA_STATE_STUCK, pb.SAGA_STATE_RUNNING]
    told = await steered(
        desk, retry_all(filter=pb.SagaFilter(definition="story", states=states), dry_run=True)
    )
    assert results(told) == {"s-1": "WOULD_ASK", "s-2": "REFUSED"}
    assert told["s-2"].explanation == "RetrySaga is not legal for a saga that is RUNNING"


async def test_a_saga_that_refuses_says_why_and_does_not_stop_the_others(desk: Desk) -> None:
    await stick(desk, "s-1")
    await desk.start("s-2")
    states = [pb.SAGA_STATE_STUCK, pb.SAGA_STATE_RUNNING]
    told = await steered(desk, retry_all(filter=pb.SagaFilter(definition="story", states=states)))
    assert results(told) == {"s-1": "ACCEPTED", "s-2": "REFUSED"}
    assert (await desk.get("s-2")).revision == 1


async def test_a_saga_that_cannot_be_read_does_not_stop_the_others(desk: Desk) -> None:
    await stick(desk, "s-1", "s-2")
    desk.world.store.damage("s-1")
    told = await steered(desk, RETRY_ALL)
    assert results(told) == {"s-1": "REFUSED", "s-2": "ACCEPTED"}
    assert told["s-1"].explanation.startswith("stored by a newer release, or damaged")


async def test_one_step_is_skipped_in_all_of_them(desk: Desk) -> None:
    await stick(desk, "s-1", "s-2")
    skip = retry_all(verb=pb.SAGA_VERB_SKIP, step="a")
    assert results(await steered(desk, skip)) == {"s-1": "ACCEPTED", "s-2": "ACCEPTED"}
    assert (await desk.get("s-2")).state == pb.SAGA_STATE_COMPENSATED


async def test_sagas_without_the_step_are_told_apart(desk: Desk) -> None:
    desk.know(compiled("other", "a", "b", "c"))
    await stick(desk, "s-1")
    skip = retry_all(verb=pb.SAGA_VERB_SKIP, step="c")
    told = await steered(desk, skip)
    assert told["s-1"].result == pb.STEER_RESULT_REFUSED
    assert told["s-1"].explanation == "step: must be one of a, b"


async def test_all_that_go_forward_are_cancelled_by_default(desk: Desk) -> None:
    await desk.start("s-1")
    await desk.coordinator.sent("DO a 1")
    cancel = retry_all(verb=pb.SAGA_VERB_CANCEL)
    assert results(await steered(desk, cancel)) == {"s-1": "ACCEPTED"}
    assert (await desk.get("s-1")).state == pb.SAGA_STATE_COMPENSATING


async def test_the_same_batch_again_asks_nobody_twice(desk: Desk) -> None:
    await stick(desk, "s-1")
    await steered(desk, RETRY_ALL)
    for attempt in (4, 5, 6):
        await desk.coordinator.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    await desk.world.until(SagaState.STUCK, "s-1")
    before = await events(desk, "s-1")
    await stick(desk, "s-2")
    told = await steered(desk, RETRY_ALL)
    assert results(told) == {"s-1": "ACCEPTED", "s-2": "ACCEPTED"}
    assert await events(desk, "s-1") == before
    assert (await desk.get("s-2")).state == pb.SAGA_STATE_COMPENSATING


async def test_more_sagas_than_a_page_are_all_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "_PAGE", 2)
    ids = [f"s-{number}" for number in range(5)]
    await stick(desk, *ids)
    assert results(await steered(desk, RETRY_ALL)) == dict.fromkeys(ids, "ACCEPTED")


async def test_a_filter_that_finds_nothing_is_told_so(desk: Desk) -> None:
    await desk.start("s-1")
    for dry_run in (True, False):
        with pytest.raises(NotFound) as refusal:
            await steered(desk, retry_all(dry_run=dry_run))
        assert refusal.value.reason == "NO_SAGA_MATCHES"
    assert (await desk.get("s-1")).revision == 1


async def test_a_saga_whose_owner_does_not_decide_is_pending(desk: Desk, world: World) -> None:
    await stick(desk, "s-1")
    await desk.coordinator.kill()
    told = await steered(desk, RETRY_ALL)
    assert results(told) == {"s-1": "PENDING"}
    await world.coordinator("two")  # and is asked nothing: the verb is in the inbox
    await world.until(SagaState.COMPENSATING, "s-1")


async def test_a_caller_that_goes_away_leaves_the_rest_unasked(desk: Desk) -> None:
    ids = [f"s-{number:02}" for number in range(steer.AT_ONCE + 4)]
    await stick(desk, *ids)
    stream = desk.sagas.SteerSagas(RETRY_ALL, caller())
    async with aclosing(stream):
        first = await anext(aiter(stream))
    assert first.result == pb.STEER_RESULT_ACCEPTED
    await asyncio.sleep(60)
    states = [(await desk.get(saga_id)).state for saga_id in ids]
    posted = [await desk.world.reader.verb_outcome(f"batch-1/{saga_id}") for saga_id in ids]
    asked = [outcome is not None for outcome in posted]
    assert 1 <= sum(asked) <= steer.AT_ONCE
    assert [state == pb.SAGA_STATE_COMPENSATING for state in states] == asked


async def test_a_journal_that_goes_away_ends_the_batch(desk: Desk) -> None:
    await stick(desk, "s-1")
    desk.coordinator.journal.cut()
    with pytest.raises(Retry) as refusal:
        await steered(desk, RETRY_ALL)
    assert refusal.value.reason == "JOURNAL_UNAVAILABLE"


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"verb": pb.SAGA_VERB_UNSPECIFIED}, ["verb"]),
        ({"verb": 99}, ["verb"]),
        ({"filter": {}}, ["filter"]),
        ({"filter": {"definition": "No Name"}}, ["filter.definition"]),
        ({"filter": {"states": [0]}}, ["filter.states[0]"]),
        ({"filter": {"keys": {"k": "v" * 1_025}}}, ["filter.keys"]),
        ({"verb": pb.SAGA_VERB_SKIP}, ["step"]),
        ({"step": "a"}, ["step"]),
        ({"reason": ""}, ["reason"]),
        ({"reason": "r" * 1_000_000}, ["reason"]),
        ({"actor": ""}, ["actor"]),
        ({"request_id": "r" * 61}, ["request_id"]),
        ({"request_id": "r\n"}, ["request_id"]),
    ],
)
async def test_a_batch_that_is_not_well_formed_asks_nobody(
    desk: Desk, changes: dict[str, object], fields: list[str]
) -> None:
    await stick(desk, "s-1")
    before = await events(desk, "s-1")
    with pytest.raises(InvalidRequest) as refusal:
        await steered(desk, retry_all(**changes))
    assert [violation.field for violation in refusal.value.violations] == fields
    assert await events(desk, "s-1") == before


# --- answers ------------------------------------------------------------------------


async def test_answers_come_as_they_are_found_and_never_too_many_at_once() -> None:
    at_work = most = 0

    async def questions() -> AsyncGenerator[int, None]:
        for seconds in (4, 1, 2, 5):
            yield seconds

    async def answer(seconds: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(seconds)
        at_work -= 1
        return seconds

    async with aclosing(answers(questions(), answer, at_once=2)) as told:
        assert [found async for found in told] == [1, 2, 4, 5]
    assert most == 2

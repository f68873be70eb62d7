from __future__ import annotations

import pytest

from mesh.effects import EffectKey, EffectState
from mesh.errors import InvalidRequest, Retry
from protos.saga.v1 import saga_pb2 as pb
from tests.unit.api.desk import Desk, caller

STRAY = EffectKey("stray", "stock")


async def told(desk: Desk, *participants: str) -> list[pb.ReconcileEffectsResponse]:
    request = pb.ReconcileEffectsRequest(participants=participants)
    return [response async for response in desk.sagas.ReconcileEffects(request, caller())]


async def test_sound_books_are_summed_up(desk: Desk) -> None:
    (last,) = await told(desk)

    assert last == pb.ReconcileEffectsResponse(
        summary=pb.ReconciliationSummary(participants=["inventory", "payment"])
    )


async def test_an_orphan_is_told_with_everything_that_is_known(desk: Desk) -> None:
    at_ms = desk.world.now_ms()
    desk.records.put("inventory", STRAY, EffectState.HELD, at_ms)

    first, last = await told(desk)

    assert first.orphan.participant == "inventory"
    assert (first.orphan.saga_id, first.orphan.step) == STRAY
    assert first.orphan.kind == pb.ORPHAN_KIND_UNKNOWN_SAGA
    assert first.orphan.saga_state == pb.SAGA_STATE_UNSPECIFIED
    assert first.orphan.effect_time.ToMilliseconds() == at_ms
    assert "knows no such saga" in first.orphan.explanation
    assert (last.summary.effects, last.summary.orphans) == (1, 1)


async def test_participants_are_asked_once_however_often_they_are_named(desk: Desk) -> None:
    desk.records.away.add("payment")

    (last,) = await told(desk, "payment", "payment")

    assert last.summary.participants == ["payment"]
    assert last.summary.unreachable == ["payment: UNAVAILABLE, gone fishing"]


async def test_a_participant_that_there_is_not_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await told(desk, "payment", "warehouse")
    (violation,) = refused.value.violations
    assert violation.field == "participants[1]"
    assert violation.description == "must be one of inventory, payment"


async def test_without_the_journal_the_client_is_asked_to_try_again(desk: Desk) -> None:
    desk.records.put("inventory", STRAY, EffectState.HELD, desk.world.now_ms())
    desk.coordinator.journal.cut()

    with pytest.raises(Retry):
        await told(desk)

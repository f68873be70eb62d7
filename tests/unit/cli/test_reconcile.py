from __future__ import annotations

import json

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import FieldViolation, InvalidRequest, Retry
from protos.saga.v1 import saga_pb2
from tests.unit.cli.conftest import Saga
from tests.unit.cli.coordinator import StandIn

ORPHAN = saga_pb2.Orphan(
    participant="inventory",
    saga_id="demo-1",
    step="reserve_stock",
    kind=saga_pb2.ORPHAN_KIND_STILL_HELD,
    saga_state=saga_pb2.SAGA_STATE_COMPENSATED,
    effect_time=Timestamp(seconds=1_767_225_600),
    explanation="restored from a backup",
)
STRAY = saga_pb2.Orphan(
    participant="payment",
    saga_id="x",
    step="y",
    kind=saga_pb2.ORPHAN_KIND_UNKNOWN_SAGA,
    explanation="by hand",
)


def found(*orphans: saga_pb2.Orphan, away: str = "") -> list[saga_pb2.ReconcileEffectsResponse]:
    summary = saga_pb2.ReconciliationSummary(
        effects=7,
        orphans=len(orphans),
        participants=["inventory", "payment"],
        unreachable=[away] if away else [],
    )
    told = [saga_pb2.ReconcileEffectsResponse(orphan=orphan) for orphan in orphans]
    return [*told, saga_pb2.ReconcileEffectsResponse(summary=summary)]


def test_sound_books_end_well(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("ReconcileEffects", *found())
    result = saga("reconcile")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "7 effects at inventory, payment: no orphan\n"
    assert list(coordinator.asked("ReconcileEffects").participants) == []


def test_orphans_are_one_line_each_and_a_failure(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("ReconcileEffects", *found(ORPHAN, STRAY))
    result = saga("reconcile", "--participant", "inventory", "--participant", "payment")
    assert result.exit_code == 1
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        [
            "inventory",
            "demo-1",
            "reserve_stock",
            "STILL_HELD",
            "COMPENSATED",
            "2026-01-01T00:00:00.000Z",
            "restored from a backup",
        ],
        ["payment", "x", "y", "UNKNOWN_SAGA", "", "", "by hand"],
    ]
    assert result.stderr == "7 effects at inventory, payment: 2 orphans\n"
    asked = coordinator.asked("ReconcileEffects")
    assert list(asked.participants) == ["inventory", "payment"]


def test_what_could_not_be_compared_is_told_and_not_well(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("ReconcileEffects", *found(away="payment: UNAVAILABLE"))
    result = saga("reconcile")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[0] == "not compared: payment: UNAVAILABLE"


def test_an_orphan_weighs_more_than_what_could_not_be_compared(
    saga: Saga, coordinator: StandIn
) -> None:
    coordinator.will("ReconcileEffects", *found(ORPHAN, away="payment: UNAVAILABLE"))
    assert saga("reconcile").exit_code == 1


def test_findings_as_json_are_one_object_a_line(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("ReconcileEffects", *found(ORPHAN))
    result = saga("reconcile", "--json")
    orphan, summary = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 1
    assert orphan["orphan"]["kind"] == "ORPHAN_KIND_STILL_HELD"
    assert summary["summary"]["effects"] == "7"


def test_a_comparison_that_breaks_off_is_not_taken_for_sound_books(
    saga: Saga, coordinator: StandIn
) -> None:
    coordinator.will("ReconcileEffects", Retry("DRAINING", "ask again"))
    assert saga("reconcile").exit_code == 3
    coordinator.will("ReconcileEffects")
    assert saga("reconcile").exit_code == 2


def test_a_participant_that_there_is_not_is_refused(saga: Saga, coordinator: StandIn) -> None:
    violation = FieldViolation("participants[0]", "must be one of inventory, payment")
    coordinator.will("ReconcileEffects", InvalidRequest([violation]))
    result = saga("reconcile", "--participant", "shop")
    assert result.exit_code == 1
    assert "must be one of inventory, payment" in result.stderr

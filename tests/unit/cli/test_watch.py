from __future__ import annotations

import json

import pytest

from cli import watch
from mesh.errors import NotFound, Retry
from protos.saga.v1 import saga_pb2
from tests.unit.cli.conftest import Saga
from tests.unit.cli.coordinator import StandIn
from tests.unit.cli.test_sagas import COMPENSATED, event

COMPLETED = saga_pb2.Saga(saga_id="demo-1", state="SAGA_STATE_COMPLETED")


def told(revision: int, kind: str) -> saga_pb2.WatchSagaResponse:
    return saga_pb2.WatchSagaResponse(event=event(revision, kind))


def test_a_saga_is_followed_line_by_line_to_its_end(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("WatchSaga", told(3, "STEP_DONE"), told(4, "STEP_DONE"))
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=COMPLETED))
    result = saga("watch", "demo-1", "--after", "2")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["3", "4"]
    assert coordinator.asked("WatchSaga").after_revision == 2


def test_events_as_json_are_one_object_a_line(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("WatchSaga", told(1, "STARTED"), told(2, "STEP_DONE"))
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=COMPLETED))
    lines = saga("watch", "demo-1", "--json").stdout.splitlines()
    assert [json.loads(line)["revision"] for line in lines] == ["1", "2"]


def test_a_saga_that_was_undone_ends_the_command_with_a_code_of_its_own(
    saga: Saga, coordinator: StandIn
) -> None:
    coordinator.will("WatchSaga", told(1, "STARTED"))
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=COMPENSATED))
    assert saga("watch", "demo-1").exit_code == 4


def test_watching_goes_on_after_the_last_event_when_the_coordinator_is_back(
    saga: Saga, coordinator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RECONNECT_SECONDS", 0)
    away = Retry("DRAINING", "resume elsewhere")
    coordinator.will("WatchSaga", told(1, "STARTED"), away, away, told(2, "STEP_DONE"))
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=COMPLETED))
    result = saga("watch", "demo-1")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["1", "2"]
    assert "goes on after revision 1" in result.stderr
    assert [it.after_revision for it in coordinator.requests["WatchSaga"]] == [0, 1, 1]


def test_an_unknown_saga_is_not_watched(saga: Saga, coordinator: StandIn) -> None:
    unknown = NotFound("SAGA_NOT_FOUND", "none", resource_type="saga.v1.Saga", name="demo-1")
    coordinator.will("WatchSaga", unknown)
    result = saga("watch", "demo-1")
    assert result.exit_code == 1
    assert "SAGA_NOT_FOUND" in result.stderr


def test_a_terminal_shows_one_table_that_changes(
    saga: Saga, coordinator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    coordinator.will("WatchSaga", told(1, "STARTED"))
    answer = saga_pb2.GetSagaResponse(saga=COMPENSATED)
    coordinator.will("GetSaga", answer, answer)
    result = saga("watch", "demo-1")
    assert "demo-1 of place-order is COMPENSATED" in result.stdout
    assert "STARTED" not in result.stdout
    assert "create_order" in result.stdout

"""`saga retry --all` and its like."""

from __future__ import annotations

import json

import pytest

from cli import steer
from mesh.errors import NotFound, Retry
from protos.saga.v1 import saga_pb2
from tests.unit.cli.conftest import Saga
from tests.unit.cli.coordinator import StandIn

ALL = ("retry", "--all", "--definition", "place-order", "--reason", "warehouse is back")
NONE = NotFound("NO_SAGA_MATCHES", "no saga matches", resource_type="saga.v1.Saga", name="")


def told(saga_id: str, result: str, explanation: str = "") -> saga_pb2.SteerSagasResponse:
    return saga_pb2.SteerSagasResponse(
        saga_id=saga_id,
        definition="place-order",
        state="SAGA_STATE_STUCK",
        result=f"STEER_RESULT_{result}",
        explanation=explanation,
    )


@pytest.fixture
def someone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits before the terminal."""
    monkeypatch.setattr(steer, "_someone_is_there", lambda: True)


def test_all_that_match_are_asked_and_told_line_by_line(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("SteerSagas", told("demo-1", "ACCEPTED"), told("demo-2", "ACCEPTED"))
    result = saga(*ALL, "--state", "STUCK", "--key", "customer_id=7", "--yes")
    assert (result.exit_code, result.stderr) == (0, "2 accepted\n")
    assert result.stdout.splitlines() == [
        "demo-1\tplace-order\tSTUCK\tACCEPTED\t",
        "demo-2\tplace-order\tSTUCK\tACCEPTED\t",
    ]
    asked = coordinator.asked("SteerSagas")
    assert asked.verb == saga_pb2.SAGA_VERB_RETRY
    assert asked.filter == saga_pb2.SagaFilter(
        definition="place-order",
        states=[saga_pb2.SAGA_STATE_STUCK],
        keys={"customer_id": "7"},
    )
    assert (asked.reason, asked.actor, asked.dry_run) == ("warehouse is back", "ada", False)
    assert 0 < len(asked.request_id) <= 60


def test_one_step_can_be_skipped_in_all(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("SteerSagas", told("demo-1", "ACCEPTED"))
    skip = ("skip", "--all", "--state", "STUCK", "--step", "charge", "--reason", "r", "--yes")
    assert saga(*skip).exit_code == 0
    asked = coordinator.asked("SteerSagas")
    assert (asked.verb, asked.step) == (saga_pb2.SAGA_VERB_SKIP, "charge")


@pytest.mark.parametrize("result", ["REFUSED", "PENDING"])
def test_one_that_does_not_accept_is_an_exit_code(
    saga: Saga, coordinator: StandIn, result: str
) -> None:
    coordinator.will("SteerSagas", told("demo-1", "ACCEPTED"), told("demo-2", result, "not now"))
    ended = saga(*ALL, "--yes")
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[1] == f"demo-2\tplace-order\tSTUCK\t{result}\tnot now"
    assert ended.stderr == f"1 accepted, 1 {result.lower()}\n"


def test_without_a_terminal_nothing_is_asked_until_it_is_said_to_be_meant(
    saga: Saga, coordinator: StandIn
) -> None:
    result = saga(*ALL)
    assert result.exit_code == 2
    assert "add --yes" in result.stderr
    assert coordinator.requests == {}


def test_a_dry_run_needs_no_confirmation(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("SteerSagas", told("demo-1", "WOULD_ASK"))
    result = saga(*ALL, "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "1 would ask\n")
    assert coordinator.asked("SteerSagas").dry_run


@pytest.mark.usefixtures("someone")
def test_on_a_terminal_they_are_shown_before_they_are_asked(
    saga: Saga, coordinator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "_SHOWN", 1)
    would = told("demo-1", "WOULD_ASK"), told("demo-2", "WOULD_ASK")
    done = told("demo-1", "ACCEPTED"), told("demo-2", "ACCEPTED")
    coordinator.will("SteerSagas", *would, None, *done)
    result = saga(*ALL, stdin="y\n")
    assert result.exit_code == 0
    assert "and 1 more" in result.stdout
    assert "2 would ask. Go on?" in result.stdout
    assert [request.dry_run for request in coordinator.requests["SteerSagas"]] == [True, False]


@pytest.mark.usefixtures("someone")
def test_who_says_no_has_asked_nobody(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("SteerSagas", told("demo-1", "WOULD_ASK"))
    result = saga(*ALL, stdin="n\n")
    assert result.exit_code == 1
    assert coordinator.asked("SteerSagas").dry_run


def test_a_filter_that_finds_nothing_is_an_error(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("SteerSagas", NONE)
    result = saga(*ALL, "--yes")
    assert result.exit_code == 1
    assert "NO_SAGA_MATCHES" in result.stderr


def test_a_coordinator_that_goes_away_is_asked_for_the_rest_and_each_saga_told_once(
    saga: Saga, coordinator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "RECONNECT_SECONDS", 0)
    away = Retry("DRAINING", "resume elsewhere")
    first, second = told("demo-1", "ACCEPTED"), told("demo-2", "ACCEPTED")
    coordinator.will("SteerSagas", first, away, first, second, away, NONE)
    result = saga(*ALL, "--yes")
    assert result.exit_code == 0
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["demo-1", "demo-2"]
    assert len({request.request_id for request in coordinator.requests["SteerSagas"]}) == 1
    assert len(coordinator.requests["SteerSagas"]) == 3


def test_answers_as_json_are_one_object_a_line(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("SteerSagas", told("demo-1", "ACCEPTED"), told("demo-2", "REFUSED", "final"))
    lines = saga(*ALL, "--yes", "--json").stdout.splitlines()
    assert [json.loads(line)["sagaId"] for line in lines] == ["demo-1", "demo-2"]
    assert json.loads(lines[1])["explanation"] == "final"


def test_a_terminal_gets_colours(
    saga: Saga, coordinator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    coordinator.will("SteerSagas", told("demo-1", "REFUSED", "not legal"))
    result = saga(*ALL, "--yes")
    assert "\x1b[31m" in result.stdout
    assert "demo-1  place-order  STUCK  REFUSED  not legal" in result.stdout

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import any_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import Result

from cli import sagas
from cli.refusal import EXIT_NOT_COMPLETED, EXIT_REFUSED
from local.ports import free_port
from mesh.errors import (
    FieldViolation,
    InvalidRequest,
    MeshError,
    NotNow,
    RecordMissing,
    Retry,
)
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2
from tests.unit.cli.conftest import Saga
from tests.unit.cli.coordinator import StandIn

NOON = Timestamp(seconds=1_772_366_400)
INPUT = order_pb2.PlaceOrderInput(order_id="order-1", customer_id="ada")
PACKED = any_pb2.Any()
PACKED.Pack(INPUT)
DECLINED = saga_pb2.Failure(
    code="FAILED_PRECONDITION", reason="CARD_DECLINED", message="no", step="charge_payment"
)
COMPENSATED = saga_pb2.Saga(
    saga_id="demo-1",
    definition="place-order",
    state="SAGA_STATE_COMPENSATED",
    revision=7,
    failure=DECLINED,
    create_time=NOON,
    update_time=NOON,
    keys={"order_id": "order-1"},
    input=PACKED,
    steps=[
        saga_pb2.StepProgress(
            name="create_order",
            service="order.v1.CreateOrder",
            state="STEP_STATE_COMPENSATED",
            attempt=1,
        ),
        saga_pb2.StepProgress(name="charge_payment", state="STEP_STATE_REJECTED", failure=DECLINED),
    ],
)


def definition_of(input_type: str) -> saga_pb2.GetDefinitionResponse:
    definition = saga_pb2.Definition(name="place-order", input=input_type)
    return saga_pb2.GetDefinitionResponse(
        version=saga_pb2.DefinitionVersion(name="place-order", definition=definition)
    )


def event(revision: int, kind: str) -> saga_pb2.SagaEvent:
    return saga_pb2.SagaEvent(
        revision=revision,
        kind=f"SAGA_EVENT_KIND_{kind}",
        event_time=NOON,
        state="SAGA_STATE_RUNNING",
    )


def test_a_saga_is_started_with_its_input_in_the_type_of_the_definition(
    saga: Saga, coordinator: StandIn, tmp_path: Path
) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"order_id": "order-1", "customerId": "ada"}', encoding="utf-8")
    coordinator.will("GetDefinition", definition_of("order.v1.PlaceOrderInput"))
    started = saga_pb2.Saga(saga_id="demo-1", definition="place-order", state="SAGA_STATE_RUNNING")
    coordinator.will("StartSaga", saga_pb2.StartSagaResponse(saga=started))
    result = saga("start", "place-order", "--input", str(file), "--id", "demo-1")
    assert result.exit_code == 0
    assert result.stdout.startswith("demo-1 of place-order is RUNNING")
    asked = coordinator.asked("StartSaga")
    assert (asked.saga_id, asked.definition) == ("demo-1", "place-order")
    unpacked = order_pb2.PlaceOrderInput()
    assert asked.input.Unpack(unpacked)
    assert unpacked == INPUT


def told(state: str) -> saga_pb2.StartSagaResponse:
    started = saga_pb2.Saga(
        saga_id="made-1", definition="place-order", definition_hash="ab" * 32, state=state
    )
    return saga_pb2.StartSagaResponse(saga=started)


def start_and_wait(saga: Saga, coordinator: StandIn) -> Result:
    coordinator.will("GetDefinition", definition_of("order.v1.PlaceOrderInput"))
    return saga("start", "place-order", "--input", "-", "--wait", stdin="{}")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("SAGA_STATE_COMPLETED", 0),
        ("SAGA_STATE_COMPENSATED", EXIT_NOT_COMPLETED),
        ("SAGA_STATE_STUCK", EXIT_NOT_COMPLETED),
    ],
)
def test_a_saga_that_is_waited_for_is_shown_as_it_ended(
    saga: Saga, coordinator: StandIn, state: str, code: int
) -> None:
    coordinator.will("StartSaga", told("SAGA_STATE_RUNNING"), told("SAGA_STATE_RUNNING"))
    coordinator.will("StartSaga", told(state))
    result = start_and_wait(saga, coordinator)
    assert result.exit_code == code
    assert result.stdout.startswith(f"made-1 of place-order is {state.removeprefix('SAGA_STATE_')}")
    asked = [(it.saga_id, it.wait) for it in coordinator.requests["StartSaga"]]
    assert asked == [("", False), ("made-1", True), ("made-1", True)]


def test_a_coordinator_that_is_away_for_a_while_is_waited_for(
    saga: Saga, coordinator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sagas, "RECONNECT_SECONDS", 0)
    coordinator.will("StartSaga", told("SAGA_STATE_RUNNING"), Retry("DRAINING", "later"))
    coordinator.will("StartSaga", told("SAGA_STATE_COMPLETED"))
    result = start_and_wait(saga, coordinator)
    assert result.exit_code == 0
    assert "waiting for made-1 goes on" in result.stderr


def test_what_is_refused_while_it_is_waited_for_is_told(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("StartSaga", told("SAGA_STATE_RUNNING"))
    coordinator.will("StartSaga", RecordMissing("DEFINITION_MISSING", "gone"))
    result = start_and_wait(saga, coordinator)
    assert result.exit_code == EXIT_REFUSED
    assert "DATA_LOSS DEFINITION_MISSING" in result.stderr


@pytest.mark.parametrize("text", ["{", '{"no_such_field": 1}', '{"order_id": 1}', "[]"])
def test_an_input_that_does_not_fit_its_type_starts_nothing(
    saga: Saga, coordinator: StandIn, text: str
) -> None:
    coordinator.will("GetDefinition", definition_of("order.v1.PlaceOrderInput"))
    result = saga("start", "place-order", "--input", "-", stdin=text)
    assert result.exit_code == 2
    assert "order.v1.PlaceOrderInput" in result.stderr
    assert "StartSaga" not in coordinator.requests


def test_an_input_of_a_type_that_nobody_knows_starts_nothing(
    saga: Saga, coordinator: StandIn
) -> None:
    coordinator.will("GetDefinition", definition_of("loyalty.v1.WelcomeInput"))
    result = saga("start", "welcome", "--input", "-", stdin="{}")
    assert result.exit_code == 2
    assert "loyalty.v1.WelcomeInput" in result.stderr


def test_a_saga_is_shown_with_every_step(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=COMPENSATED))
    result = saga("get", "demo-1")
    assert result.stdout.splitlines() == [
        "demo-1 of place-order is COMPENSATED, revision 7",
        "created 2026-03-01T12:00:00.000Z, updated 2026-03-01T12:00:00.000Z",
        "order_id=order-1",
        "aborted: charge_payment: CARD_DECLINED: no",
        "create_order\torder.v1.CreateOrder\tCOMPENSATED\t1\t\t",
        "charge_payment\t\tREJECTED\t\t\tCARD_DECLINED: no",
    ]


def test_a_saga_as_json_shows_its_input_in_its_own_type(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=COMPENSATED))
    shown = json.loads(saga("get", "demo-1", "--json").stdout)
    assert shown["state"] == "SAGA_STATE_COMPENSATED"
    assert shown["input"] == {
        "@type": "type.googleapis.com/order.v1.PlaceOrderInput",
        "orderId": "order-1",
        "customerId": "ada",
    }


def test_an_input_of_an_unknown_type_is_left_out_with_a_warning(
    saga: Saga, coordinator: StandIn
) -> None:
    unknown = any_pb2.Any(type_url="type.googleapis.com/loyalty.v1.WelcomeInput", value=b"x")
    answer = saga_pb2.Saga(saga_id="demo-1", input=unknown)
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=answer))
    result = saga("get", "demo-1", "--json")
    assert json.loads(result.stdout) == {"sagaId": "demo-1"}
    assert "loyalty.v1.WelcomeInput" in result.stderr


def test_sagas_are_filtered_and_listed_up_to_the_limit(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will(
        "ListSagas",
        saga_pb2.ListSagasResponse(sagas=[COMPENSATED] * 2, next_page_token="more"),
        saga_pb2.ListSagasResponse(sagas=[COMPENSATED] * 2, next_page_token="more"),
    )
    result = saga(
        *("list", "--definition", "place-order", "--state", "stuck", "--state", "COMPENSATED"),
        *("--key", "order_id=order=1", "--limit", "3"),
    )
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["demo-1"] * 3
    asked = coordinator.requests["ListSagas"][0]
    assert (asked.definition, asked.page_size) == ("place-order", 3)
    assert list(asked.states) == [saga_pb2.SAGA_STATE_STUCK, saga_pb2.SAGA_STATE_COMPENSATED]
    assert dict(asked.keys) == {"order_id": "order=1"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--state", "LOST"),
        ("list", "--state", "UNSPECIFIED"),
        ("list", "--key", "order_id"),
        ("list", "--limit", "0"),
        ("get",),
        ("cancel", "demo-1"),
    ],
)
def test_wrong_usage_asks_nothing(
    saga: Saga, coordinator: StandIn, arguments: tuple[str, ...]
) -> None:
    assert saga(*arguments).exit_code == 2
    assert coordinator.requests == {}


def test_the_events_of_all_pages_are_listed_one_a_line(saga: Saga, coordinator: StandIn) -> None:
    failed = event(2, "ATTEMPT_FAILED")
    failed.MergeFrom(
        saga_pb2.SagaEvent(
            step="charge",
            direction="DIRECTION_DO",
            attempt=1,
            failure=saga_pb2.Failure(code="UNAVAILABLE"),
            commands=[
                saga_pb2.SagaCommand(
                    step="charge", direction="DIRECTION_DO", attempt=2, due_time=NOON
                )
            ],
        )
    )
    aborted = event(3, "ABORTED")
    aborted.MergeFrom(saga_pb2.SagaEvent(actor="ada", note="changed my mind"))
    coordinator.will(
        "ListSagaEvents",
        saga_pb2.ListSagaEventsResponse(events=[event(1, "STARTED")], next_page_token="more"),
        saga_pb2.ListSagaEventsResponse(events=[failed, aborted]),
    )
    time = "2026-03-01T12:00:00.000Z"
    assert saga("events", "demo-1").stdout.splitlines() == [
        f"  1 {time} RUNNING STARTED",
        f"  2 {time} RUNNING ATTEMPT_FAILED charge do 1 (UNAVAILABLE) -> charge do 2 at {time}",
        f"  3 {time} RUNNING ABORTED by ada: changed my mind",
    ]


def test_an_explanation_ends_with_what_can_be_done(saga: Saga, coordinator: StandIn) -> None:
    answer = saga_pb2.ExplainSagaResponse(
        explanation="It waits.", legal_verbs=["RetrySaga", "AbandonSaga"]
    )
    coordinator.will("ExplainSaga", answer)
    assert saga("explain", "demo-1").stdout == ("It waits.\nAccepted now: RetrySaga, AbandonSaga\n")


def test_an_explanation_shows_how_the_participants_do(saga: Saga, coordinator: StandIn) -> None:
    away = saga_pb2.ParticipantCondition(
        participant="payment",
        circuit="CIRCUIT_STATE_OPEN",
        waiting_calls=12,
        calls_in_flight=1,
        failure=saga_pb2.Failure(code="UNAVAILABLE", message="no route"),
    )
    away.since_time.FromJsonString("2026-03-01T12:00:00Z")
    answer = saga_pb2.ExplainSagaResponse(explanation="It waits.", participants=[away])
    coordinator.will("ExplainSaga", answer)
    assert saga("explain", "demo-1").stdout.splitlines()[1] == (
        "payment\tOPEN\t2026-03-01T12:00:00.000Z\t1\t12\tUNAVAILABLE: no route"
    )


@pytest.mark.parametrize(
    "command",
    [
        *["start", "get", "list", "watch", "events", "explain"],
        *["cancel", "retry", "skip", "abandon"],
        *[f"definitions {name}" for name in ("register", "validate", "list", "show")],
    ],
)
def test_the_help_of_every_command_has_an_example(saga: Saga, command: str) -> None:
    text = " ".join(saga(*command.split(), "--help").stdout.split())
    assert f"Example: saga {command}" in text


@pytest.mark.parametrize(
    ("refusal", "exit_code", "lines"),
    [
        (
            InvalidRequest([FieldViolation("saga_id", "must match x")]),
            1,
            ["error: INVALID_ARGUMENT INVALID_REQUEST", "  - saga_id: must match x"],
        ),
        (
            NotNow("VERB_NOT_LEGAL", "not now", state="COMPLETED", allowed=["RUNNING"]),
            1,
            [
                "error: FAILED_PRECONDITION VERB_NOT_LEGAL",
                "  not now",
                "  it is COMPLETED; allowed in: RUNNING",
            ],
        ),
        (
            Retry("JOURNAL_UNAVAILABLE", "the database is away", retry_after_ms=1_500),
            3,
            [
                "error: UNAVAILABLE JOURNAL_UNAVAILABLE",
                "  the database is away",
                "  try again in 1.5 s",
            ],
        ),
    ],
)
def test_a_refusal_is_told_in_full(
    saga: Saga, coordinator: StandIn, refusal: MeshError, exit_code: int, lines: list[str]
) -> None:
    coordinator.will("GetSaga", refusal)
    result = saga("get", "demo-1")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.splitlines() == lines


def test_a_coordinator_that_is_not_there_is_said_to_be_away(saga: Saga) -> None:
    result = saga("--address", "127.0.0.1:1", "get", "demo-1")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: UNAVAILABLE\n")


def test_of_several_addresses_the_first_that_answers_is_asked(
    saga: Saga, coordinator: StandIn
) -> None:
    coordinator.will("GetSaga", saga_pb2.GetSagaResponse(saga=COMPENSATED))
    addresses = f"ipv4:127.0.0.1:{free_port()},{coordinator.address}"
    result = saga("--address", addresses, "get", "demo-1")
    assert result.stdout.startswith("demo-1 of place-order is COMPENSATED")

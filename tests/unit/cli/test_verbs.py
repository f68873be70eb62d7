from __future__ import annotations

import pytest

from cli import verbs
from coordinator.api.refusals import SagaChanged
from mesh.errors import NotNow, Retry
from protos.saga.v1 import saga_pb2
from tests.unit.cli.conftest import Saga
from tests.unit.cli.coordinator import StandIn

RUNNING = saga_pb2.Saga(saga_id="demo-1", definition="place-order", state="SAGA_STATE_RUNNING")
WHY = ("--reason", "asked by the customer")


@pytest.mark.parametrize(
    ("arguments", "rpc", "response"),
    [
        (("cancel", "demo-1"), "CancelSaga", saga_pb2.CancelSagaResponse(saga=RUNNING)),
        (("retry", "demo-1"), "RetrySaga", saga_pb2.RetrySagaResponse(saga=RUNNING)),
        (
            ("skip", "demo-1", "--step", "charge"),
            "SkipStep",
            saga_pb2.SkipStepResponse(saga=RUNNING),
        ),
        (("abandon", "demo-1"), "AbandonSaga", saga_pb2.AbandonSagaResponse(saga=RUNNING)),
    ],
)
def test_a_verb_says_who_asks_and_why(
    saga: Saga,
    coordinator: StandIn,
    arguments: tuple[str, ...],
    rpc: str,
    response: saga_pb2.CancelSagaResponse,
) -> None:
    coordinator.will(rpc, response)
    result = saga(*arguments, *WHY)
    assert result.exit_code == 0
    assert result.stdout.startswith("demo-1 of place-order is RUNNING")
    asked = coordinator.asked(rpc)
    assert (asked.saga_id, asked.reason, asked.actor) == ("demo-1", WHY[1], "ada")
    assert getattr(asked, "step", "charge") == "charge"


def test_an_actor_can_be_named(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("CancelSaga", saga_pb2.CancelSagaResponse(saga=RUNNING))
    saga("cancel", "demo-1", *WHY, "--actor", "grace")
    assert coordinator.asked("CancelSaga").actor == "grace"


def test_a_verb_may_be_for_one_revision_only(saga: Saga, coordinator: StandIn) -> None:
    revisions = {"revision": "9", "expected_revision": "7"}
    changed = SagaChanged("SAGA_CHANGED", "it is STUCK at revision 9", metadata=revisions)
    coordinator.will("RetrySaga", changed)
    result = saga("retry", "demo-1", *WHY, "--revision", "7")
    assert coordinator.asked("RetrySaga").revision == 7
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: FAILED_PRECONDITION SAGA_CHANGED",
        "  it is STUCK at revision 9",
        "  it is revision 9; revision 7 was expected; look again",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retry",), "name one SAGA, or say --all"),
        (("retry", "demo-1", "--all"), "name one SAGA, or say --all"),
        (("retry", "--all"), "--all needs --definition, --state or --key"),
        (("retry", "--all", "--state", "STUCK", "--revision", "3"), "--revision is for one SAGA"),
        (("retry", "demo-1", "--state", "STUCK"), "go with --all"),
        (("retry", "demo-1", "--yes"), "go with --all"),
        (("retry", "--all", "--state", "BROKEN"), "--state is one of"),
        (("retry", "--all", "--key", "seven"), "--key is KEY=VALUE"),
        (("skip", "demo-1"), "--step"),
    ],
)
def test_what_is_not_said_clearly_is_asked_of_nobody(
    saga: Saga, coordinator: StandIn, arguments: tuple[str, ...], said: str
) -> None:
    result = saga(*arguments, *WHY)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert coordinator.requests == {}


def test_a_verb_without_a_reason_is_asked_of_nobody(saga: Saga, coordinator: StandIn) -> None:
    assert saga("retry", "demo-1").exit_code == 2
    assert coordinator.requests == {}


def test_an_abandoned_saga_lists_the_effects_that_stay(saga: Saga, coordinator: StandIn) -> None:
    answer = saga_pb2.AbandonSagaResponse(saga=RUNNING, open_steps=["charge", "ship"])
    coordinator.will("AbandonSaga", answer)
    assert "effects that stay: charge, ship" in saga("abandon", "demo-1", *WHY).stdout


def test_a_verb_that_is_not_decided_yet_is_asked_again_as_the_same_request(
    saga: Saga, coordinator: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "_WAIT_SECONDS", 0)
    coordinator.will(
        "CancelSaga",
        Retry("VERB_PENDING", "not decided yet"),
        Retry("VERB_PENDING", "not decided yet"),
        saga_pb2.CancelSagaResponse(saga=RUNNING),
    )
    assert saga("cancel", "demo-1", *WHY).exit_code == 0
    ids = [request.request_id for request in coordinator.requests["CancelSaga"]]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]


def test_a_verb_that_is_not_legal_is_refused_once(saga: Saga, coordinator: StandIn) -> None:
    refusal = NotNow("VERB_NOT_LEGAL", "it has ended", state="COMPLETED", allowed=["RUNNING"])
    coordinator.will("CancelSaga", refusal)
    result = saga("cancel", "demo-1", *WHY)
    assert result.exit_code == 1
    assert "it is COMPLETED; allowed in: RUNNING" in result.stderr

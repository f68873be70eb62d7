"""Services that nobody serves, that two serve, or that are no steps."""

from __future__ import annotations

import pytest

from coordinator.definitions.compiler import compile_definition
from coordinator.definitions.services import Offer
from coordinator.participants.base import ParticipantUnreachable
from tests.unit.definitions.contracts import contract, shop, step
from tests.unit.definitions.problems import CONFIRM, only_problem, with_steps

DOWN = ParticipantUnreachable("payment at payment:50054 does not tell its contract: UNAVAILABLE")


def test_an_unreachable_participant_is_told_where_its_service_is_needed() -> None:
    offer = Offer(contracts=shop().contracts, unreachable=[DOWN])
    needs = CONFIRM.replace("order.v1.ConfirmOrder,", "«refund.v1.Refund,")
    problem = only_problem(with_steps(needs), offer)
    assert problem.reason == "PARTICIPANT_UNREACHABLE"
    assert "no participant serves refund.v1.Refund now: payment at payment:50054" in problem.message


def test_an_unreachable_participant_that_is_not_needed_does_not_matter() -> None:
    offer = Offer(contracts=shop().contracts, unreachable=[DOWN])
    assert compile_definition(with_steps(CONFIRM), offer).version.name == "place-order"


def test_an_input_that_only_an_unreachable_participant_may_have_is_told() -> None:
    offer = Offer(contracts=shop().contracts, unreachable=[DOWN])
    source = f"name: a\ninput: «refund.v1.Input\nsteps:\n{CONFIRM}"
    assert only_problem(source, offer).reason == "PARTICIPANT_UNREACHABLE"


def test_a_service_of_two_participants_is_refused() -> None:
    both = [contract(name, pay=f"package pay.v1; {step('Pay', '')}") for name in ("east", "west")]
    offer = Offer.of([*shop().contracts, *both])
    pay = "- {name: pay, service: «pay.v1.Pay, request: 'pay.v1.PayRequest{}'}"
    problem = only_problem(with_steps(pay), offer)
    assert problem.reason == "SERVICE_SERVED_TWICE"
    assert "east, west" in problem.message


DO = "rpc Do(A) returns (B);"
COMPENSATE = "rpc Compensate(C) returns (B);"
COMPENSATION = "message C { A request = 1; optional B response = 2; }"


@pytest.mark.parametrize(
    ("methods", "compensation", "message"),
    [
        (
            f"{DO} {COMPENSATE} rpc Check(A) returns (B);",
            COMPENSATION,
            "this has Check, Compensate, Do",
        ),
        (f"rpc Do(stream A) returns (B); {COMPENSATE}", COMPENSATION, "Do streams"),
        (f"{DO} rpc Compensate(C) returns (stream B);", COMPENSATION, "Compensate streams"),
        (
            f"{DO} {COMPENSATE}",
            "message C { A request = 2; }",
            "t.v1.C lacks the field t.v1.A request = 1; t.v1.C lacks the field t.v1.B response = 2",
        ),
        (
            f"{DO} {COMPENSATE}",
            "message C { A request = 1; repeated B response = 2; }",
            "t.v1.C lacks the field t.v1.B response = 2",
        ),
        (
            f"{DO} {COMPENSATE}",
            "message C { B request = 1; B response = 2; string why = 3; }",
            "t.v1.C lacks the field t.v1.A request = 1; t.v1.C has a field too many: why = 3",
        ),
    ],
)
def test_a_service_that_is_no_step_is_refused_with_all_it_lacks(
    methods: str, compensation: str, message: str
) -> None:
    proto = (
        f"package t.v1; message A {{}} message B {{}} {compensation} service Pay {{ {methods} }}"
    )
    source = (
        "name: a\ninput: t.v1.A\nsteps:\n- {name: pay, service: «t.v1.Pay, request: 't.v1.A{}'}"
    )
    problem = only_problem(source, Offer.of([contract("pay", pay=proto)]))
    assert problem.reason == "NOT_A_STEP"
    assert problem.message.startswith("t.v1.Pay is no step: ")
    assert problem.message.endswith(message)

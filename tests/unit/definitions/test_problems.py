"""Every kind of bad definition, with the place that the author has to look at.

In the YAML of a case, « stands before the place and is taken out.
"""

from __future__ import annotations

import pytest

from coordinator.definitions.base import DefinitionProblem, DefinitionRefused
from coordinator.definitions.compiler import compile_definition
from coordinator.definitions.services import Offer
from coordinator.participants.base import ParticipantUnreachable
from tests.unit.definitions.contracts import contract, shop, step

HEAD = "name: place-order\ninput: order.v1.PlaceOrderInput\n"
CONFIRM = (
    "- {name: confirm, service: order.v1.ConfirmOrder, request: 'order.v1.ConfirmOrderRequest{}'}"
)
CREATE = f"""{HEAD}steps:
- name: create
  service: order.v1.CreateOrder
  request: """


def problems(source: str, offer: Offer | None = None) -> tuple[DefinitionProblem, ...]:
    with pytest.raises(DefinitionRefused) as refused:
        compile_definition(source, offer or shop())
    return refused.value.problems


def only_problem(marked: str, offer: Offer | None = None) -> DefinitionProblem:
    """The one problem of a YAML, checked to be where « stands."""
    before, _, after = marked.partition("«")
    (problem,) = problems(before + after, offer)
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    assert (problem.line, problem.column) == (line, column), problem
    assert_caret(problem, before + after)
    return problem


def assert_caret(problem: DefinitionProblem, source: str) -> None:
    """The caret stands under the character at the problem's line and column."""
    shown, caret = problem.excerpt.split("\n")
    line = [*source.split("\n"), ""][problem.line - 1]
    start = line.index(shown)
    assert caret.strip() == "^"
    assert start + caret.index("^") + 1 == problem.column


@pytest.mark.parametrize(
    ("reason", "path", "message", "source"),
    [
        ("YAML_EMPTY", "", "no definition", "«# nothing yet\n"),
        ("YAML_INVALID", "", "expected the node content", "name: «]"),
        ("YAML_INVALID", "", "a second one begins", "name: a\n«---\nname: b"),
        ("YAML_INVALID", "", "no anchor &x", "name: «*x"),
        ("YAML_INVALID", "", "no anchor &x", "name: &x [«*x]"),
        ("YAML_INVALID", "", "escape that stands for no", 'name: «"\\ud800"'),
        ("YAML_INVALID", "", "that YAML forbids", "name: a«\x07b"),
        ("YAML_INVALID", "", "after `request: |`", "request: a.B{c«: d}"),
        ("YAML_TAG", "", "tags", "name: «!!str x"),
        ("YAML_TOO_DEEP", "", "16 levels", "[" * 17 + "«["),
        ("WRONG_SHAPE", "", "expected fields with values, given a list", "«[]"),
        ("WRONG_SHAPE", "", "given 'text'", "«text"),
    ],
)
def test_a_text_that_is_no_yaml_mapping_is_refused(
    reason: str, path: str, message: str, source: str
) -> None:
    problem = only_problem(source) if source != "«[]" else problems("[]")[0]
    assert (problem.reason, problem.path) == (reason, path)
    assert message in problem.message


def with_steps(steps: str) -> str:
    return f"{HEAD}steps:\n{steps}\n"


def with_field(field: str) -> str:
    return f"{HEAD}{field}\nsteps:\n{CONFIRM}\n"


def with_step_field(field: str) -> str:
    return f"{CREATE}'order.v1.CreateOrderRequest{{}}'\n  {field}\n"


@pytest.mark.parametrize(
    ("reason", "path", "message", "source"),
    [
        (
            "BAD_NAME",
            "name",
            "must match [a-z][a-z0-9-]{0,62}, given 'Place'",
            f"name: «Place\ninput: order.v1.PlaceOrderInput\nsteps:\n{CONFIRM}",
        ),
        (
            "MISSING",
            "name",
            "name is missing",
            f"«input: order.v1.PlaceOrderInput\nsteps:\n{CONFIRM}",
        ),
        ("WRONG_SHAPE", "name", "expected text, given 5", "name: «5\n" + with_field("")[18:]),
        ("MISSING", "steps", "at least one step", f"{HEAD}steps: «[]"),
        ("MISSING", "steps", "at least one step", f"«{HEAD}"),
        ("WRONG_SHAPE", "steps", "expected a list, given fields", f"{HEAD}steps: «{{a: b}}"),
        ("UNKNOWN_FIELD", "deadlin", "did you mean deadline?", with_field("«deadlin: 5s")),
        ("DUPLICATE_FIELD", "", "name is written twice", with_field("«name: again")),
        (
            "BAD_DURATION",
            "deadline",
            "such as 30s or 0.5s, given '15m'",
            with_field("deadline: «15m"),
        ),
        ("BAD_DURATION", "deadline", "given 15", with_field("deadline: «15")),
        ("OUT_OF_RANGE", "deadline", "given 0s", with_field("deadline: «0s")),
        ("OUT_OF_RANGE", "deadline", "given -1s", with_field("deadline: «-1s")),
        ("OUT_OF_RANGE", "deadline", "to 31536000s", with_field("deadline: «31536000.001s")),
        ("WRONG_SHAPE", "keys", "expected fields with values", with_field("keys: «[order_id]")),
        ("BAD_NAME", "keys", "a field's name is text", with_field("keys: {«[a]: b}")),
        ("DUPLICATE_FIELD", "keys", "a is written twice", with_field("keys: {a: '\"\"', «a: x}")),
        ("BAD_NAME", "keys.Id", "given 'Id'", with_field("keys: {Id: «input.order_id}")),
        ("TYPE_MISMATCH", "keys.n", "expected string, given int", with_field("keys: {n: '«1'}")),
        ("UNKNOWN_NAME", "keys.n", "create is not known", with_field("keys: {n: «create}")),
        (
            "INPUT_NOT_FOUND",
            "input",
            "no participant has a message order.v1.Nope",
            f"name: a\ninput: «order.v1.Nope\nsteps:\n{CONFIRM}",
        ),
        (
            "INPUT_NOT_FOUND",
            "input",
            "order.v1.OrderState is no message type",
            f"name: a\ninput: «order.v1.OrderState\nsteps:\n{CONFIRM}",
        ),
    ],
)
def test_a_bad_value_is_refused_where_it_stands(
    reason: str, path: str, message: str, source: str
) -> None:
    problem = only_problem(source)
    assert (problem.reason, problem.path) == (reason, path)
    assert message in problem.message


@pytest.mark.parametrize(
    ("reason", "path", "message", "source"),
    [
        ("WRONG_SHAPE", "steps[0]", "given 'x'", with_steps(f"- «x\n{CONFIRM}")),
        (
            "MISSING",
            "steps[1].name",
            "name is missing",
            with_steps(
                f"{CONFIRM}\n"
                "- «service: order.v1.ConfirmOrder\n  request: order.v1.ConfirmOrderRequest{}"
            ),
        ),
        (
            "DUPLICATE_STEP",
            "steps[1].name",
            "steps[0] is called confirm too",
            with_steps(f"{CONFIRM}\n{CONFIRM.replace('name: ', 'name: «')}"),
        ),
        (
            "BAD_NAME",
            "steps[0].name",
            "given 'Confirm'",
            with_steps(CONFIRM.replace("name: c", "name: «C")),
        ),
        (
            "RESERVED_NAME",
            "steps[0].name",
            "namespace means something else",
            with_steps(CONFIRM.replace("name: confirm", "name: «namespace")),
        ),
        (
            "RESERVED_NAME",
            "steps[0].name",
            "input means something else",
            with_steps(CONFIRM.replace("name: confirm", "name: «input")),
        ),
        (
            "RESERVED_NAME",
            "steps[0].name",
            "string means something else",
            with_steps(CONFIRM.replace("name: confirm", "name: «string")),
        ),
        (
            "SERVICE_NOT_FOUND",
            "steps[0].service",
            "no participant serves order.v1.CancelOrder",
            with_steps(CONFIRM.replace("order.v1.ConfirmOrder,", "«order.v1.CancelOrder,")),
        ),
        (
            "NOT_A_STEP",
            "steps[0].service",
            "exactly the methods Do and Compensate, this has GetOrder, ListOrders, PlaceOrder",
            with_steps(CONFIRM.replace("order.v1.ConfirmOrder,", "«order.v1.OrderService,")),
        ),
        (
            "MISSING",
            "steps[0].request",
            "an expression that builds the Do request",
            with_steps("- «name: confirm\n  service: order.v1.ConfirmOrder"),
        ),
        (
            "OUT_OF_RANGE",
            "steps[0].timeout",
            "from 0.001s to 3600s",
            with_step_field("timeout: «7200s"),
        ),
        (
            "OUT_OF_RANGE",
            "steps[0].timeout",
            "given 0.000500s",
            with_step_field("timeout: «0.0005s"),
        ),
        ("BAD_DURATION", "steps[0].timeout", "given a list", with_step_field("timeout: «[1s]")),
        (
            "UNKNOWN_FIELD",
            "steps[0].retry.max_tries",
            "RetryPolicy has no field max_tries",
            with_step_field("retry: {«max_tries: 3}"),
        ),
        (
            "WRONG_SHAPE",
            "steps[0].retry.max_attempts",
            "expected a whole number, given 'many'",
            with_step_field("retry: {max_attempts: «many}"),
        ),
        (
            "WRONG_SHAPE",
            "steps[0].retry.max_attempts",
            "expected a whole number, given true",
            with_step_field("retry: {max_attempts: «true}"),
        ),
        (
            "OUT_OF_RANGE",
            "steps[0].retry.max_attempts",
            "at least 1, given 0",
            with_step_field("retry: {max_attempts: «0}"),
        ),
        (
            "OUT_OF_RANGE",
            "steps[0].retry.backoff_coefficient",
            "from 1 to 100, given 0.9",
            with_step_field("retry: {backoff_coefficient: «0.9}"),
        ),
        (
            "OUT_OF_RANGE",
            "steps[0].retry.backoff_coefficient",
            "given nan",
            with_step_field("retry: {backoff_coefficient: «'NaN'}"),
        ),
        (
            "OUT_OF_RANGE",
            "steps[0].retry.initial_interval",
            "the first wait (31s) is longer than max_interval (30s)",
            with_step_field("retry: {initial_interval: «31s}"),
        ),
        (
            "OUT_OF_RANGE",
            "steps[0].compensation_retry.max_elapsed",
            "given -5s",
            with_step_field("compensation_retry: {max_elapsed: «-5s}"),
        ),
        (
            "BAD_NAME",
            "steps[0].retry.non_retryable_reasons[1]",
            "given 'nope'",
            with_step_field("retry: {non_retryable_reasons: [A, «nope]}"),
        ),
        (
            "WRONG_SHAPE",
            "steps[0].retry.non_retryable_reasons[0]",
            "expected text, given null",
            with_step_field("retry: {non_retryable_reasons: [«'', B]}").replace("''", "null"),
        ),
    ],
)
def test_a_bad_step_is_refused_where_it_stands(
    reason: str, path: str, message: str, source: str
) -> None:
    problem = only_problem(source)
    assert (problem.reason, problem.path) == (reason, path)
    assert message in problem.message


@pytest.mark.parametrize(
    ("reason", "message", "request_"),
    [
        (
            "UNKNOWN_FIELD",
            "order.v1.PlaceOrderInput has no field orderid; did you mean order_id?",
            "'order.v1.CreateOrderRequest{order_id: input«.orderid}'",
        ),
        (
            "UNKNOWN_FIELD",
            "order.v1.CreateOrderRequest has no field id",
            "'order.v1.CreateOrderRequest{id«: input.order_id}'",
        ),
        (
            "UNKNOWN_NAME",
            "customer is not known here; there are: input",
            "'order.v1.CreateOrderRequest{customer_id: «customer}'",
        ),
        (
            "STEP_NOT_BEFORE",
            "create has not answered yet",
            "'order.v1.CreateOrderRequest{order_id: create«.total}'",
        ),
        (
            "TYPE_MISMATCH",
            "expected type of field 'customer_id' is 'string' but provided type is 'int'",
            "|\n    order.v1.CreateOrderRequest{\n      customer_id«: 7}",
        ),
        (
            "TYPE_MISMATCH",
            "expected order.v1.CreateOrderRequest, given order.v1.PlaceOrderInput",
            "«input",
        ),
        ("TYPE_MISMATCH", "given list<order.v1.OrderItem>", "|\n\n    «input.items"),
        ("TYPE_MISMATCH", "given dyn", "'«dyn(order.v1.CreateOrderRequest{})'"),
        ("TYPE_MISMATCH", "given optional_type<string>", ">-\n   «input.?order_id"),
        (
            "UNKNOWN_TYPE",
            "expected order.v1.CreateOrderRequest: payment.v1.Payment is no type that",
            "«payment.v1.Payment{}",
        ),
        (
            "UNKNOWN_TYPE",
            "a.B is no type that",
            '"order.v1.CreateOrderRequest{\\n order_id: \\"é\\" + «a.B{}}"',
        ),
        ("SYNTAX", "mismatched input '<EOF>'", "'order.v1.CreateOrderRequest{«'"),
        ("SYNTAX", "reserved identifier: package", "«package"),
        ("SYNTAX", "mismatched input '<EOF>'", "|\n    1\n      +«\n\n"),
        ("EXPRESSION_INVALID", "recursion limit exceeded", f"'«{'(' * 100}1{')' * 100}'"),
    ],
)
def test_a_bad_expression_is_refused_where_it_stands(
    reason: str, message: str, request_: str
) -> None:
    problem = only_problem(CREATE + request_)
    assert (problem.reason, problem.path) == (reason, "steps[0].request")
    assert message in problem.message


def test_a_response_of_a_later_step_is_refused() -> None:
    later = "'order.v1.CreateOrderRequest{order_id: confirm«.total}'"
    problem = only_problem(f"{CREATE}{later}\n{CONFIRM}")
    assert problem.reason == "STEP_NOT_BEFORE"
    assert (
        "confirm has not answered yet when this is built; known by then: input" in problem.message
    )


EVERYTHING = """\
name: Everything
input: order.v1.PlaceOrderInput
deadline: 15m
keys:
  order_id: input.orderid
steps:
- name: create_order
  service: order.v1.CreateOrder
  request: |
    order.v1.CreateOrderRequest{
      order_id: input.order_id,
      customer_id: 7,
      items: reserve_stock.items
    }
- name: reserve_stock
  service: inventory.v1.StealStock
  request: "inventory.v1.StealStockRequest{order_id: input.nope}"
- name: reserve_stock
  service: order.v1.OrderService
  request: "x"
- name: package
  service: payment.v1.ChargePayment
  timeout: 0s
  request: >-
    payment.v1.ChargePaymentRequest{
      amount: reserve_stock.anything,
      payment_method: create_order.total
    }
  retry: {max_attempts: 0, colour: red}
"""


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = [(p.line, p.column, p.path, p.reason) for p in problems(EVERYTHING)]
    assert found == [
        (1, 7, "name", "BAD_NAME"),
        (3, 11, "deadline", "BAD_DURATION"),
        (5, 18, "keys.order_id", "UNKNOWN_FIELD"),
        (12, 18, "steps[0].request", "TYPE_MISMATCH"),
        (13, 27, "steps[0].request", "STEP_NOT_BEFORE"),
        (16, 12, "steps[1].service", "SERVICE_NOT_FOUND"),
        (17, 59, "steps[1].request", "UNKNOWN_FIELD"),
        (18, 9, "steps[2].name", "DUPLICATE_STEP"),
        (19, 12, "steps[2].service", "NOT_A_STEP"),
        (20, 13, "steps[2].request", "UNKNOWN_NAME"),
        (21, 9, "steps[3].name", "RESERVED_NAME"),
        (23, 12, "steps[3].timeout", "OUT_OF_RANGE"),
        (27, 21, "steps[3].request", "TYPE_MISMATCH"),
        (29, 25, "steps[3].retry.max_attempts", "OUT_OF_RANGE"),
        (29, 28, "steps[3].retry.colour", "UNKNOWN_FIELD"),
    ]


def test_nothing_is_said_of_what_follows_from_a_service_that_is_missing() -> None:
    missing = "- {name: gone, service: a.v1.Gone, request: 'a.v1.GoneRequest{x: 1}'}"
    use = "- {name: use, service: order.v1.ConfirmOrder, request: 'dyn(gone.anything)'}"
    (problem,) = problems(with_steps(f"{missing}\n{use}"))
    assert problem.reason == "SERVICE_NOT_FOUND"


def test_a_caret_stands_right_in_wide_and_long_lines() -> None:
    wide = f"{CREATE}'\"注文\" + nope'"
    (problem,) = problems(wide)
    shown, caret = problem.excerpt.split("\n")
    assert caret == " " * 13 + "\u3000\u3000" + "    ^"
    assert shown[caret.index("^")] == "n"
    (problem,) = problems(f"{CREATE}'\"{'x' * 5_000}\" + nope'")
    shown, caret = problem.excerpt.split("\n")
    assert len(shown) < 130
    assert shown[caret.index("^") :].startswith("nope")


def test_a_source_over_256_kib_is_refused() -> None:
    (problem,) = problems("#" * (256 * 1024 + 1))
    assert problem.reason == "SOURCE_TOO_LARGE"


def test_aliases_that_multiply_are_stopped() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (problem,) = problems(bomb)
    assert problem.reason == "YAML_TOO_LARGE"


def test_an_alias_stands_for_what_it_names() -> None:
    source = with_steps(
        f"{CONFIRM[:-1]}, retry: &again {{max_attempts: 3}}}}\n"
        f"{CONFIRM[:-1].replace('name: confirm', 'name: twice')}, retry: *again}}"
    )
    steps = compile_definition(source, shop()).version.definition.steps
    assert [step.retry.max_attempts for step in steps] == [3, 3]


# --- participants -----------------------------------------------------------

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

"""Values and steps that make no sense are refused where they stand."""

from __future__ import annotations

import pytest

from tests.unit.definitions.problems import CONFIRM, CREATE, HEAD, only_problem, with_steps


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

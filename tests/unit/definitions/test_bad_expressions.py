"""Expressions that do not fit are refused where they stand."""

from __future__ import annotations

import pytest

from tests.unit.definitions.problems import CONFIRM, CREATE, only_problem


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

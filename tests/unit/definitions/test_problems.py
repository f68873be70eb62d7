"""Everything that is wrong is told at once, each with the place that the author has to look at."""

from __future__ import annotations

from tests.unit.definitions.problems import CREATE, problems, with_steps

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

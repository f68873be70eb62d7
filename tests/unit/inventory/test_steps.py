from __future__ import annotations

import pytest

from inventory_svc.steps import ReserveStock
from mesh.barrier.mongo_algorithm import Shortage
from mesh.errors import InvalidRequest
from mesh.step import StepCall
from protos.inventory.v1 import inventory_pb2

CALL = StepCall(saga_id="saga-1", step="reserve_stock")


def request(
    *items: tuple[str, int], order_id: str = "order-1"
) -> inventory_pb2.ReserveStockRequest:
    lines = [inventory_pb2.StockItem(product_id=name, quantity=number) for name, number in items]
    return inventory_pb2.ReserveStockRequest(order_id=order_id, items=lines)


def test_lines_of_one_product_are_added_up() -> None:
    quantities = ReserveStock().quantities(request(("apple", 2), ("pear", 1), ("apple", 3)))

    assert quantities == {"apple": 5, "pear": 1}


def test_a_reservation_is_named_as_the_stock_keeps_it() -> None:
    response = ReserveStock().response(CALL, request(("apple", 1)))

    assert response.reservation_id == "saga-1:reserve_stock"


def test_a_rejection_tells_every_number_of_its_words() -> None:
    rejected = ReserveStock().rejection(Shortage("apple", 3, 1))

    assert rejected.reason == "OUT_OF_STOCK"
    assert rejected.metadata == {"product_id": "apple", "requested": "3", "available": "1"}
    assert all(value in rejected.message for value in rejected.metadata.values())


def test_a_product_that_is_not_there_is_no_shortage_of_it() -> None:
    rejected = ReserveStock().rejection(Shortage("apple", 3, None))

    assert rejected.reason == "PRODUCT_NOT_FOUND"
    assert rejected.metadata == {"product_id": "apple"}


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wrong = request(("", 0), ("apple", 1), ("x" * 129, -1), order_id="")

    with pytest.raises(InvalidRequest) as caught:
        ReserveStock().quantities(wrong)

    assert [violation.field for violation in caught.value.violations] == [
        "order_id",
        "items[0].product_id",
        "items[0].quantity",
        "items[2].product_id",
        "items[2].quantity",
    ]


def test_the_largest_request_is_accepted() -> None:
    lines = [(f"{number:0128}", 1_000_000) for number in range(1_000)]

    assert len(ReserveStock().quantities(request(*lines))) == 1_000


@pytest.mark.parametrize("lines", [0, 1_001])
def test_too_few_or_too_many_lines_are_told_without_looking_at_each(lines: int) -> None:
    with pytest.raises(InvalidRequest, match=f"must be 1 to 1000 lines, not {lines}"):
        ReserveStock().quantities(request(*[("", 0)] * lines))

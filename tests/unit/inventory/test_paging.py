from __future__ import annotations

import pytest

from inventory_svc import paging
from inventory_svc.validation import list_stock_violations
from protos.inventory.v1 import inventory_pb2


@pytest.mark.parametrize("product_id", ["a", "ünï cödé", "x" * 128, "\"'$.\\"])
def test_a_token_brings_back_the_product_it_was_made_of(product_id: str) -> None:
    token = paging.make_token(product_id)

    assert paging.read_token(token) == product_id


def test_without_a_token_the_list_begins_before_every_product() -> None:
    assert paging.read_token("") == ""


@pytest.mark.parametrize(
    "token", ["a", "no token", "AAAA", "_w==", "é", paging.make_token("x" * 129)]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    request = inventory_pb2.ListStockRequest(page_token=token)

    assert [violation.field for violation in list_stock_violations(request)] == ["page_token"]

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from mesh.paging import MAX_BYTES
from order_svc import paging
from protos.order.v1 import order_pb2


def orders(count: int, *, name_length: int = 10) -> list[order_pb2.Order]:
    return [
        order_pb2.Order(order_id=str(UUID(int=count - n)), customer_id="x" * name_length)
        for n in range(count)
    ]


@given(st.uuids())
def test_a_token_leads_back_to_its_order(order_id: UUID) -> None:
    assert paging.read_token(paging.make_token(str(order_id))) == str(order_id)


@given(st.text(min_size=1))
def test_any_text_is_a_token_with_an_id_or_a_value_error(text: str) -> None:
    try:
        read = paging.read_token(text)
    except ValueError:
        return
    assert str(UUID(read)) == read


def test_the_first_page_begins_above_every_id() -> None:
    assert paging.read_token("") == str(UUID(int=2**128 - 1))


def test_the_last_page_has_no_token() -> None:
    page = paging.response(orders(2), 2)
    assert len(page.orders) == 2
    assert page.next_page_token == ""


def test_a_page_that_is_followed_ends_with_the_token_of_its_last_order() -> None:
    page = paging.response(orders(3), 2)
    assert paging.read_token(page.next_page_token) == page.orders[1].order_id


def test_a_page_ends_before_it_is_too_large_for_a_client() -> None:
    large = orders(3, name_length=MAX_BYTES // 2)
    page = paging.response(large, 3)
    assert list(page.orders) == large[:1]
    assert paging.read_token(page.next_page_token) == large[0].order_id


def test_a_page_holds_one_order_however_large() -> None:
    huge = orders(1, name_length=MAX_BYTES + 1)
    page = paging.response(huge, 1)
    assert list(page.orders) == huge
    assert page.next_page_token == ""

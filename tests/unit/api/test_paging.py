from __future__ import annotations

import base64

import pytest

from coordinator.api import paging
from coordinator.api.paging import EVENT_PLACE, NAME_PLACE, SAGA_PLACE
from mesh.paging import MAX_BYTES
from protos.saga.v1 import saga_pb2 as pb


def version(name: str, size: int = 1) -> pb.DefinitionVersion:
    return pb.DefinitionVersion(name=name, source="x" * size)


def name_of(entry: pb.DefinitionVersion) -> str:
    return entry.name


def test_a_page_is_fifty_unless_asked_and_never_more_than_five_hundred() -> None:
    assert paging.size(pb.ListSagasRequest()) == 50
    assert paging.size(pb.ListSagasRequest(page_size=7)) == 7
    assert paging.size(pb.ListSagasRequest(page_size=1_000_000)) == 500


def test_a_page_that_holds_everything_has_no_next_one() -> None:
    request = pb.ListDefinitionsRequest(page_size=2)
    entries = [version("a"), version("b")]
    assert paging.page(request, entries, name_of) == (entries, "")
    assert paging.page(request, [], name_of) == ([], "")


def test_the_next_page_begins_after_the_last_entry() -> None:
    request = pb.ListDefinitionsRequest(page_size=2)
    page, token = paging.page(request, [version("a"), version("b"), version("c")], name_of)
    assert [entry.name for entry in page] == ["a", "b"]
    request.page_token, request.page_size = token, 9
    assert paging.read_token(request, NAME_PLACE) == ("b",)


def test_a_page_of_large_entries_ends_early_but_never_empty() -> None:
    request = pb.ListDefinitionsRequest()
    large = [version(name, MAX_BYTES // 2 - 100) for name in "abc"]
    page, token = paging.page(request, large, name_of)
    assert [entry.name for entry in page] == ["a", "b"]
    assert token
    page, token = paging.page(request, [version("a", 2 * MAX_BYTES), version("b")], name_of)
    assert [entry.name for entry in page] == ["a"]


@pytest.mark.parametrize("place", ["1/a b", "-1/a", "123456789012345/a", "1/", "a", ""])
def test_a_place_that_no_list_has_is_unknown_even_in_a_token_of_ours(place: str) -> None:
    request = pb.ListSagasRequest(page_size=1)
    saga = pb.Saga(saga_id="saga-1")
    _, token = paging.page(request, [saga, saga], lambda _: "1/saga-1")
    digest = base64.urlsafe_b64decode(token).decode().partition(":")[0]
    request.page_token = base64.urlsafe_b64encode(f"{digest}:{place}".encode()).decode()
    with pytest.raises(ValueError, match="another list"):
        paging.read_token(request, SAGA_PLACE)


def test_a_token_belongs_to_one_list() -> None:
    request = pb.ListSagaEventsRequest(saga_id="saga-1", page_size=1)
    event = pb.SagaEvent(revision=1)
    _, token = paging.page(request, [event, event], lambda entry: str(entry.revision))
    request.page_token = token
    assert paging.read_token(request, EVENT_PLACE) == ("1",)
    request.saga_id = "saga-2"
    with pytest.raises(ValueError, match="another list"):
        paging.read_token(request, EVENT_PLACE)

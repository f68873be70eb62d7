from __future__ import annotations

import pytest

from mesh.errors import InvalidRequest, MeshError, NotFound, Retry, to_status
from protos.saga.v1 import saga_pb2 as pb
from tests.unit.api.desk import Desk, caller, compiled, problem


async def register(desk: Desk, source: str = "name: fresh") -> pb.RegisterDefinitionResponse:
    return await desk.registry.RegisterDefinition(
        pb.RegisterDefinitionRequest(source=source), caller()
    )


async def get(desk: Desk, name: str, content_hash: str = "") -> pb.DefinitionVersion:
    request = pb.GetDefinitionRequest(name=name, definition_hash=content_hash)
    return (await desk.registry.GetDefinition(request, caller())).version


async def test_a_registered_definition_can_be_read(desk: Desk) -> None:
    registered = await register(desk)
    assert registered.created
    assert [warning.message for warning in registered.warnings] == ["careful"]
    assert registered.version == await get(desk, "fresh")
    assert (registered.version.source, registered.version.definition.name) == (
        "name: fresh",
        "fresh",
    )
    assert not (await register(desk)).created


async def test_a_definition_that_does_not_fit_is_refused_with_all_its_places(desk: Desk) -> None:
    desk.definitions.refused = [problem(1), problem(2)]
    with pytest.raises(InvalidRequest) as refusal:
        await register(desk)
    assert refusal.value.reason == "DEFINITION_INVALID"
    assert [violation.field for violation in refusal.value.violations] == [
        "steps[1].request",
        "steps[2].request",
    ]
    first = refusal.value.violations[0].description
    assert first.startswith("line 1, column 8: TYPE_UNKNOWN: no such type\n")
    assert first.endswith("         ^")


async def test_a_hundred_problems_still_fit_an_answer(desk: Desk) -> None:
    desk.definitions.refused = [problem(n, message="x" * 200) for n in range(1, 101)]
    with pytest.raises(InvalidRequest) as refusal:
        await register(desk)
    assert refusal.value.violations[-1].description.endswith("more, see ValidateDefinition")
    details = to_status(refusal.value, domain="saga.v1").details
    assert [detail.TypeName() for detail in details] == [
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
    ]


async def test_one_endless_problem_still_fits_an_answer(desk: Desk) -> None:
    desk.definitions.refused = [problem(message="x" * 100_000), problem(2)]
    with pytest.raises(InvalidRequest) as refusal:
        await register(desk)
    assert len(to_status(refusal.value, domain="saga.v1").details) == 2


async def test_validation_lists_everything_and_refuses_nothing(desk: Desk) -> None:
    request = pb.ValidateDefinitionRequest(source="name: fresh")
    fine = await desk.registry.ValidateDefinition(request, caller())
    assert (len(fine.errors), len(fine.warnings)) == (0, 1)
    desk.definitions.refused = [problem(n) for n in range(100)]
    wrong = await desk.registry.ValidateDefinition(request, caller())
    assert len(wrong.errors) == 100
    assert (wrong.errors[1].line, wrong.errors[1].column, wrong.errors[1].reason) == (
        1,
        8,
        "TYPE_UNKNOWN",
    )
    assert wrong.errors[1].excerpt.endswith("^")


@pytest.mark.parametrize("source", ["", "  \n", "x" * (256 * 1024 + 1)])
async def test_a_source_of_no_size_is_not_read(desk: Desk, source: str) -> None:
    for call in (
        desk.registry.RegisterDefinition(pb.RegisterDefinitionRequest(source=source), caller()),
        desk.registry.ValidateDefinition(pb.ValidateDefinitionRequest(source=source), caller()),
    ):
        with pytest.raises(InvalidRequest) as refusal:
            await call
        assert [violation.field for violation in refusal.value.violations] == ["source"]


async def test_an_older_version_is_read_by_its_hash(desk: Desk) -> None:
    (older,) = desk.definitions.versions
    newer = desk.know(compiled("story", "a", revision=2))
    assert (await get(desk, "story")).definition_hash == newer.hash
    assert (await get(desk, "story", older.hash)).definition_hash == older.hash


@pytest.mark.parametrize("name", ["unheard-of", "other"])
async def test_a_version_that_does_not_exist_is_not_found(desk: Desk, name: str) -> None:
    desk.know(compiled("other", "a"))
    (story, _) = desk.definitions.versions
    with pytest.raises(NotFound) as refusal:
        await get(desk, name, story.hash)
    assert refusal.value.reason == "DEFINITION_NOT_FOUND"
    assert refusal.value.metadata["definition_hash"] == story.hash


@pytest.mark.parametrize(
    ("name", "content_hash", "field"),
    [("", "", "name"), ("No Name", "", "name"), ("story", "xyz", "definition_hash")],
)
async def test_a_name_that_no_definition_can_have_is_refused(
    desk: Desk, name: str, content_hash: str, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await get(desk, name, content_hash)
    assert [violation.field for violation in refusal.value.violations] == [field]


async def test_definitions_are_listed_by_name_page_by_page(desk: Desk) -> None:
    for name in ("cancel-order", "return-goods", "place-order"):
        desk.know(compiled(name, "a"))
    request = pb.ListDefinitionsRequest(page_size=3)
    first = await desk.registry.ListDefinitions(request, caller())
    assert [it.name for it in first.versions] == ["cancel-order", "place-order", "return-goods"]
    request.page_token = first.next_page_token
    rest = await desk.registry.ListDefinitions(request, caller())
    assert [it.name for it in rest.versions] == ["story"]
    assert not rest.next_page_token


async def test_an_unknown_page_token_is_refused(desk: Desk) -> None:
    request = pb.ListDefinitionsRequest(page_token="unheard-of")
    with pytest.raises(InvalidRequest) as refusal:
        await desk.registry.ListDefinitions(request, caller())
    assert [violation.field for violation in refusal.value.violations] == ["page_token"]


async def test_a_store_that_is_away_is_worth_a_retry(desk: Desk) -> None:
    desk.definitions.away = True
    refusals: list[MeshError] = []
    for call in (
        register(desk),
        get(desk, "story"),
        desk.registry.ListDefinitions(pb.ListDefinitionsRequest(), caller()),
    ):
        with pytest.raises(Retry) as refusal:
            await call
        refusals.append(refusal.value)
    assert {refusal.reason for refusal in refusals} == {"JOURNAL_UNAVAILABLE"}

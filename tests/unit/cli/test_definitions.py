from __future__ import annotations

import json
from pathlib import Path

from mesh.errors import FieldViolation, InvalidRequest, NotFound
from protos.saga.v1 import saga_pb2
from tests.unit.cli.conftest import Saga
from tests.unit.cli.coordinator import StandIn

VERSION = saga_pb2.DefinitionVersion(
    name="place-order", definition_hash="ab" * 32, source="name: place-order\n"
)
ERROR = saga_pb2.DefinitionError(
    line=3,
    column=12,
    path="steps[0].request",
    reason="TYPE_MISMATCH",
    message="expected an order, given string",
    excerpt="  request: 'no'\n           ^",
)
WARNING = saga_pb2.DefinitionWarning(line=2, column=1, path="steps[0]", message="probably not")
INVALID = InvalidRequest([FieldViolation("steps[0].request", "no")], reason="DEFINITION_INVALID")


def test_a_definition_is_registered_from_its_file(
    saga: Saga, coordinator: StandIn, tmp_path: Path
) -> None:
    file = tmp_path / "place-order.yaml"
    file.write_text("name: place-order # größer\n", encoding="utf-8")
    coordinator.will(
        "RegisterDefinition",
        saga_pb2.RegisterDefinitionResponse(version=VERSION, created=True, warnings=[WARNING]),
    )
    result = saga("definitions", "register", str(file))
    assert result.exit_code == 0
    assert result.stdout == f"registered place-order {'ab' * 32}\n"
    assert result.stderr == f"{file}:2:1: warning: steps[0]: probably not\n"
    assert coordinator.asked("RegisterDefinition").source == "name: place-order # größer\n"


def test_a_definition_that_was_there_already_is_unchanged(saga: Saga, coordinator: StandIn) -> None:
    answer = saga_pb2.RegisterDefinitionResponse(version=VERSION, created=False)
    coordinator.will("RegisterDefinition", answer)
    result = saga("definitions", "register", "-", stdin="name: place-order\n")
    assert result.stdout.startswith("unchanged place-order")


def test_every_error_of_a_definition_is_told_with_its_caret(
    saga: Saga, coordinator: StandIn
) -> None:
    coordinator.will("RegisterDefinition", INVALID)
    other = saga_pb2.DefinitionError(line=9, column=1, path="steps[1]", reason="UNKNOWN_FIELD")
    answer = saga_pb2.ValidateDefinitionResponse(errors=[ERROR, other])
    coordinator.will("ValidateDefinition", answer)
    result = saga("definitions", "register", "-", stdin="steps: []\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "<stdin>:3:12: TYPE_MISMATCH steps[0].request: expected an order, given string",
        "      request: 'no'",
        "               ^",
        "<stdin>:9:1: UNKNOWN_FIELD steps[1]: ",
    ]


def test_a_valid_definition_says_nothing(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("ValidateDefinition", saga_pb2.ValidateDefinitionResponse())
    result = saga("definitions", "validate", "-", stdin="name: place-order\n")
    assert (result.exit_code, result.output) == (0, "")


def test_an_invalid_definition_fails_also_as_json(saga: Saga, coordinator: StandIn) -> None:
    answer = saga_pb2.ValidateDefinitionResponse(errors=[ERROR])
    coordinator.will("ValidateDefinition", answer)
    result = saga("definitions", "validate", "--json", "-", stdin="name: place-order\n")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["errors"][0]["reason"] == "TYPE_MISMATCH"


def test_definitions_are_listed_over_all_pages(saga: Saga, coordinator: StandIn) -> None:
    other = saga_pb2.DefinitionVersion(name="welcome", definition_hash="cd" * 32)
    coordinator.will(
        "ListDefinitions",
        saga_pb2.ListDefinitionsResponse(versions=[VERSION], next_page_token="more"),
        saga_pb2.ListDefinitionsResponse(versions=[other]),
    )
    result = saga("definitions", "list")
    names = [line.split("\t")[:2] for line in result.stdout.splitlines()]
    assert names == [["place-order", "abababababab"], ["welcome", "cdcdcdcdcdcd"]]
    assert [it.page_token for it in coordinator.requests["ListDefinitions"]] == ["", "more"]


def test_a_definition_is_shown_as_it_was_registered(saga: Saga, coordinator: StandIn) -> None:
    coordinator.will("GetDefinition", saga_pb2.GetDefinitionResponse(version=VERSION))
    result = saga("definitions", "show", "place-order", "--hash", "ab" * 32)
    assert result.stdout == "name: place-order\n"
    asked = coordinator.asked("GetDefinition")
    assert (asked.name, asked.definition_hash) == ("place-order", "ab" * 32)


def test_an_unknown_definition_is_refused_by_its_reason(saga: Saga, coordinator: StandIn) -> None:
    missing = NotFound(
        "DEFINITION_NOT_FOUND", "there is no definition x", resource_type="d", name="x"
    )
    coordinator.will("GetDefinition", missing)
    result = saga("definitions", "show", "x")
    assert result.exit_code == 1
    assert result.stderr == ("error: NOT_FOUND DEFINITION_NOT_FOUND\n  there is no definition x\n")


def test_a_file_that_is_missing_or_no_text_is_wrong_usage(
    saga: Saga, coordinator: StandIn, tmp_path: Path
) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    assert saga("definitions", "validate", str(tmp_path / "missing.yaml")).exit_code == 2
    assert saga("definitions", "validate", str(binary)).exit_code == 2
    assert coordinator.requests == {}

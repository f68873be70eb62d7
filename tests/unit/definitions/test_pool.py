from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from coordinator.definitions.base import CompiledDefinition, DefinitionProblem, DefinitionRefused
from coordinator.definitions.compiler import compile_definition
from coordinator.definitions.pool import Descriptors, DescriptorsInvalid, build_pool
from coordinator.definitions.services import Offer
from coordinator.participants.base import Contract
from tests.unit.definitions.contracts import contract, step

MONEY = (
    "package shared.v1; message Money { int64 units = 1; Kind kind = 2; } enum Kind { EUR = 0; }"
)
USES_MONEY = 'package {name}.v1; import "{file}.proto"; {step}'


def participant(name: str, *, file: str = "money", money: str = MONEY) -> Contract:
    """A participant that serves one step, named for it, whose request has a shared type."""
    uses = step(name.title(), "shared.v1.Money money = 1;")
    proto = USES_MONEY.format(name=name, file=file, step=uses)
    return contract(name, **{file: money, name: proto})


def definition(*names: str) -> str:
    steps = "".join(
        f"- name: {name}\n  service: {name}.v1.{name.title()}\n"
        f"  request: '{name}.v1.{name.title()}Request{{money: shared.v1.Money{{units: 1}}}}'\n"
        for name in names
    )
    return f"name: a\ninput: {names[0]}.v1.{names[0].title()}Request\nsteps:\n{steps}"


def compiled(offer: Offer, *names: str) -> CompiledDefinition:
    return compile_definition(definition(*names), offer).version


def problems(offer: Offer, *names: str) -> tuple[DefinitionProblem, ...]:
    with pytest.raises(DefinitionRefused) as refused:
        compiled(offer, *names)
    return refused.value.problems


def files(version: CompiledDefinition) -> list[str]:
    return [file.name for file in FileDescriptorSet.FromString(version.descriptors).file]


def test_equal_files_of_two_participants_are_one() -> None:
    offer = Offer.of([participant("east"), participant("west")])
    assert files(compiled(offer, "east", "west")) == ["money.proto", "east.proto", "west.proto"]


def test_one_symbol_in_files_of_two_names_is_one() -> None:
    offer = Offer.of([participant("east"), participant("west", file="vendored")])
    version = compiled(offer, "east", "west")
    assert files(version) == ["money.proto", "east.proto", "west.proto"]
    assert version.definition.steps[1].build(b"", {"east": b""}) == b"\x0a\x02\x08\x01"


def test_a_file_name_with_two_contents_becomes_two_files() -> None:
    more = MONEY + " message Rate { Money of = 1; }"
    offer = Offer.of([participant("east"), participant("west", money=more)])
    east, west = files(compiled(offer, "east"))[0], files(compiled(offer, "east", "west"))
    assert east == "money.proto"
    assert west[:2] == ["money.proto", "east.proto"]
    assert west[2].startswith("money_")
    assert west[3] == "west.proto"


def test_what_two_files_of_one_name_do_not_share_stays_apart() -> None:
    east = contract("east", common=f"package east.v1; {step('East', 'string a = 1;')}")
    west = contract("west", common=f"package west.v1; {step('West', 'string b = 1;')}")
    source = """
name: a
input: east.v1.EastRequest
steps:
- {name: east, service: east.v1.East, request: 'east.v1.EastRequest{a: input.a}'}
- {name: west, service: west.v1.West, request: 'west.v1.WestRequest{b: input.a}'}
"""
    steps = compile_definition(source, Offer.of([east, west])).version.definition.steps
    assert steps[1].build(b"\x0a\x01x", {"east": b""}) == b"\x0a\x01x"


@pytest.mark.parametrize(
    "other",
    [
        MONEY.replace("int64 units", "int32 units"),
        MONEY.replace("units = 1", "cents = 1"),
        MONEY.replace("EUR = 0;", "EUR = 0; USD = 1;"),
    ],
)
def test_one_symbol_with_two_definitions_is_refused_naming_both(other: str) -> None:
    offer = Offer.of([participant("east"), participant("west", money=other)])
    (problem,) = problems(offer, "east", "west")
    assert (problem.reason, problem.path) == ("CONTRACT_CONFLICT", "steps[1].service")
    assert problem.message.startswith("shared.v1.")
    assert "is not the same in east and in west" in problem.message


def test_a_conflict_with_a_participant_that_is_not_needed_does_not_matter() -> None:
    other = MONEY.replace("int64 units", "int32 units")
    offer = Offer.of([participant("east"), participant("west", money=other)])
    assert compiled(offer, "east").name == compiled(offer, "west").name


def test_versions_of_one_type_live_side_by_side() -> None:
    old = Offer.of([participant("east")])
    new = Offer.of([participant("east", money=MONEY.replace("units = 1", "units = 7"))])
    first, second = compiled(old, "east"), compiled(new, "east")
    assert first.hash != second.hash
    assert first.definition.steps[0].build(b"", {}) == b"\x0a\x02\x08\x01"
    assert second.definition.steps[0].build(b"", {}) == b"\x0a\x02\x38\x01"
    assert first.definition.steps[0].build(b"", {}) == b"\x0a\x02\x08\x01"


def test_the_hash_depends_on_neither_the_order_nor_the_neighbours_of_participants() -> None:
    east, west = participant("east"), participant("west")
    alone = compiled(Offer.of([east]), "east")
    assert compiled(Offer.of([west, east]), "east").hash == alone.hash
    both = compiled(Offer.of([east, west]), "east", "west")
    assert compiled(Offer.of([west, east]), "east", "west").hash == both.hash


def test_the_hash_depends_on_the_text_but_not_on_its_line_ends() -> None:
    source, offer = definition("east"), Offer.of([participant("east")])
    first = compile_definition(source, offer).version.hash
    assert compile_definition(source.replace("\n", "\r\n") + "\n", offer).version.hash == first
    assert compile_definition(f"# c\n{source}", offer).version.hash != first


def test_what_compilers_write_differently_changes_nothing() -> None:
    plain = participant("east")
    verbose = [FileDescriptorProto.FromString(file) for file in plain.files]
    for file in verbose:
        file.source_code_info.location.add(path=[4, 0], leading_comments="a comment")
        for message in file.message_type:
            for field in message.field:
                field.json_name = field.name
    other = Contract(
        participant="east",
        services=plain.services,
        files=tuple(file.SerializeToString() for file in verbose),
    )
    assert compiled(Offer.of([other]), "east").hash == compiled(Offer.of([plain]), "east").hash


def test_well_known_types_are_always_our_own() -> None:
    proto = f"""package t.v1; import "google/protobuf/timestamp.proto";
      {step("Make", "google.protobuf.Timestamp time = 1;")}"""
    made = contract("east", make=proto)
    older = []
    for content in made.files:
        file = FileDescriptorProto.FromString(content)
        if file.package == "google.protobuf":
            file.options.go_package = "from/another/release"
        older.append(file.SerializeToString())
    other = Contract(participant="west", services=frozenset(), files=tuple(older))
    descriptors = Descriptors()
    descriptors.add("east", made.files)
    descriptors.add("west", other.files)
    needed = descriptors.needed(["t.v1.Make"])
    assert [file.name for file in needed.file] == ["google/protobuf/timestamp.proto", "make.proto"]
    assert descriptors.conflicts(needed) == []


def test_a_contract_with_a_missing_file_is_refused() -> None:
    whole = participant("east")
    broken = Contract(participant="east", services=whole.services, files=whole.files[1:])
    (problem,) = problems(Offer.of([broken]), "east")
    assert (problem.reason, problem.path) == ("CONTRACT_INVALID", "")
    assert "money.proto" in problem.message


def test_a_contract_that_does_not_parse_is_refused_naming_the_participant() -> None:
    broken = Contract(
        participant="east", services=frozenset({"east.v1.East"}), files=(b"\xff\xff",)
    )
    found = {problem.path: problem for problem in problems(Offer.of([broken]), "east")}
    assert found["steps[0].service"].reason == "CONTRACT_INVALID"
    assert "the contract of east cannot be read" in found["steps[0].service"].message


def test_files_that_contradict_each_other_make_no_pool() -> None:
    twice = [FileDescriptorProto(name=name, package="a", syntax="proto3") for name in ("1", "2")]
    for file in twice:
        file.message_type.add(name="M")
    with pytest.raises(DescriptorsInvalid, match="duplicate symbol"):
        build_pool(FileDescriptorSet(file=twice))


def test_the_input_may_be_of_a_participant_without_a_step_in_the_definition() -> None:
    clerk = contract("clerk", clerk="package clerk.v1; message Form { int64 units = 1; }")
    unreadable = Contract(participant="broken", services=frozenset(), files=(b"\xff\xff",))
    offer = Offer.of([unreadable, clerk, participant("east")])
    source = definition("east").replace("input: east.v1.EastRequest", "input: clerk.v1.Form")
    version = compile_definition(source, offer).version
    assert version.input_type == "clerk.v1.Form"
    assert files(version) == ["clerk.proto", "money.proto", "east.proto"]

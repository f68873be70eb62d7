from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

import bench
from coordinator.core.model import RequestBuilder as AnyBuilder
from coordinator.definitions.compiler import compile_definition
from coordinator.definitions.expressions import RequestBuilder, compile_expression
from coordinator.definitions.pool import build_pool
from coordinator.definitions.scope import Scope
from coordinator.definitions.services import Offer
from tests.unit.definitions.contracts import contract, shop
from tests.unit.definitions.everything import ALL, POOL, SCOPE, Both
from tests.unit.definitions.test_place_order import SOURCE
from tests.unit.definitions.wire import (
    EIGHT_BYTES,
    FOUR_BYTES,
    LENGTH,
    VARINT,
    full,
    tagged,
    varint,
)

FULL = full(ALL)
UNKNOWN = tagged(500, VARINT, varint(1, padding=2))
"""An unknown field, in two bytes more than it needs."""
SHORTEST = tagged(500, VARINT, varint(1))


def field(
    name: str, payload: bytes = b"", wire_type: int = LENGTH, *, of: str = "t.v1.All"
) -> bytes:
    """The bytes of the field of this name."""
    number = POOL.FindMessageTypeByName(of).fields_by_name[name].number
    return tagged(number, wire_type, payload)


# --- which expressions ----------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "t.v1.All{}",
        "t.v1.All{string_field: input.string_field, int64_field: before.int64_field}",
        "t.v1.All{string_field: input.part_field.leaf.name}",
        "t.v1.All{part_field: t.v1.Part{leaf: t.v1.Leaf{name: input.string_field}}}",
        "t.v1.All{string_field: 'é', bytes_field: b'\\xff', bool_field: true, int32_field: -1}",
        "t.v1.All{uint64_field: 7u, double_field: 0.1, float_field: 0.1, maybe_string_field: ''}",
        "t.v1.All{colour_field: t.v1.Colour.BLUE, many_int32_field: input.many_colour_field}",
        "t.v1.All{part_field: input.part_field, many_part_field: before.many_part_field}",
        "t.v1.All{int32_field: input.int64_field, uint32_field: input.uint64_field}",
        "t.v1.All{colour_field: input.int64_field, float_field: input.double_field}",
        "t.v1.All{many_part_field: input.many_part_field.map(x, t.v1.Part{?size: x.?size})}",
        "t.v1.All{many_part_field: input.many_string_field.map(x, t.v1.Part{name: x})}",
        "t.v1.All{many_string_field: input.many_part_field.map(x, x.leaf.name)}",
        """t.v1.All{many_part_field: input.many_part_field.map(x, t.v1.Part{
            name: input.string_field, leaves: x.leaves.map(y, t.v1.Leaf{name: x.name})
        })}""",
        "t.v1.All{?maybe_string_field: input.?maybe_string_field, ?part_field: input.?those}",
        "t.v1.All{?this: input.?this, ?that: input.?that}",
    ],
)
def test_what_only_copies_needs_no_cel(text: str) -> None:
    both = Both(text)
    assert both.copies
    both.built(b"", {"before": b""})
    both.built(FULL, {"before": FULL})
    assert not both.asked


@pytest.mark.parametrize(
    "text",
    [
        "input",
        "t.v1.All{string_field: input.string_field + ''}",
        "t.v1.All{string_field: dyn(input).string_field}",
        "t.v1.All{string_field: input.many_string_field[0]}",
        "t.v1.All{bool_field: has(input.part_field)}",
        "t.v1.All{named_string_field: input.named_string_field}",
        "t.v1.All{named_string_field: {'a': input.string_field}}",
        "t.v1.All{many_string_field: input.named_string_field.map(x, x)}",
        "t.v1.All{many_string_field: [input.string_field]}",
        "t.v1.All{many_float_field: input.many_float_field}",
        "t.v1.All{many_string_field: input.many_string_field.map(x, x != '', x)}",
        "t.v1.All{many_string_field: input.many_string_field.filter(x, x != '')}",
        "t.v1.All{many_string_field: input.many_string_field.map(x, x).map(y, y)}",
        "t.v1.All{many_string_field: input.many_string_field.map(before, before)}",
        "t.v1.All{string_field: 'a', string_field: input.string_field}",
        "t.v1.All{string_field: t.v1.Part{name: 'a'}.name}",
        "t.v1.All{part_field: null}",
        "t.v1.All{?part_field: optional.of(input.part_field)}",
        "t.v1.All{?string_field: input.?part_field.?name}",
        "t.v1.All{?string_field: input.?string_field}",
        "t.v1.All{timestamp_field: input.timestamp_field}",
        "t.v1.All{many_timestamp_field: input.many_timestamp_field}",
        "t.v1.All{int32value_field: input.int32value_field}",
        "t.v1.All{int32value_field: input.int32_field}",
        "t.v1.All{struct_field: input.struct_field}",
        "t.v1.All{any_field: input.any_field}",
        "t.v1.All{any_field: input.part_field}",
        "t.v1.All{nullvalue_field: input.nullvalue_field}",
        "t.v1.All{nullvalue_field: 3}",
    ],
)
def test_whatever_else_is_done_is_left_to_cel(text: str) -> None:
    both = Both(text)
    assert not both.copies
    both.built(b"", {"before": b""})
    both.built(FULL, {"before": FULL})


def test_a_search_key_that_is_a_field_is_copied() -> None:
    key = compile_expression("input.part_field.name", SCOPE, gives="string")
    assert key._copier is not None
    assert key.text({"input": field("part_field", field("name", b"a", of="t.v1.Part"))}) == "a"


def copies(build: AnyBuilder) -> bool:
    return cast("RequestBuilder", build).expression._copier is not None


def test_every_request_of_the_shipped_definition_is_copied() -> None:
    steps = compile_definition(SOURCE, shop()).version.definition.steps
    assert [step.name for step in steps if copies(step.build)] == [
        "create_order",
        "reserve_stock",
        "charge_payment",
        "request_shipment",
        "confirm_order",
    ]


def test_every_request_of_the_benchmarks_is_copied() -> None:
    folder = Path(next(iter(bench.__path__)))
    proto = (folder / "steps.proto").read_text().replace('syntax = "proto3";', "")
    offer = Offer.of([contract("bench", steps=proto)])
    sources = [path.read_text() for path in (folder / "definitions").glob("*.yaml")]
    versions = [compile_definition(source, offer).version for source in sources]
    assert len(versions) == 4
    assert all(copies(step.build) for v in versions for step in v.definition.steps)


# --- where copying and CEL could differ -------------------------------------------


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("string_field: input.string_field", b""),
        ("maybe_string_field: input.string_field", field("maybe_string_field")),
        ("maybe_int32_field: input.maybe_int32_field", field("maybe_int32_field", b"\0", VARINT)),
        ("part_field: input.part_field", field("part_field")),
        ("part_field: input.part_field, ?maybe_part_field: input.?part_field", field("part_field")),
        ("string_field: input.part_field.leaf.name", b""),
        ("those: input.those", field("those")),
        ("this: input.this", field("this")),
        ("many_part_field: input.many_part_field", b""),
        ("part_field: t.v1.Part{}", field("part_field")),
    ],
)
def test_what_is_unset_is_copied_as_cel_copies_it(text: str, built: bytes) -> None:
    assert Both(f"t.v1.All{{{text}}}").built(b"", {}) == built


def test_the_last_of_a_oneof_wins() -> None:
    given = field("this", b"a") + field("string_field", b"b")
    for text in ("that: input.int32_field, this: input.this", "this: input.this, that: 7"):
        built = Both(f"t.v1.All{{{text}}}").built(given)
        assert built == (field("this", b"a") if text.endswith("this") else b"\xd0\x0c\x07")


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 2**31 - 1])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int32_field: input.int64_field", "int64 to int32 overflow"),
        ("many_sint32_field: input.many_int64_field", "int64 to int32 overflow"),
        ("fixed32_field: input.uint64_field", "uint64 to uint32 overflow"),
        ("colour_field: input.int64_field", "type conversion error from 'int' to 't.v1.Colour'"),
        ("many_part_field: input.many_int64_field.map(x, t.v1.Part{colour: x})", "type conversion"),
    ],
)
def test_a_number_too_large_for_its_field_fails_in_the_words_of_cel(
    text: str, words: str, number: int
) -> None:
    both = Both(f"t.v1.All{{{text}}}")
    names = ("int64_field", "many_int64_field", "uint64_field")
    given = b"".join(field(name, varint(number), VARINT) for name in names)
    built = both.built(given)
    assert both.copies
    if isinstance(built, str):
        assert built.startswith(f"the expression fails on this input: {words}")
        assert both.asked


def test_every_value_of_an_open_enum_is_copied() -> None:
    both = Both("t.v1.All{colour_field: input.colour_field, int32_field: input.colour_field}")
    for number in (77, 2**64 - 1, 2**31 - 1, 2**64 - 2**31):
        value = varint(number)
        given = field("colour_field", value, VARINT)
        assert both.built(given) == field("int32_field", value, VARINT) + given
    assert not both.asked


@pytest.mark.parametrize(
    "bits",
    [
        b"\x00\x00\x00\x80",
        b"\x00\x00\x80\x7f",
        b"\x01\x00\x00\x00",
        b"\x01\x00\x81\xff",
        b"\x01\x00\xc1\x7f",
    ],
    ids=["minus zero", "infinite", "the least", "signalling nan", "quiet nan"],
)
def test_numbers_with_a_fraction_keep_their_bits_as_far_as_cel_keeps_them(bits: bytes) -> None:
    given = field("float_field", bits, FOUR_BYTES) + field("double_field", bits * 2, EIGHT_BYTES)
    given += field("many_double_field", bits * 2, EIGHT_BYTES)
    given += field("many_float_field", bits, FOUR_BYTES)
    for text in (
        "float_field: input.float_field, double_field: input.double_field",
        "double_field: input.float_field, float_field: input.double_field",
        "many_double_field: input.many_double_field, many_float_field: input.many_float_field",
    ):
        Both(f"t.v1.All{{{text}}}").built(given)


@pytest.mark.parametrize("text", ["\x00", "é", "😀", "\uffff", ""])
def test_text_is_copied_letter_by_letter(text: str) -> None:
    given = field("maybe_string_field", text.encode())
    assert Both("t.v1.All{maybe_string_field: input.maybe_string_field}").built(given) == given


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80"])
def test_text_that_is_none_builds_no_request(text: bytes) -> None:
    both = Both("t.v1.All{string_field: input.string_field}")
    assert both.built(field("string_field", text)) == "input is no t.v1.All"


def test_what_is_missing_or_unreadable_builds_no_request() -> None:
    both = Both("t.v1.All{string_field: input.string_field, bytes_field: before.bytes_field}")
    assert both.built(b"", {}) == "before has no response"
    assert both.built(b"", {"before": b"\xff"}) == "before is no t.v1.All"
    assert both.built(b"\xff", {}) == "input is no t.v1.All"


def in_part(name: str, payload: bytes) -> bytes:
    return field(name, payload, of="t.v1.Part")


def in_leaf(name: str, payload: bytes) -> bytes:
    return field(name, payload, of="t.v1.Leaf")


KEY, NO_VALUE = tagged(1, LENGTH, b"a"), tagged(2, VARINT, b"\x00")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("part_field: input.part_field", "part_field"),
        ("?part_field: input.?part_field", "part_field"),
        ("many_part_field: input.many_part_field", "many_part_field"),
        ("many_part_field: input.many_part_field.map(x, x)", "many_part_field"),
    ],
)
@pytest.mark.parametrize(
    ("given", "built"),
    [
        (UNKNOWN, SHORTEST),
        (in_part("leaf", UNKNOWN), in_part("leaf", SHORTEST)),
        (
            in_part("leaf", in_leaf("labels", KEY + UNKNOWN)),
            in_part("leaf", in_leaf("labels", KEY + NO_VALUE)),
        ),
    ],
    ids=["in it", "below", "in an entry of a map"],
)
def test_a_copied_message_with_unknown_fields_is_left_to_cel(
    text: str, name: str, given: bytes, built: bytes
) -> None:
    both = Both(f"t.v1.All{{{text}}}")
    assert both.copies
    assert both.built(field(name, given)) == field(name, built)
    assert both.asked


def test_unknown_fields_around_what_is_copied_are_nothing_to_cel() -> None:
    both = Both("t.v1.All{string_field: input.part_field.name}")
    given = UNKNOWN + field("part_field", UNKNOWN + in_part("name", b"a"))
    assert both.built(given) == field("string_field", b"a")
    assert not both.asked


def test_a_map_in_a_copied_message_is_serialised_in_the_same_order_whatever_order_it_came_in() -> (
    None
):
    labels = [in_leaf("labels", tagged(1, LENGTH, bytes([key])) + NO_VALUE) for key in b"zaqwsx"]
    both = Both("t.v1.All{part_field: input.part_field}")
    given = [
        field("part_field", in_part("leaf", b"".join(part))) for part in (labels, labels[::-1])
    ]
    assert both.built(given[0]) == both.built(given[1])
    assert not both.asked


def test_lists_are_gone_through_as_far_as_by_cel() -> None:
    inner = "t.v1.Part{leaves: input.many_int32_field.map(y, t.v1.Leaf{})}"
    last = "many_string_field: input.many_string_field.map(z, z)"
    both = Both(f"t.v1.All{{many_part_field: input.many_int32_field.map(x, {inner}), {last}}}")
    allowed = field("many_int32_field", bytes(99)) + 99 * field("many_string_field")
    assert len(both.built(allowed)) > 9_999
    failed = both.built(allowed + field("many_string_field"))
    assert failed == "the expression fails on this input: Iteration budget exceeded [INTERNAL]"
    assert not both.asked


@pytest.mark.parametrize(("loops", "copied"), [(8, True), (9, False)])
def test_loops_inside_of_loops_are_copied_up_to_eight(loops: int, copied: bool) -> None:  # noqa: FBT001
    text = "m.M{}"
    for number in range(loops):
        text = f"m.M{{many: input.many.map(x{number}, {text})}}"
    both = of_type("m.M", text, proto("message M { repeated M many = 1; }"))
    assert both.built(tagged(1, LENGTH, b""))
    assert both.copies == copied


def test_a_copied_request_over_1_mib_is_not_built() -> None:
    both = Both("t.v1.All{bytes_field: input.bytes_field}")
    most = (1 << 20) - len(field("bytes_field", bytes(1 << 20))) + (1 << 20)
    assert len(both.built(field("bytes_field", bytes(most)))) == 1 << 20
    failed = both.built(field("bytes_field", bytes(most + 1)))
    assert failed == "the request has 1048577 bytes; at most 1 MiB"


# --- names and types -----------------------------------------------------------


def proto(text: str) -> list[FileDescriptorProto]:
    files = contract("types", types=f"package m; {text}").files
    return list(map(FileDescriptorProto.FromString, files))


def of_type(message: str, text: str, files: list[FileDescriptorProto], *variables: str) -> Both:
    pool = build_pool(FileDescriptorSet(file=files))
    kind = pool.FindMessageTypeByName(message)
    scope = Scope(pool=pool, variables=dict.fromkeys(variables or ("input",), kind))
    return Both(text, scope, message)


def test_names_may_be_words_of_python() -> None:
    names = ["from", "None", "lambda", "__debug__", "self", "made", "budget"]
    fields = [f"string {name} = {number};" for number, name in enumerate(names, start=1)]
    files = proto(f"message M {{ {''.join(fields)} repeated M many = 9; }}")
    entries = ", ".join(f"`{name}`: lambda.`{name}`" for name in names)
    text = f"m.M{{{entries}, many: made.many.map(None, m.M{{None: None.None}})}}"
    both = of_type("m.M", text, files, "lambda", "made")
    given = b"".join(tagged(number, LENGTH, b"a") for number in range(1, 8))
    many = tagged(9, LENGTH, tagged(2, LENGTH, b"a"))
    assert both.built(b"", {"lambda": given, "made": many}) == given + many
    assert not both.asked


@pytest.mark.parametrize("method", ["HasField", "ByteSize", "DiscardUnknownFields"])
def test_a_type_with_a_field_that_hides_a_method_is_left_to_cel(method: str) -> None:
    files = proto(f"message M {{ optional string text = 1; string {method} = 2; M m = 3; }}")
    assert not of_type("m.M", "m.M{?text: input.?text}", files).copies


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("google.protobuf.Value", "t.v1.All{string_field: input.string_value}"),
        ("google.protobuf.Any", "t.v1.All{string_field: input.type_url}"),
    ],
)
def test_variables_that_are_values_of_their_own_in_cel_are_left_to_it(name: str, text: str) -> None:
    scope = Scope(pool=POOL, variables={"input": POOL.FindMessageTypeByName(name)})
    both = Both(text, scope)
    assert not both.copies
    both.built(tagged(1, LENGTH, b"a") + tagged(3, LENGTH, b"a"))


def test_what_is_not_proto3_is_left_to_cel() -> None:
    (file,) = proto("message Old { string text = 1; } message New { Old old = 1; }")
    file.syntax = "proto2"
    for message, text in [("m.Old", "m.Old{text: input.text}"), ("m.New", "m.New{old: input.old}")]:
        assert not of_type(message, text, [file]).copies


def test_no_type_is_copied_whole_that_may_be_inside_of_itself() -> None:
    files = proto("message M { string text = 1; N n = 2; } message N { M m = 1; }")
    assert not of_type("m.M", "m.M{n: input.n}", files).copies
    both = of_type("m.M", "m.M{text: input.text, n: m.N{m: m.M{text: input.n.m.text}}}", files)
    assert both.copies
    for levels in (98, 100, 102):
        given = tagged(1, LENGTH, b"a")
        for level in range(levels):
            given = tagged(1 + level % 2, LENGTH, given)
        built = both.built(given)
        assert (built == "input is no m.M") == (levels == 102)


def test_a_message_nested_too_deep_to_be_read_is_not_built() -> None:
    files = proto("message M { M m = 1; }")
    both = of_type("m.M", "m.M{m: input}", files)
    given = b""
    for _ in range(99):
        given = tagged(1, LENGTH, given)
    assert both.built(given) == tagged(1, LENGTH, given)
    assert "nested too deep" in str(both.built(tagged(1, LENGTH, given)))


def test_no_type_is_copied_whole_that_is_very_deep() -> None:
    nested = "".join(f"message M{n} {{ M{n + 1} m = 1; }}" for n in range(65))
    files = proto(f"{nested} message M65 {{}}")
    assert not of_type("m.M0", "m.M0{m: input.m}", files).copies
    assert of_type("m.M1", "m.M1{m: input.m}", files).copies

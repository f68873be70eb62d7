from __future__ import annotations

import pytest

from coordinator.core.model import RequestNotBuildable, Step
from coordinator.definitions.base import CompiledDefinition, InputRefused
from coordinator.definitions.compiler import Compilation, compile_definition
from coordinator.definitions.services import Offer
from tests.unit.definitions.contracts import contract, step

FIELDS = """
  string text = 1; optional string note = 2; int64 number = 3; map<string, string> labels = 4;
  Part part = 5; repeated Part parts = 6; oneof choice { string this = 7; int32 that = 8; }
  optional Part other = 9; bytes data = 10; Colour colour = 11;
  google.protobuf.Timestamp time = 12;
"""
PROTO = f"""
  package t.v1;
  import "google/protobuf/timestamp.proto";
  enum Colour {{ RED = 0; BLUE = 1; }}
  message Part {{ string name = 1; optional int32 size = 2; }}
  message Input {{ {FIELDS} }}
  {step("Make", FIELDS, FIELDS)}
"""
OFFER = Offer.of([contract("maker", make=PROTO)])


def compiled(request: str, *, keys: str = "") -> Compilation:
    source = f"""
name: make
input: t.v1.Input
keys: {{{keys}}}
steps:
- name: before
  service: t.v1.Make
  request: t.v1.MakeRequest{{}}
- name: make
  service: t.v1.Make
  request: |
    {request}
"""
    return compile_definition(source, OFFER)


def make(request: str) -> Step:
    return compiled(request).version.definition.steps[1]


def version_with_key(expression: str) -> CompiledDefinition:
    return compiled("t.v1.MakeRequest{}", keys=f"key: '{expression}'").version


def text_input(text: str) -> bytes:
    return b"\x0a" + bytes([len(text)]) + text.encode()


NOTHING: dict[str, bytes] = {"before": b""}


@pytest.mark.parametrize(
    ("request_", "given", "built"),
    [
        ("t.v1.MakeRequest{text: input.text + '!'}", text_input("a"), text_input("a!")),
        ("t.v1.MakeRequest{?note: input.?note}", b"", b""),
        ("t.v1.MakeRequest{?note: input.?note}", b"\x12\x00", b"\x12\x00"),
        ("t.v1.MakeRequest{note: input.note}", b"", b"\x12\x00"),
        ("t.v1.MakeRequest{colour: t.v1.Colour.BLUE}", b"", b"\x58\x01"),
        ("t.v1.MakeRequest{part: t.v1.Part{name: before.text}}", b"", b"\x2a\x00"),
        ("t.v1.MakeRequest{parts: input.parts}", b"\x32\x03\x0a\x01a", b"\x32\x03\x0a\x01a"),
        ("t.v1.MakeRequest{time: timestamp('1970-01-01T00:00:01Z')}", b"", b"\x62\x02\x08\x01"),
    ],
)
def test_requests_are_built(request_: str, given: bytes, built: bytes) -> None:
    assert make(request_).build(given, NOTHING) == built


def test_a_map_is_serialised_in_the_same_order_whatever_order_it_came_in() -> None:
    entries = [bytes([0x22, 6, 0x0A, 1, key, 0x12, 1, key]) for key in b"zaqwsxcde"]
    build = make("t.v1.MakeRequest{labels: input.labels}").build
    assert build(b"".join(entries), NOTHING) == build(b"".join(reversed(entries)), NOTHING)
    assert build(b"".join(entries), NOTHING) == b"".join(sorted(entries))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("t.v1.MakeRequest{number: 1 / input.number}", "divide by zero"),
        ("t.v1.MakeRequest{text: input.parts[3].name}", "Index error"),
        ("t.v1.MakeRequest{that: input.number + 9999999999}", "int64 to int32 overflow"),
        ("t.v1.MakeRequest{number: int(input.text)}", "cannot convert string to int"),
        ("t.v1.MakeRequest{text: {'a': 'b'}[input.text]}", "Key not found in map"),
        ("t.v1.MakeRequest{text: input.text.matches(input.text + '(') ? 'a' : 'b'}", "invalid"),
        ("t.v1.MakeRequest{text: {input.text: 'a', input.text: 'b'}['a']}", "duplicate key in map"),
        ("t.v1.MakeRequest{text: dyn(input.text).secret}", "Applying SELECT to non-message type"),
        ("input.text == 'secret' ? null : t.v1.MakeRequest{}", "gives null"),
    ],
)
def test_a_failed_evaluation_is_told_without_the_data(request_: str, words: str) -> None:
    with pytest.raises(RequestNotBuildable) as failed:
        make(request_).build(text_input("secret"), NOTHING)
    assert words in str(failed.value)
    assert "secret" not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__context__ is None or failed.value.__suppress_context__


def test_a_request_over_1_mib_is_not_built() -> None:
    repeat = "[0,0,0,0].map(_, input.text).map(a, a + a + a + a)"
    step = make(f"t.v1.MakeRequest{{parts: {repeat}.map(t, t.v1.Part{{name: t}})}}")
    size = 65_500
    given = b"\x0a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + b"x" * size
    assert len(step.build(given, NOTHING)) < 1 << 20
    with pytest.raises(RequestNotBuildable, match="at most 1 MiB"):
        step.build(given + text_input("x" * 100).replace(b"\n", b"\n", 1) + _longer(given), NOTHING)


def _longer(given: bytes) -> bytes:
    """The same field once more, 100 bytes longer: the last one counts."""
    size = 65_600
    return b"\x0a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + b"x" * size


def test_endless_work_is_stopped() -> None:
    loops = "[0,1,2,3,4,5,6,7,8,9]"
    nested = f"{loops}.map(a, {loops}.map(b, {loops}.map(c, {loops}.map(d, {loops}.map(e, 1)))))"
    with pytest.raises(RequestNotBuildable, match="Iteration budget exceeded"):
        make(f"t.v1.MakeRequest{{number: {nested}.size()}}").build(b"", NOTHING)


def test_a_request_that_reads_nothing_is_built_once_for_all_sagas() -> None:
    built = make("t.v1.MakeRequest{text: 'same'}").build
    assert built(text_input("one"), NOTHING) is built(text_input("other"), {"before": b"x"})


def test_only_what_an_expression_reads_is_parsed() -> None:
    unreadable = b"\xff"
    assert make("t.v1.MakeRequest{text: input.text}").build(b"", {"before": unreadable}) == b""
    assert make("t.v1.MakeRequest{text: before.text}").build(unreadable, NOTHING) == b""


def test_a_name_that_is_also_a_package_can_be_both() -> None:
    source = """
name: make
input: t.v1.Input
steps:
- {name: t, service: t.v1.Make, request: 't.v1.MakeRequest{}'}
- {name: u, service: t.v1.Make, request: 't.v1.MakeRequest{text: t.text}'}
"""
    step = compile_definition(source, OFFER).version.definition.steps[1]
    assert step.build(b"", {"t": text_input("a")}) == text_input("a")


def test_a_key_that_cannot_be_built_refuses_the_input() -> None:
    version = version_with_key("input.parts[0].name")
    assert version.keys_of(b"\x32\x03\x0a\x01a") == {"key": "a"}
    with pytest.raises(InputRefused, match="key key: the expression fails") as refused:
        version.keys_of(b"")
    assert refused.value.reason == "KEY_NOT_BUILDABLE"


# --- warnings ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "column", "write"),
    [
        ("t.v1.MakeRequest{note: input.note}", 28, "?note: input.?note"),
        ("t.v1.MakeRequest{this: input.this}", 28, "?this: input.?this"),
        ("t.v1.MakeRequest{other: before.other}", 29, "?other: before.?other"),
        ("t.v1.MakeRequest{part: t.v1.Part{size: input.part.size}}", 44, "?size: input.part.?size"),
        ("t.v1.MakeRequest{this: input.parts[0].name, note: input.note}", 55, "?note: input.?note"),
        ("t.v1.MakeRequest{that: input.parts[0].size}", 39, "?that: (...).?size"),
        (
            "t.v1.MakeRequest{parts: input.parts.map(p, t.v1.Part{size: p.size})}",
            64,
            "?size: p.?size",
        ),
    ],
)
def test_copying_an_optional_field_plainly_is_a_warning(
    request_: str, column: int, write: str
) -> None:
    (warning,) = compiled(request_).warnings
    assert (warning.line, warning.column) == (12, column)
    assert warning.path == "steps[1].request"
    assert warning.message.endswith(f"write {write} to leave it unset")


@pytest.mark.parametrize(
    "request_",
    [
        "t.v1.MakeRequest{?note: input.?note}",
        "t.v1.MakeRequest{text: input.note}",
        "t.v1.MakeRequest{note: input.text}",
        "t.v1.MakeRequest{part: input.part}",
        "t.v1.MakeRequest{note: input.note + ''}",
        "t.v1.MakeRequest{note: has(input.note) ? 'a' : 'b'}",
        "t.v1.MakeRequest{labels: {'a': input.note}}",
        "t.v1.MakeRequest{note: input.labels.note}",
        "t.v1.MakeRequest{note: dyn(input).note}",
        "t.v1.MakeRequest{time: google.protobuf.Timestamp{seconds: input.number}}",
    ],
)
def test_what_loses_nothing_or_is_computed_is_no_warning(request_: str) -> None:
    assert compiled(request_).warnings == ()

"""Types with fields of every type in every form, and expressions over them, by both ways."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from hypothesis import assume
from hypothesis import strategies as st

from coordinator.core.model import RequestNotBuildable
from coordinator.definitions.expressions import RequestBuilder, compile_expression
from coordinator.definitions.pool import build_pool
from coordinator.definitions.scope import Scope
from tests.unit.definitions.contracts import contract

PLAIN = [
    *("bool", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64"),
    *("sfixed32", "sfixed64", "float", "double", "string", "bytes", "Colour", "Part"),
]
WELL_KNOWN = ["Timestamp", "Int32Value", "Struct", "Any", "NullValue"]
MAPS = ["int64", "float", "string", "Colour", "Part", "google.protobuf.Timestamp"]


def _fields() -> Iterator[str]:
    kinds = [*PLAIN, *(f"google.protobuf.{kind}" for kind in WELL_KNOWN)]
    for form in ("{} {}", "optional {} maybe_{}", "repeated {} many_{}"):
        yield from (form.format(kind, _name(kind)) for kind in kinds)
    yield from (f"map<string, {kind}> named_{_name(kind)}" for kind in MAPS)


def _name(kind: str) -> str:
    return f"{kind.rpartition('.')[2].lower()}_field"


NUMBERED = [f"{field} = {number};" for number, field in enumerate(_fields(), start=1)]
PROTO = f"""
  package t.v1;
  import "google/protobuf/any.proto";
  import "google/protobuf/struct.proto";
  import "google/protobuf/timestamp.proto";
  import "google/protobuf/wrappers.proto";
  enum Colour {{ RED = 0; BLUE = 1; }}
  message Leaf {{ string name = 1; repeated int32 sizes = 2; map<string, int64> labels = 3; }}
  message Part {{
    string name = 1; optional int64 size = 2; Leaf leaf = 3; repeated Leaf leaves = 4;
    double weight = 5; Colour colour = 6; google.protobuf.Timestamp time = 7;
    repeated google.protobuf.Any details = 8; uint64 total = 9;
  }}
  message All {{
    {" ".join(NUMBERED)}
    oneof choice {{ string this = 201; int32 that = 202; Part those = 203; }}
  }}
"""
FILES = map(FileDescriptorProto.FromString, contract("all", all=PROTO).files)
POOL = build_pool(FileDescriptorSet(file=FILES))
ALL = POOL.FindMessageTypeByName("t.v1.All")
SCOPE = Scope(pool=POOL, variables={"input": ALL, "before": ALL})

NOTHING = {"before": b""}


class Both:
    """One expression, as it is built and as CEL alone builds it."""

    def __init__(self, text: str, scope: Scope = SCOPE, gives: str = ALL.full_name) -> None:
        expression = compile_expression(text, scope, gives=gives)
        by_cel = copy.copy(expression)
        by_cel._copier = None
        self.copies = expression._copier is not None
        self.asked = 0
        """How often CEL was asked."""
        self._by_cel = expression._by_cel
        vars(expression)["_by_cel"] = self._asked
        self._build, self._build_by_cel = RequestBuilder(expression), RequestBuilder(by_cel)

    def built(self, input_bytes: bytes, responses: Mapping[str, bytes] = NOTHING) -> bytes | str:
        """The request, or the words of the failure; the same as by CEL."""
        built = _outcome(self._build, input_bytes, responses)
        assert built == _outcome(self._build_by_cel, input_bytes, responses)
        return built

    def _asked(self, messages: list[Message]) -> object:
        self.asked += 1
        return self._by_cel(messages)


def _outcome(
    build: RequestBuilder, input_bytes: bytes, responses: Mapping[str, bytes]
) -> bytes | str:
    try:
        return build(input_bytes, responses)
    except RequestNotBuildable as error:
        return str(error)


Paths = dict[str, list[str]]
"""What can be read, by its type in CEL."""

_TYPES = {
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_UINT32: "uint",
    FieldDescriptor.CPPTYPE_UINT64: "uint",
    FieldDescriptor.CPPTYPE_FLOAT: "double",
    FieldDescriptor.CPPTYPE_DOUBLE: "double",
}
_CONSTANTS = {
    "bool": ["true", "false"],
    "int": ["0", "-1", "2147483648", "t.v1.Colour.BLUE", "1 + 1"],
    "uint": ["0u", "7u", "4294967296u"],
    "double": ["0.0", "-0.0", "0.1", "1e300"],
    "string": ["''", "'é\\u0000'", "input.string_field + '!'"],
    "bytes": ["b''", "b'\\xff'"],
    "google.protobuf.Int32Value": ["1", "null"],
    "google.protobuf.Any": ["input.part_field", "'a'"],
}


def _type(field: FieldDescriptor) -> str:
    """In CEL; of the elements, where it is a list."""
    if field.message_type is not None:
        return field.message_type.full_name
    if field.type == FieldDescriptor.TYPE_STRING:
        return "string"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "bytes"
    return _TYPES.get(field.cpp_type, "int")


def _paths(variable: str, message: Descriptor) -> Iterator[tuple[str, str]]:
    """Every field below a variable: its type and the way there; types of lists end in `*`."""
    for field in message.fields:
        path = f"{variable}.{field.name}"
        yield _type(field) + "*" * field.is_repeated, path
        if field.message_type is not None and not field.is_repeated:
            yield from _paths(path, field.message_type) if _is_ours(field.message_type) else ()


def _is_ours(message: Descriptor) -> bool:
    return message.full_name.startswith("t.v1.") and not message.GetOptions().map_entry


def _with(paths: Paths, found: Iterable[tuple[str, str]]) -> Paths:
    more = {kind: list(ways) for kind, ways in paths.items()}
    for kind, way in found:
        more.setdefault(kind, []).append(way)
    return more


def expressions() -> st.SearchStrategy[str]:
    """Expressions that give an `All`, most of them nothing but copies."""
    paths = _with({}, [*_paths("input", ALL), *_paths("before", ALL), (ALL.full_name, "input")])
    return _literals(ALL, paths, depth=2)


@st.composite
def _literals(draw: st.DrawFn, message: Descriptor, paths: Paths, depth: int) -> str:
    fields = draw(st.lists(st.sampled_from(list(message.fields)), max_size=4, unique=True))
    entries = [draw(_entries(field, paths, depth)) for field in fields]
    return f"{message.full_name}{{{', '.join(entries)}}}"


@st.composite
def _entries(draw: st.DrawFn, field: FieldDescriptor, paths: Paths, depth: int) -> str:
    if field.is_repeated:
        return f"{field.name}: {draw(_lists(field, paths, depth))}"
    value = draw(_values(field, paths, depth))
    whole, _, read = value.rpartition(".")
    if value in paths.get(_type(field), ()) and whole and draw(st.booleans()):
        return f"?{field.name}: {whole}.?{read}"
    return f"{field.name}: {value}"


@st.composite
def _values(draw: st.DrawFn, field: FieldDescriptor, paths: Paths, depth: int) -> str:
    known = paths.get(_type(field), []) + _CONSTANTS.get(_type(field), [])
    literal = depth and field.message_type is not None and _is_ours(field.message_type)
    if literal and (not known or draw(st.booleans())):
        return draw(_literals(POOL.FindMessageTypeByName(_type(field)), paths, depth - 1))
    assume(known)
    return draw(st.sampled_from(known))


@st.composite
def _lists(draw: st.DrawFn, field: FieldDescriptor, paths: Paths, depth: int) -> str:
    known = paths.get(f"{_type(field)}*", [])
    if not depth or (known and draw(st.booleans())):
        assume(known)
        return draw(st.sampled_from(known))
    kind = draw(st.sampled_from([kind for kind in sorted(paths) if kind.endswith("*")]))
    variable = draw(st.sampled_from(["x", "y", "made", "budget", "before"]))
    element = _element(variable, kind.removesuffix("*"))
    inside = {k: [w for w in ways if not w.startswith(f"{variable}.")] for k, ways in paths.items()}
    value = draw(_values(field, _with(inside, element), depth - 1))
    return f"{draw(st.sampled_from(paths[kind]))}.map({variable}, {value})"


def _element(variable: str, kind: str) -> list[tuple[str, str]]:
    if not kind.startswith("t.v1."):
        return [(kind, variable)]
    message = POOL.FindMessageTypeByName(kind)
    return [(kind, variable), *_paths(variable, message)]

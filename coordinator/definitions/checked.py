"""What a checked CEL expression reads and copies.

CEL gives its checked form as a serialised `cel.expr.CheckedExpr`: the tree of the expression, the
type of every node and its position in the text. No package of Python stubs has that message, so the
few of its fields that are read here are declared below, by name, number and type; protobuf skips
the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Made = Any
"""A message of a type that is made at run time, below."""

_FIELDS = {
    "CheckedExpr": "2 references Reference*, 3 types Typed*, 4 expr Expr, 5 source Source",
    "Reference": "1 id int, 2 target Target",
    "Target": "1 name text, 4 value Constant",
    "Typed": "1 id int, 2 type Type",
    "Type": "9 message text",
    "Source": "4 positions Position*",
    "Position": "1 id int, 2 offset int",
    "Expr": "2 id int, 3 constant Constant, 4 ident Ident, 5 select Select, 6 call Call,"
    " 7 list List, 8 struct Struct, 9 comprehension Comprehension",
    "Constant": "2 bool bool, 3 int int, 4 uint uint, 5 double double, 6 text text, 7 bytes bytes",
    "Ident": "1 name text",
    "Select": "1 operand Expr, 2 field text, 3 test_only bool",
    "Call": "1 target Expr, 2 function text, 3 args Expr*",
    "List": "1 elements Expr*, 2 optional int*",
    "Struct": "1 message text, 2 entries Entry*",
    "Entry": "2 field text, 3 key Expr, 4 value Expr, 5 optional bool",
    "Comprehension": "1 variable text, 2 range Expr, 3 result_variable text, 4 initial Expr,"
    " 5 condition Expr, 6 step Expr, 7 result Expr, 8 second_variable text",
}
_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int": FieldDescriptorProto.TYPE_INT64,
    "uint": FieldDescriptorProto.TYPE_UINT64,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "text": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}

Constant = bool | int | float | str | bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """One field of a new message that is set to a field of another, as in `X{a: input.b}`."""

    position: int
    """In the expression, of what is read."""
    target: tuple[str, str]
    """Full name of the message and name of the field that is set."""
    source: tuple[str, str]
    """Full name of the message and name of the field that is read."""
    operand: str
    """What the field is read of, as it is written: `input` or `input.customer`."""


class CheckedExpression:
    """A checked expression, from its serialised form."""

    def __init__(self, serialised: bytes) -> None:
        checked: Made = _CHECKED_EXPR.FromString(AnyMessage.FromString(serialised).value)
        self.root: Made = checked.expr
        """The tree, an `Expr`."""
        self._expressions = list(_walk(checked.expr))
        self._names = {r.id: r.target.name for r in checked.references}
        self._values = {
            r.id: r.target.value for r in checked.references if r.target.HasField("value")
        }
        self._types = {t.id: t.type.message for t in checked.types}
        self._positions = {p.id: p.offset for p in checked.source.positions}

    @property
    def identifiers(self) -> frozenset[str]:
        """Every plain name in it: at least the variables that it reads."""
        return frozenset(e.ident.name for e in self._expressions if e.HasField("ident"))

    def message(self, expression: Made) -> str:
        """Full name of the message that a literal makes; empty for a map."""
        return str(self._names.get(expression.id, "")).removeprefix(".")

    def constant(self, expression: Made) -> Constant | None:
        """The value of a literal or of an enum's name; None for null and for everything else."""
        constant = self._values.get(expression.id, expression.constant)
        return next((value for _, value in constant.ListFields()), None)

    def copies(self) -> Iterator[Copy]:
        """Fields copied plainly: neither `?a: x.?b` nor anything computed."""
        for expression in self._expressions:
            for entry in expression.struct.entries:
                if entry.value.HasField("select") and not entry.optional and entry.field:
                    yield self._copy(self.message(expression), entry)

    def _copy(self, message: str, entry: Made) -> Copy:
        read = entry.value.select
        source = self._types.get(read.operand.id, "")
        path = _path(read.operand)
        target = message, entry.field
        operand = ".".join(e.ident.name or e.select.field or "(...)" for e in path)
        return Copy(self._positions[path[0].id], target, (source, read.field), operand)


def _path(expression: Made) -> list[Made]:
    """Every expression from the first in a chain of fields to this one."""
    path = [expression]
    while path[0].HasField("select"):
        path.insert(0, path[0].select.operand)
    return path


def _walk(root: Message) -> Iterator[Made]:
    """Every Expr inside."""
    waiting: list[Made] = [root]
    while waiting:
        message = waiting.pop()
        if message.DESCRIPTOR.name == "Expr":
            yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else [value])


def _field(declared: str) -> FieldDescriptorProto:
    number, name, kind = declared.split()
    field = FieldDescriptorProto(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
    field.type = _SCALARS.get(kind.rstrip("*"), field.TYPE_MESSAGE)
    if field.type == field.TYPE_MESSAGE:
        field.type_name = f".checked.{kind.rstrip('*')}"
    return field


def _checked_expr() -> type[Message]:
    # In proto2 every field can be set to its default, as a constant's value may be.
    file = FileDescriptorProto(name="checked.proto", package="checked", syntax="proto2")
    for name, fields in _FIELDS.items():
        file.message_type.add(name=name, field=map(_field, fields.split(", ")))
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("checked.CheckedExpr"))


_CHECKED_EXPR = _checked_expr()

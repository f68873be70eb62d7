"""From YAML to `saga.v1.Definition`, field by field along its schema.

The schema is the proto alone: whatever field it has, the YAML has, in protobuf's JSON form. A part
that does not fit is reported where it stands and left out, and the rest is read all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import DoubleValue, Int32Value, StringValue

from coordinator.definitions.findings import Findings, suggest
from coordinator.definitions.nodes import (
    Mapping,
    Node,
    Scalar,
    Sequence,
    Unreadable,
    Value,
    read_nodes,
)
from protos.saga.v1 import saga_pb2

MAX_SOURCE_BYTES = 256 * 1024

_SCHEMA = saga_pb2.DESCRIPTOR.message_types_by_name["Definition"]

Json = Value | list["Json"] | dict[str, "Json"]

# Each JSON form that a value can have, as the message that parses it, and its name for people.
_TEXT = StringValue, "text"
_WHOLE_NUMBER = Int32Value, "a whole number"
_NUMBER = DoubleValue, "a number"
_DURATION = Duration, "a duration in seconds, such as 30s or 0.5s"


def read_definition(source: str, findings: Findings) -> saga_pb2.Definition:
    """What can be read of a definition; what cannot be is added to the findings.

    Raises:
        DefinitionRefused: nothing can be read, because the text is no YAML at all.
    """
    if len(source.encode(errors="replace")) > MAX_SOURCE_BYTES:
        findings.problem("", "SOURCE_TOO_LARGE", "a definition has at most 256 KiB")
        findings.refuse()
    try:
        root = read_nodes(source)
    except Unreadable as error:
        findings.problem("", error.reason, error.message, offset=error.offset)
        findings.refuse()
        raise
    form = _Reader(findings).message(root, _SCHEMA, "")
    return json_format.ParseDict(form, saga_pb2.Definition())


class _Reader:
    """Turns nodes into the JSON form of a message; every method leaves out what does not fit."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def message(self, node: Node, schema: Descriptor, path: str) -> dict[str, Json]:
        self._findings.located(path, node)
        fields = {name: f for f in schema.fields for name in (f.name, f.json_name)}
        form: dict[str, Json] = {}
        for name, key, value in self._entries(node, path):
            inner = f"{path}.{name}" if path else name
            field = fields.get(name)
            if field is None:
                self._unknown(inner, name, schema, key.offset)
            elif field.name in form:
                self._twice(path, field.name, key.offset)
            elif (read := self._field(value, field, inner)) is not None:
                form[field.name] = read
        return form

    def _field(self, node: Node, field: FieldDescriptor, path: str) -> Json:
        self._findings.located(path, node)
        if isinstance(node, Scalar) and node.value is None:
            return None
        if field.message_type and field.message_type.GetOptions().map_entry:
            return self._map(node, field.message_type.fields_by_name["value"], path)
        if field.is_repeated:
            return self._list(node, field, path)
        return self._value(node, field, path)

    def _map(self, node: Node, value_field: FieldDescriptor, path: str) -> Json:
        form: dict[str, Json] = {}
        for name, _, value in self._entries(node, path):
            if (read := self._value(value, value_field, f"{path}.{name}")) is not None:
                form[name] = read
        return form

    def _list(self, node: Node, field: FieldDescriptor, path: str) -> Json:
        if not isinstance(node, Sequence):
            return self._wrong(node, path, "a list")
        values = [self._value(item, field, f"{path}[{i}]") for i, item in enumerate(node.items)]
        # What does not fit leaves an empty place, so that the others keep their numbers.
        return ["" if value is None else value for value in values]

    def _value(self, node: Node, field: FieldDescriptor, path: str) -> Json:
        self._findings.located(path, node)
        if field.message_type and field.message_type is not Duration.DESCRIPTOR:
            return self.message(node, field.message_type, path)
        form, expected = _form(field)
        if not isinstance(node, Scalar) or node.value is None:
            return self._wrong(node, path, expected)
        try:
            json_format.Parse(json.dumps(node.value), form())
        except json_format.ParseError:
            return self._wrong(node, path, expected)
        return node.value

    def _entries(self, node: Node, path: str) -> Iterator[tuple[str, Scalar, Node]]:
        """Keys that are text, each once."""
        if not isinstance(node, Mapping):
            self._wrong(node, path, "fields with values")
            return
        seen: set[str] = set()
        for key, value in node.entries:
            if not isinstance(key, Scalar):
                message = f"a field's name is text, not {_called(key)}"
                self._findings.problem(path, "BAD_NAME", message, offset=key.offset)
            elif key.text in seen:
                self._twice(path, key.text, key.offset)
            else:
                seen.add(key.text)
                yield key.text, key, value

    def _twice(self, path: str, name: str, offset: int) -> None:
        self._findings.problem(path, "DUPLICATE_FIELD", f"{name} is written twice", offset=offset)

    def _unknown(self, path: str, name: str, schema: Descriptor, offset: int) -> None:
        known = [field.name for field in schema.fields]
        message = f"{schema.name} has no field {name}; {suggest(name, known)}"
        self._findings.problem(path, "UNKNOWN_FIELD", message, offset=offset)

    def _wrong(self, node: Node, path: str, expected: str) -> Json:
        reason = "BAD_DURATION" if expected == _DURATION[1] else "WRONG_SHAPE"
        message = f"expected {expected}, given {_called(node)}"
        self._findings.problem(path, reason, message, offset=node.offset)
        return None


def _form(field: FieldDescriptor) -> tuple[type[Message], str]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _DURATION
    if field.type == FieldDescriptor.TYPE_INT32:
        return _WHOLE_NUMBER
    return _NUMBER if field.type == FieldDescriptor.TYPE_DOUBLE else _TEXT


def _called(node: Node) -> str:
    if isinstance(node, Scalar):
        return repr(node.text) if isinstance(node.value, str) else node.text or "nothing"
    return "a list" if isinstance(node, Sequence) else "fields with values"

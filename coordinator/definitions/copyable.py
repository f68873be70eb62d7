"""Types whose messages CEL and protobuf for Python see alike; `copying.py` says why these."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

MAX_TYPES = 64
"""Inside of a message that is copied whole."""

_METHODS = frozenset(dir(Message))


def is_readable(message: Descriptor) -> bool:
    """Whether plain fields of this type's messages can be read here, and set."""
    types = _types(message).values()
    files = {held.file.name: held.file for held in types}
    return (
        not _is_well_known(message)
        and all(map(_is_proto3, files.values()))
        # Such a field would hide the method.
        and not any(field.name in _METHODS for held in types for field in held.fields)
    )


def is_copyable(message: Descriptor) -> bool:
    """Whether messages of this type, if readable, can be copied whole."""
    types = _types(message)
    graph = {name: [part.full_name for part in _parts(held)] for name, held in types.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return False
    return len(types) <= MAX_TYPES


def is_plain(field: FieldDescriptor) -> bool:
    """Whether a field is copied alike, for its type and form."""
    if field.is_repeated and (_is_map(field) or field.type == FieldDescriptor.TYPE_FLOAT):
        return False
    kind = field.message_type or field.enum_type
    return kind is None or not _is_well_known(kind)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_well_known(kind: Descriptor | EnumDescriptor) -> bool:
    return kind.full_name.startswith("google.protobuf.")


def _types(message: Descriptor) -> dict[str, Descriptor]:
    """This type and all that its messages hold, by full name."""
    found: dict[str, Descriptor] = {}
    waiting = [message]
    while waiting:
        held = waiting.pop()
        if held.full_name not in found:
            found[held.full_name] = held
            waiting.extend(_parts(held))
    return found


def _parts(message: Descriptor) -> Iterator[Descriptor]:
    return (field.message_type for field in message.fields if field.message_type is not None)


def _is_proto3(file: FileDescriptor) -> bool:
    return FileDescriptorProto.FromString(file.serialized_pb).syntax == "proto3"

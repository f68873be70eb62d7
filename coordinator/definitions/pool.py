"""Descriptors of several participants as one set of files.

A descriptor pool refuses one file name with two contents, and one symbol in two files. Participants
have both all the time: each has compiled the shared protos by itself, from paths and releases of
its own. So files are merged by symbol (a top-level message, enum, service or extension):

- A symbol that is there already, equal, is left out of the file that brings it again; that file
  imports it publicly from where it is, so that whatever imports the file still finds it.
- A file that then has nothing of its own is dropped, and one whose name is taken is renamed.
- A symbol that is there already, but different, is a conflict. The first definition stays, and
  whoever needs the symbol has to be told.

Well-known types (google.protobuf) are always those of this process: they are part of the language.
What a participant may well change without changing its contract (source positions, default JSON
names) is taken out, so that equal contracts have equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

_WELL_KNOWN = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2,
        api_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        wrappers_pb2,
    )
}


class DescriptorsInvalid(Exception):
    """Files that make no pool: one is missing, malformed or at odds with another."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """One symbol with two different definitions."""

    symbol: str
    first: str
    """Name of the participant whose definition was kept."""
    other: str


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a symbol is defined."""

    file: str
    participant: str
    content: bytes


class Descriptors:
    """Files of several participants, merged by symbol."""

    def __init__(self) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self._homes: dict[str, _Home] = {}
        self._conflicts: list[Conflict] = []

    def add(self, participant: str, files: Iterable[bytes]) -> None:
        """Add what a participant serves: serialised FileDescriptorProtos.

        Raises:
            DescriptorsInvalid: one of them does not parse.
        """
        originals = {file.name: file for file in map(_normal, files)}
        names: dict[str, str] = {}
        for file in _imports_first(originals):
            names[file.name] = self._add_file(file, participant, names)

    def defines(self, symbol: str) -> bool:
        """Whether a message, enum or service of this full name may be found in these files."""
        return self._home(symbol) is not None

    def needed(self, symbols: Iterable[str]) -> FileDescriptorSet:
        """The files of these symbols with everything they import, each after its imports."""
        homes = (self._home(symbol) for symbol in sorted(symbols))
        roots = dict.fromkeys(home.file for home in homes if home)
        files = {name: self._files[name] for name in roots}
        return FileDescriptorSet(file=_imports_first(self._files, files))

    def conflicts(self, files: FileDescriptorSet) -> list[Conflict]:
        """The conflicts that these files are part of."""
        names = {file.name for file in files.file}
        return [c for c in self._conflicts if self._homes[c.symbol].file in names]

    def _home(self, symbol: str) -> _Home | None:
        while symbol and symbol not in self._homes:
            symbol = symbol.rpartition(".")[0]
        return self._homes.get(symbol)

    def _add_file(self, file: FileDescriptorProto, participant: str, names: dict[str, str]) -> str:
        """Add what is new in a file; returns the name of the file that stands for it."""
        symbols = dict(_symbols(file))
        known = {s: home for s in symbols if (home := self._homes.get(s))}
        for symbol, home in known.items():
            if home.content != symbols[symbol]:
                self._conflicts.append(Conflict(symbol, home.participant, participant))
        elsewhere = {home.file for home in known.values()}
        if len(known) == len(symbols) and len(elsewhere) == 1:
            return elsewhere.pop()
        rest = _without(file, known)
        _set_imports(rest, names, elsewhere)
        if self._files.get(rest.name, rest) != rest:
            rest.name = _other_name(rest)
        self._files[rest.name] = rest
        for symbol in symbols.keys() - known.keys():
            self._homes[symbol] = _Home(rest.name, participant, symbols[symbol])
        return rest.name


def build_pool(files: FileDescriptorSet) -> DescriptorPool:
    """A pool of its own with exactly these files, each listed after its imports.

    Raises:
        DescriptorsInvalid: they do not fit together.
    """
    pool = DescriptorPool()
    for file in files.file:
        try:
            pool.Add(file)
        except TypeError as error:
            raise DescriptorsInvalid(f"{file.name}: {error}") from error
    return pool


def _normal(content: bytes) -> FileDescriptorProto:
    try:
        file = FileDescriptorProto.FromString(content)
    except DecodeError as error:
        raise DescriptorsInvalid(f"a file descriptor does not parse: {error}") from error
    if file.name in _WELL_KNOWN:
        return FileDescriptorProto.FromString(_WELL_KNOWN[file.name])
    file.ClearField("source_code_info")
    for field in _fields(file):
        if field.json_name == _default_json_name(field.name):
            field.ClearField("json_name")
    return file


def _fields(scope: FileDescriptorProto | DescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from scope.extension
    if isinstance(scope, DescriptorProto):
        yield from scope.field
    nested = scope.nested_type if isinstance(scope, DescriptorProto) else scope.message_type
    for message in nested:
        yield from _fields(message)


def _default_json_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def _imports_first(
    files: dict[str, FileDescriptorProto], roots: Iterable[str] | None = None
) -> Iterator[FileDescriptorProto]:
    """The roots (by default all files) with what they import, always in the same order."""
    waiting = [(name, False) for name in sorted(files if roots is None else roots, reverse=True)]
    begun: set[str] = set()
    while waiting:
        name, imports_done = waiting.pop()
        if imports_done:
            yield files[name]
        elif name in files and name not in begun:
            begun.add(name)
            waiting.append((name, True))
            waiting.extend((i, False) for i in sorted(files[name].dependency, reverse=True))


def _symbols(file: FileDescriptorProto) -> Iterator[tuple[str, bytes]]:
    """Full names of the top-level symbols, each with bytes that are equal for equal definitions."""
    language = f"{file.syntax or 'proto2'} {file.edition} ".encode()
    prefix = f"{file.package}." if file.package else ""
    for group in (file.message_type, file.enum_type, file.service, file.extension):
        for symbol in group:
            yield prefix + symbol.name, language + symbol.SerializeToString(deterministic=True)


def _without(file: FileDescriptorProto, symbols: Iterable[str]) -> FileDescriptorProto:
    rest = FileDescriptorProto()
    rest.CopyFrom(file)
    prefix = f"{file.package}." if file.package else ""
    unwanted = frozenset(symbols)
    for group in (rest.message_type, rest.enum_type, rest.service, rest.extension):
        for position in reversed(range(len(group))):
            if prefix + group[position].name in unwanted:
                del group[position]
    return rest


def _set_imports(file: FileDescriptorProto, names: dict[str, str], public: set[str]) -> None:
    """Import by the names that files have here, and some of them publicly."""
    imported = [names.get(name, name) for name in file.dependency]
    exported = {imported[position] for position in file.public_dependency} | public
    for field in ("dependency", "public_dependency", "weak_dependency"):
        file.ClearField(field)
    for position, name in enumerate(dict.fromkeys([*imported, *sorted(public)])):
        file.dependency.append(name)
        if name in exported:
            file.public_dependency.append(position)


def _other_name(file: FileDescriptorProto) -> str:
    digest = hashlib.sha256(file.SerializeToString(deterministic=True)).hexdigest()
    return f"{file.name.removesuffix('.proto')}_{digest[:12]}.proto"

"""Arrays in PostgreSQL's binary format, packed by hand: a third of what psycopg's lists cost.

    register(connection)
    TextArray.of([pack_text("a"), NULL])     # a parameter of type text[]

An element is its length, as four bytes big-endian, and its value; NULL has the length -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import ClassVar, Self

from psycopg import AsyncConnection, adapters
from psycopg.adapt import Dumper
from psycopg.pq import Format

NULL = b"\xff\xff\xff\xff"

_HEADER = Struct(">5i")  # dimensions, whether NULLs are in it, type of element, length, from 1
_EMPTY = Struct(">3i")
_LENGTH = Struct(">i")
_INTEGER = Struct(">ii")
_BIGINT = Struct(">iq")
_JSONB = Struct(">ib")
_JSONB_VERSION = 1
_POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01


def pack_bytes(value: bytes) -> bytes:
    """An element of `bytea[]`."""
    return _LENGTH.pack(len(value)) + value


def pack_text(value: str) -> bytes:
    """An element of `text[]`."""
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


@lru_cache(maxsize=4_096)
def pack_name(value: str) -> bytes:
    """An element of `text[]` that is in many rows: of a kind, a state, a step, a definition."""
    return pack_text(value)


def pack_integer(value: int) -> bytes:
    """An element of `integer[]`; raises `struct.error` when it does not fit."""
    return _INTEGER.pack(4, value)


def pack_time(time_ms: int) -> bytes:
    """An element of `timestamptz[]`, from milliseconds since 1970."""
    return _BIGINT.pack(8, (time_ms - _POSTGRES_EPOCH_MS) * 1_000)


def pack_jsonb(value: bytes) -> bytes:
    """An element of `jsonb[]`, from JSON."""
    return _JSONB.pack(len(value) + 1, _JSONB_VERSION) + value


class PackedArray(bytes):
    """A whole array as a parameter; its subclasses say of what."""

    __slots__ = ()
    element: ClassVar[str]
    """Name of the elements' type in PostgreSQL."""

    @classmethod
    def of(cls, elements: Sequence[bytes]) -> Self:
        """Pack elements that were packed one by one."""
        oid = adapters.types[cls.element].oid
        if not elements:
            return cls(_EMPTY.pack(0, 0, oid))
        return cls(_HEADER.pack(1, 1, oid, len(elements), 1) + b"".join(elements))


class TextArray(PackedArray):
    """A `text[]`."""

    __slots__ = ()
    element = "text"


class IntegerArray(PackedArray):
    """An `integer[]`."""

    __slots__ = ()
    element = "int4"


class TimeArray(PackedArray):
    """A `timestamptz[]`."""

    __slots__ = ()
    element = "timestamptz"


class BytesArray(PackedArray):
    """A `bytea[]`."""

    __slots__ = ()
    element = "bytea"


class JsonbArray(PackedArray):
    """A `jsonb[]`."""

    __slots__ = ()
    element = "jsonb"


def register(connection: AsyncConnection) -> None:
    """Let statements of this connection take packed arrays as parameters."""
    for kind in (TextArray, IntegerArray, TimeArray, BytesArray, JsonbArray):
        connection.adapters.register_dumper(kind, _dumper(kind))


def _dumper(kind: type[PackedArray]) -> type[Dumper]:
    class PackedArrayDumper(Dumper):
        format = Format.BINARY
        oid = adapters.types[kind.element].array_oid

        def dump(self, obj: bytes) -> bytes:
            return obj

    return PackedArrayDumper

"""Arrays in PostgreSQL's binary format, packed by hand: a third of what psycopg's lists cost.

    TEXT.array([pack_text("a"), NULL])     # a parameter of type text[]

An element is its length, as four bytes big-endian, and its value; NULL has the length -1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct
from psycopg import adapters

NULL = b"\xff\xff\xff\xff"

_HEADER = struct.Struct(">5i")  # dimensions, whether it may have NULLs, type, length, from 1
_EMPTY = struct.Struct(">3i")
_LENGTH = struct.Struct(">i")
_INTEGER = struct.Struct(">ii")
_BIGINT = struct.Struct(">iq")
_JSONB = struct.Struct(">ib")
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


class Element(Struct, frozen=True, gc=False):
    """A type of which arrays are packed."""

    name: str
    """In PostgreSQL."""
    oid: int

    def array(self, elements: Sequence[bytes]) -> bytes:
        """Elements that were packed one by one as one array."""
        if not elements:
            return _EMPTY.pack(0, 0, self.oid)
        return _HEADER.pack(1, 1, self.oid, len(elements), 1) + b"".join(elements)


def _element(name: str) -> Element:
    return Element(name, adapters.types[name].oid)


TEXT, INTEGER, TIME = _element("text"), _element("int4"), _element("timestamptz")
BYTES, JSONB = _element("bytea"), _element("jsonb")

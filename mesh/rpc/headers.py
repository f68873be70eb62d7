"""What gRPC writes into HTTP/2's header fields: metadata, time limits, and how a call ended.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import TypeAlias
from urllib.parse import quote_from_bytes, unquote

import grpc
from msgspec import Struct

Field: TypeAlias = tuple[bytes, bytes]
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Values of keys that end in `-bin` are bytes, all others text."""

CONTENT_TYPE = b"application/grpc"
STATUS, MESSAGE = b"grpc-status", b"grpc-message"

_OURS = frozenset(
    {b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"}
    | {STATUS, MESSAGE}
)
"""Fields that are no metadata; those whose names begin with a colon are none either."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PRINTABLE = bytes(set(range(0x21, 0x7F)) - {ord("%")}).decode()
"""Without the space, with which no header field may begin or end (RFC 9113, 8.2.1)."""
_UNITS = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_DIGITS = 8
"""A time limit has no more, nor has any code."""
_HTTP = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}
"""What an answer means that somebody gave who does not speak gRPC: a proxy, as a rule.
https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md"""


class Ending(Struct, frozen=True, gc=False):
    """How a call ended."""

    code: grpc.StatusCode
    message: str = ""
    metadata: Metadata = ()
    """Trailing metadata."""


def fields_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[Field]:
    """Metadata as header fields."""
    return [
        (key.encode(), value.encode() if isinstance(value, str) else b64encode(value).rstrip(b"="))
        for key, value in metadata
    ]


def metadata_of(fields: Iterable[Field]) -> Metadata:
    """The metadata among header fields; what is no base64 where it should be is left out."""
    return tuple(
        (name.decode("ascii", "replace"), value)
        for name, raw in fields
        if name not in _OURS and not name.startswith(b":")
        for value in _values(name, raw)
    )


def _values(name: bytes, raw: bytes) -> Iterable[str | bytes]:
    if not name.endswith(b"-bin"):
        return (raw.decode("ascii", "replace"),)
    try:  # several values may be joined by commas
        return [
            b64decode(part + b"=" * (-len(part) % 4), validate=True) for part in raw.split(b",")
        ]
    except binascii.Error:
        return ()


def timeout_field(milliseconds: int) -> Field:
    """A time limit, to the millisecond where it has eight digits for that."""
    number, unit = max(milliseconds, 0), b"m"
    if number >= 10**_DIGITS:
        number, unit = min(number // 1_000, 10**_DIGITS - 1), b"S"
    return b"grpc-timeout", b"%d%b" % (number, unit)


def seconds_of(limit: bytes) -> float:
    """What a field `grpc-timeout` says.

    Raises:
        ValueError: it is not readable.
    """
    digits, unit = limit[:-1].decode("ascii"), limit[-1:].decode("ascii")
    if not (digits.isdigit() and len(digits) <= _DIGITS and unit in _UNITS):
        raise ValueError("grpc-timeout is not readable")
    return int(digits) * _UNITS[unit]


def trailers_of(ending: Ending) -> list[Field]:
    """An ending as header fields."""
    fields = [(STATUS, b"%d" % ending.code.value[0])]
    if ending.message:
        words = ending.message.encode(errors="replace")
        fields.append((MESSAGE, quote_from_bytes(words, safe=_PRINTABLE).encode()))
    return fields + fields_of(ending.metadata)


def ending_of(fields: Iterable[Field]) -> Ending:
    """The ending that trailers, or the headers of an answer without a message, tell."""
    told = dict(fields)
    if STATUS not in told:
        return _without_status(told)
    code = _CODES.get(_number(told[STATUS]), grpc.StatusCode.UNKNOWN)
    message = unquote(told.get(MESSAGE, b"").decode("ascii", "replace"))
    return Ending(code, message, metadata_of(fields))


def _without_status(told: dict[bytes, bytes]) -> Ending:
    status = _number(told.get(b":status", b""))
    if status in (-1, 200):
        return Ending(grpc.StatusCode.UNKNOWN, "the answer has no grpc-status")
    code = _HTTP.get(status, grpc.StatusCode.UNKNOWN)
    return Ending(code, f"the answer is no gRPC: HTTP status {status}")


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= _DIGITS else -1

"""Bytes of messages, as Hypothesis draws them: plain ones, odd ones that parse, and bad ones."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

VARINT, EIGHT_BYTES, LENGTH, GROUP, END, FOUR_BYTES = range(6)
UNKNOWN = (500, 501)
"""Numbers that no message here has for a field."""

_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: EIGHT_BYTES,
    FieldDescriptor.TYPE_FIXED64: EIGHT_BYTES,
    FieldDescriptor.TYPE_SFIXED64: EIGHT_BYTES,
    FieldDescriptor.TYPE_FLOAT: FOUR_BYTES,
    FieldDescriptor.TYPE_FIXED32: FOUR_BYTES,
    FieldDescriptor.TYPE_SFIXED32: FOUR_BYTES,
    FieldDescriptor.TYPE_STRING: LENGTH,
    FieldDescriptor.TYPE_BYTES: LENGTH,
    FieldDescriptor.TYPE_MESSAGE: LENGTH,
}
_NEAR = [2**bits + by for bits in (31, 32, 63, 64) for by in (-1, 0, 1)]
_NUMBERS = st.sampled_from([0, 1, 2, 127, 128, 2**64 - 2**31, *_NEAR]).map(lambda n: n % 2**64)
_PADDINGS = st.sampled_from([0, 0, 0, 0, 1, 9])
_FOUR_BYTES = st.binary(min_size=4, max_size=4) | st.sampled_from(
    [
        *(b"\x00\x00\x00\x00", b"\x00\x00\x00\x80", b"\x00\x00\xc0\x7f", b"\x01\x00\xa0\xff"),
        *(b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00"),
    ]
)
"""Also the ends of doubles, which are zero, not a number, infinite, or about to be."""
_TEXTS = st.sampled_from(["", "a", "\x00", "é", "😀", "\uffff", "x" * 200])
_BAD_TEXTS = st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80"])
_BYTES = st.binary(max_size=5)
_DICE = st.integers(0, 19)
_FEW = st.integers(0, 5)
_ANY_WIRE_TYPE = st.sampled_from([VARINT, EIGHT_BYTES, LENGTH, GROUP, FOUR_BYTES])


def varint(number: int, padding: int = 0) -> bytes:
    """A number, in `padding` bytes more than it needs, as far as ten are enough."""
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127)
    groups += [0] * min(padding, 10 - len(groups))
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def tagged(number: int, wire_type: int, payload: bytes) -> bytes:
    """A field."""
    if wire_type == LENGTH:
        payload = varint(len(payload)) + payload
    end = varint(number << 3 | END) if wire_type == GROUP else b""
    return varint(number << 3 | wire_type) + payload + end


def full(message: Descriptor, depth: int = 3) -> bytes:
    """Bytes of a message of this type with all its fields."""
    return b"".join(_full(field, depth) for field in message.fields)


def _full(field: FieldDescriptor, depth: int) -> bytes:
    wire_type = _WIRE_TYPES.get(field.type, VARINT)
    if field.message_type is not None:
        return tagged(field.number, LENGTH, full(field.message_type, depth - 1) if depth else b"")
    payloads = {
        VARINT: varint(field.number),
        LENGTH: b"a",
        FOUR_BYTES: b"\x00\x00\x80\x3f",
        EIGHT_BYTES: b"\x00\x00\x00\x00\x00\x00\xf0\x3f",
    }
    return tagged(field.number, wire_type, payloads[wire_type])


@st.composite
def messages(draw: st.DrawFn, message: Descriptor, depth: int = 2, *, of: str = "") -> bytes:
    """Bytes of a message of this type, nearly always; with fields that a text names, if any."""
    return _message(draw, message, depth, of)


def _message(draw: st.DrawFn, message: Descriptor, depth: int, of: str) -> bytes:
    fields = [field for field in message.fields if field.name in of] or list(message.fields)
    return b"".join(
        _entry(draw, draw(st.sampled_from(fields)), depth, of) for _ in range(draw(_FEW))
    )


def _entry(draw: st.DrawFn, field: FieldDescriptor, depth: int, of: str) -> bytes:
    dice = draw(_DICE)
    if dice < 2:
        return _odd(draw, (field.number, draw(st.sampled_from(UNKNOWN)))[dice], depth)
    wire_type = _WIRE_TYPES.get(field.type, VARINT)
    if dice < 10 and field.is_repeated and wire_type != LENGTH:
        packed = b"".join(_scalar(draw, wire_type) for _ in range(draw(_FEW)))
        return tagged(field.number, LENGTH, packed)
    if field.message_type is not None:
        inner = _message(draw, field.message_type, depth - 1, of) if depth else b""
        return tagged(field.number, LENGTH, inner)
    if field.type == FieldDescriptor.TYPE_STRING:
        text = draw(_TEXTS).encode() if draw(_DICE) else draw(_BAD_TEXTS)
        return tagged(field.number, LENGTH, text)
    return tagged(field.number, wire_type, _scalar(draw, wire_type))


def _scalar(draw: st.DrawFn, wire_type: int) -> bytes:
    if wire_type == VARINT:
        return varint(draw(_NUMBERS), draw(_PADDINGS))
    if wire_type == LENGTH:
        return draw(_BYTES)
    return draw(_FOUR_BYTES) + (draw(_FOUR_BYTES) if wire_type == EIGHT_BYTES else b"")


def _odd(draw: st.DrawFn, number: int, depth: int) -> bytes:
    """A field that nobody knows, or one that is not written as its type is."""
    wire_type = draw(_ANY_WIRE_TYPE)
    if wire_type == GROUP:
        return tagged(number, GROUP, _odd(draw, UNKNOWN[0], depth - 1) if depth else b"")
    return tagged(number, wire_type, _scalar(draw, wire_type))

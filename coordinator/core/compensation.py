"""The compensation message, filled mechanically from what Do was sent and what it answered.

Every step's compensation message has the request as field 1 and the optional response as field 2
(registration checks it), so its bytes are the two messages behind their tags, whatever their types:
https://protobuf.dev/programming-guides/encoding/#submessages
"""

from __future__ import annotations

_REQUEST_TAG = b"\x0a"  # field 1, length-delimited
_RESPONSE_TAG = b"\x12"  # field 2, length-delimited


def compensation_bytes(request: bytes, response: bytes | None) -> bytes:
    """Return the bytes of the Compensate request; `response` is None when no answer arrived."""
    filled = _REQUEST_TAG + _varint(len(request)) + request
    if response is None:
        return filled
    return filled + _RESPONSE_TAG + _varint(len(response)) + response


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

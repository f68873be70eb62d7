"""The compensation message, filled mechanically from what Do was sent and what it answered.

Every step's compensation message has the request as field 1 and the optional response as field 2
(registration checks it), so its bytes are the two messages behind their tags, whatever their types.
"""

from __future__ import annotations

from coordinator.core.framing import framed

_REQUEST = b"\x0a"  # tag of field 1
_RESPONSE = b"\x12"  # tag of field 2


def compensation_bytes(request: bytes, response: bytes | None) -> bytes:
    """Return the bytes of the Compensate request; `response` is None when no answer arrived."""
    filled = framed(_REQUEST, request)
    return filled if response is None else filled + framed(_RESPONSE, response)

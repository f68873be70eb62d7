"""What `decide` calls for. A command is written with its event and performed as written."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.model import Direction


class Call(Struct, frozen=True, kw_only=True, gc=False):
    """One call to one participant, with the exact bytes to send."""

    step: str
    direction: Direction
    attempt: int
    """From 1; never part of the idempotency key."""
    request: bytes
    due_ms: int = 0
    """Not sent before this time; 0 for at once."""

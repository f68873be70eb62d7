"""Why the engine takes no new saga."""

from __future__ import annotations

from enum import Enum


class Draining(Exception):
    """This instance is shutting down; another one, or this one later, will take the saga."""


class Excess(Enum):
    """What there is too much of."""

    SAGAS = "sagas"
    """In memory."""
    STARTS = "starts"
    """That wait for the disk."""
    CALLS = "calls"
    """That wait for room at a participant."""


class Overloaded(Exception):
    """More work than this instance could do soon; says of what, and when to ask again."""

    def __init__(self, words: str, *, retry_after_ms: int) -> None:
        super().__init__(words)
        self.retry_after_ms = retry_after_ms

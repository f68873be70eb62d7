"""Why the engine takes no new saga."""

from __future__ import annotations


class Draining(Exception):
    """This instance is shutting down; another one, or this one later, will take the saga."""


class Overloaded(Exception):
    """More work than this instance could do soon; says of what, and when to ask again."""

    def __init__(self, words: str, *, retry_after_ms: int) -> None:
        super().__init__(words)
        self.retry_after_ms = retry_after_ms

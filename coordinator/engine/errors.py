"""Why the engine takes no new saga."""

from __future__ import annotations


class Draining(Exception):
    """This instance is shutting down; another one, or this one later, will take the saga."""


class Overloaded(Exception):
    """As many sagas are in flight as this instance may hold."""

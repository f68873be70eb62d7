"""The port to compiled definitions, as the engine needs them."""

from __future__ import annotations

from typing import Protocol

from coordinator.core.model import Definition


class DefinitionUnavailable(Exception):
    """A definition that a saga is pinned to is not stored, or does not compile any more."""


class Definitions(Protocol):
    """Compiled definitions by content hash."""

    async def load(self, content_hash: str) -> Definition:
        """One definition as it was when it was registered.

        Raises:
            DefinitionUnavailable: it is not stored, or does not compile any more.
            JournalUnavailable: the store is away.
        """
        ...

"""The port to registered definitions: every version that a saga may be pinned to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """One registered version of a definition."""

    name: str
    hash: str
    source: str
    """The YAML as it was registered."""
    descriptors: bytes
    """Serialised FileDescriptorSet that it was checked against."""
    created_ms: int


class DefinitionStore(Protocol):
    """Registered definitions; never changed, never deleted.

    All raise `JournalUnavailable`, and `InvalidQuery` for pages and texts that cannot be.
    """

    async def save_definition(
        self, *, name: str, content_hash: str, source: str, descriptors: bytes
    ) -> tuple[StoredDefinition, bool]:
        """Store a version unless its hash is there; returns it and whether it is new.

        Saving an older version again makes it the newest: versions are ordered by when they were
        last registered.
        """
        ...

    async def load_definition(self, content_hash: str) -> StoredDefinition | None:
        """One version by its hash."""
        ...

    async def newest_definition(self, name: str) -> StoredDefinition | None:
        """The newest version of a definition."""
        ...

    async def list_definitions(self, *, after: str, limit: int) -> Sequence[StoredDefinition]:
        """The newest version of each definition whose name is greater than `after`, by name."""
        ...

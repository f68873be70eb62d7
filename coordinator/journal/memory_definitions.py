"""Registered definitions in memory: the newest registration is last in the mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from coordinator.journal.definition_store import StoredDefinition
from coordinator.journal.limits import check_page, check_texts


class MemoryDefinitions:
    """The rows of a `MemoryStore`'s definitions; see `DefinitionStore`."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._versions: dict[str, StoredDefinition] = {}

    def save(
        self, name: str, content_hash: str, source: str, descriptors: bytes
    ) -> tuple[StoredDefinition, bool]:
        """Store a version, or make it the newest."""
        check_texts(name, content_hash, source)
        known = self._versions.pop(content_hash, None)
        stored = known or StoredDefinition(
            name=name,
            hash=content_hash,
            source=source,
            descriptors=descriptors,
            created_ms=self._now_ms(),
        )
        self._versions[content_hash] = stored
        return stored, known is None

    def load(self, content_hash: str) -> StoredDefinition | None:
        """One version by its hash."""
        check_texts(content_hash)
        return self._versions.get(content_hash)

    def newest(self, name: str) -> StoredDefinition | None:
        """The newest version of a definition."""
        check_texts(name)
        return self._newest().get(name)

    def newest_of_each(self, after: str, limit: int) -> Sequence[StoredDefinition]:
        """A page of newest versions."""
        check_texts(after)
        check_page(limit)
        newest = self._newest()
        return [newest[name] for name in sorted(newest) if name > after][:limit]

    def _newest(self) -> Mapping[str, StoredDefinition]:
        return {stored.name: stored for stored in self._versions.values()}

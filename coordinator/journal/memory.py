"""The journal without a database: the same contract, kept in one process's memory.

Instances that share a `MemoryStore` compete for its sagas as they would for a database's. A test
plays the accidents of a real store with `cut`, `mend`, `lose_next_answer`, `hold` and `let_go`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.core.model import SagaState
from coordinator.journal.base import (
    Append,
    AppendError,
    Claimed,
    Entry,
    JournalUnavailable,
    Lease,
    LeaseLost,
    Parking,
    Standing,
    StoredSaga,
    Unwritable,
)
from coordinator.journal.codec import Row, encode
from coordinator.journal.definition_store import StoredDefinition
from coordinator.journal.memory_store import MemoryStore
from coordinator.journal.verbs import Verb, VerbOutcome

__all__ = ["MemoryJournal", "MemoryStore"]


@dataclass(slots=True)
class _Waiting:
    append: Append
    row: Row
    lease: Lease | None
    done: Callable[[AppendError | None], None]
    in_doubt: bool = False
    """It was written once and no answer came."""


class MemoryJournal:
    """One instance's link to a `MemoryStore`, by which it is every port of `journal.base`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._lease: Lease | None = None
        self._queue: deque[_Waiting] = deque()
        self._flushing: asyncio.Handle | None = None
        self._cut = False
        self._held = False
        self._losing = False

    # --- accidents ------------------------------------------------------------

    def cut(self) -> None:
        """Lose the link to the store: appends wait, everything else is unavailable."""
        self._cut = True

    def mend(self) -> None:
        """Get the link back: what waited is tried again, in order."""
        self._cut = False
        self._schedule()

    def lose_next_answer(self) -> None:
        """Let the next group commit be written, and cut the link before its answer."""
        self._losing = True

    def hold(self) -> None:
        """Make group commits take for ever, until `let_go`."""
        self._held = True

    def let_go(self) -> None:
        """Finish the group commit that was held."""
        self._held = False
        self._schedule()

    # --- Journal --------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the link is there."""
        return not self._cut

    def append(self, append: Append, done: Callable[[AppendError | None], None]) -> None:
        """See `Journal.append`."""
        try:
            row = encode(append)
        except Unwritable as error:
            asyncio.get_running_loop().call_soon(done, error)
            return
        self._queue.append(_Waiting(append, row, self._lease, done))
        self._schedule()

    def _schedule(self) -> None:
        if self._flushing is None and self._queue:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = None
        if self._cut or self._held:
            return
        group, self._queue = self._queue, deque()
        verdicts = [self._write(waiting) for waiting in group]
        if self._losing:
            self._losing, self._cut, self._queue = False, True, group
            return
        loop = asyncio.get_running_loop()
        for waiting, error in zip(group, verdicts, strict=True):
            loop.call_soon(waiting.done, error)

    def _write(self, waiting: _Waiting) -> AppendError | None:
        store, lease = self._store, waiting.lease
        if lease is not None and store.holds(lease):
            waiting.in_doubt = True
            return store.write(lease, waiting.append, waiting.row)
        if waiting.in_doubt and lease is not None and store.has(waiting.row, lease):
            return None
        return LeaseLost("the lease is not held")

    async def acquire_lease(
        self, instance_id: str, length_ms: int, *, after: Lease | None = None
    ) -> Lease:
        """See `Journal.acquire_lease`."""
        self._lease = self._reach().acquire(instance_id, length_ms, after)
        return self._lease

    async def renew_lease(self, lease: Lease, length_ms: int) -> Lease:
        """See `Journal.renew_lease`."""
        return self._reach().renew(lease, length_ms)

    async def release_lease(self, lease: Lease) -> None:
        """See `Journal.release_lease`."""
        self._reach().release(lease)

    async def claim(
        self, lease: Lease, limit: int, *, passing_over: frozenset[str] = frozenset()
    ) -> Claimed:
        """See `Journal.claim`."""
        return self._reach().claim(lease, limit, passing_over)

    async def acquit(self, lease: Lease, saga_ids: Sequence[str]) -> None:
        """See `Journal.acquit`."""
        self._reach().acquit(lease, saga_ids)

    async def park(self, lease: Lease, parkings: Sequence[Parking]) -> frozenset[str]:
        """See `Journal.park`."""
        return self._reach().park(lease, parkings)

    async def reload(self, lease: Lease, saga_id: str) -> StoredSaga | None:
        """See `Journal.reload`."""
        return self._reach().reload(lease, saga_id)

    async def pending_verbs(self, lease: Lease) -> Sequence[Verb]:
        """See `Journal.pending_verbs`."""
        return self._reach().pending_verbs(lease)

    async def refuse_verb(self, request_id: str, explanation: str) -> None:
        """See `Journal.refuse_verb`."""
        self._reach().refuse_verb(self._lease, request_id, explanation)

    # --- Reader ---------------------------------------------------------------

    async def load(self, saga_id: str) -> StoredSaga | None:
        """See `Reader.load`."""
        return self._reach().load(saga_id)

    async def entries(self, saga_id: str, after_revision: int, limit: int) -> Sequence[Entry]:
        """See `Reader.entries`."""
        return self._reach().entries(saga_id, after_revision, limit)

    async def list_sagas(
        self,
        *,
        definition: str,
        states: frozenset[SagaState],
        keys: Mapping[str, str],
        before: tuple[int, str] | None,
        limit: int,
    ) -> Sequence[StoredSaga]:
        """See `Reader.list_sagas`."""
        return self._reach().list_sagas(definition, states, keys, before, limit)

    async def standings(self, saga_ids: Sequence[str]) -> Mapping[str, Standing]:
        """See `Reader.standings`."""
        return self._reach().standings(saga_ids)

    async def revisions(self, saga_ids: Sequence[str]) -> Mapping[str, int]:
        """See `Reader.revisions`."""
        return self._reach().revisions(saga_ids)

    async def post_verb(self, verb: Verb) -> None:
        """See `Reader.post_verb`."""
        self._reach().post_verb(verb)

    async def verb_outcome(self, request_id: str) -> VerbOutcome | None:
        """See `Reader.verb_outcome`."""
        return self._reach().verb_outcome(request_id)

    # --- Retention ------------------------------------------------------------

    async def purge(self, *, finished_for_ms: int, limit: int) -> int:
        """See `Retention.purge`."""
        return self._reach().purge(finished_for_ms, limit)

    # --- DefinitionStore ------------------------------------------------------

    async def save_definition(
        self, *, name: str, content_hash: str, source: str, descriptors: bytes
    ) -> tuple[StoredDefinition, bool]:
        """See `DefinitionStore.save_definition`."""
        return self._reach().definitions.save(name, content_hash, source, descriptors)

    async def load_definition(self, content_hash: str) -> StoredDefinition | None:
        """See `DefinitionStore.load_definition`."""
        return self._reach().definitions.load(content_hash)

    async def newest_definition(self, name: str) -> StoredDefinition | None:
        """See `DefinitionStore.newest_definition`."""
        return self._reach().definitions.newest(name)

    async def list_definitions(self, *, after: str, limit: int) -> Sequence[StoredDefinition]:
        """See `DefinitionStore.list_definitions`."""
        return self._reach().definitions.newest_of_each(after, limit)

    def _reach(self) -> MemoryStore:
        if self._cut:
            raise JournalUnavailable("the link to the store is cut")
        return self._store

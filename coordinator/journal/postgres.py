"""The journal on PostgreSQL: one connection that writes, small pools for everything else.

    journal = PostgresJournal("postgresql://...")
    await journal.open()      # brings the database up to date
    ...
    await journal.close()

What it is made of: `group_commit` writes appends by the statement in `flush`; `leases`, `claims`,
`parking`, `sagas` and `inbox` are the rest of the owner's side; `reader` and `definitions` are
anyone's; `purge` forgets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg

from coordinator.core.model import SagaState
from coordinator.journal import claims, definitions, inbox, leases, parking, reader, sagas
from coordinator.journal.base import (
    Append,
    AppendError,
    Claimed,
    Entry,
    JournalUnavailable,
    Lease,
    Parking,
    Standing,
    StoredSaga,
)
from coordinator.journal.database import create_engine
from coordinator.journal.definition_store import StoredDefinition
from coordinator.journal.group_commit import GroupCommit
from coordinator.journal.purge import purge
from coordinator.journal.verbs import Verb, VerbOutcome
from mesh.errors import Retry
from mesh.migrate import migrate
from mesh.pace import LONGEST

_PACKAGE = "coordinator.journal"


class PostgresJournal:
    """Every port of `journal.base`, of one instance.

    `pool_size` is how many sessions readers have, and as many again what owns sagas.
    `longest_wait` is how long, in seconds, a group commit may wait for more appends when many
    sagas run. It never waits by default; whether 0.001 pays is to be measured (`bench.journal`).
    """

    def __init__(self, dsn: str, *, longest_wait: float = LONGEST, pool_size: int = 5) -> None:
        self._dsn = dsn
        self._writer = GroupCommit(dsn, longest_wait=longest_wait)
        # Each with sessions of its own: no number of slow readers holds up a claim or a verb, and
        # nothing at all a heartbeat.
        self._readers = create_engine(dsn, pool_size=pool_size)
        self._owner = create_engine(dsn, pool_size=pool_size)
        self._heartbeat = create_engine(dsn, pool_size=1)
        self._lease: Lease | None = None
        self._lease_answered = True

    async def open(self) -> None:
        """Bring the database up to date and connect.

        Raises:
            JournalUnavailable: PostgreSQL is away, or takes no writes; it may be opened again.
            DatabaseRefuses: it will never let us in; says why.
            DatabaseIsNewer: a newer release has migrated it.
        """
        try:
            await migrate(self._dsn, _PACKAGE)
            await self._writer.open()
        except (Retry, psycopg.OperationalError) as error:
            raise JournalUnavailable(str(error)) from error

    async def close(self) -> None:
        """Write what is queued, if PostgreSQL is there, and disconnect."""
        try:
            await self._writer.close()
        finally:
            for engine in (self._heartbeat, self._owner, self._readers):
                await engine.dispose()

    # --- Journal --------------------------------------------------------------

    @property
    def available(self) -> bool:
        """See `Journal.available`."""
        return self._writer.available and self._lease_answered

    def append(self, append: Append, done: Callable[[AppendError | None], None]) -> None:
        """See `Journal.append`."""
        self._writer.append(append, self._lease, done)

    async def acquire_lease(
        self, instance_id: str, length_ms: int, *, after: Lease | None = None
    ) -> Lease:
        """See `Journal.acquire_lease`."""
        with self._watching():
            self._lease = await leases.acquire(self._heartbeat, instance_id, length_ms, after)
        return self._lease

    async def renew_lease(self, lease: Lease, length_ms: int) -> Lease:
        """See `Journal.renew_lease`. An instance that cannot write any more keeps no lease."""
        self._writer.check()
        with self._watching():
            return await leases.renew(self._heartbeat, lease, length_ms)

    async def release_lease(self, lease: Lease) -> None:
        """See `Journal.release_lease`."""
        await leases.release(self._heartbeat, lease)

    async def claim(
        self, lease: Lease, limit: int, *, passing_over: frozenset[str] = frozenset()
    ) -> Claimed:
        """See `Journal.claim`."""
        return await claims.claim(self._owner, lease, limit, passing_over)

    async def acquit(self, lease: Lease, saga_ids: Sequence[str]) -> None:
        """See `Journal.acquit`."""
        await claims.acquit(self._owner, lease, saga_ids)

    async def park(self, lease: Lease, parkings: Sequence[Parking]) -> frozenset[str]:
        """See `Journal.park`."""
        return await parking.park(self._owner, lease, parkings)

    async def reload(self, lease: Lease, saga_id: str) -> StoredSaga | None:
        """See `Journal.reload`."""
        return await sagas.reload(self._owner, lease, saga_id)

    async def pending_verbs(self, lease: Lease) -> Sequence[Verb]:
        """See `Journal.pending_verbs`."""
        return await inbox.pending(self._owner, lease)

    async def refuse_verb(self, request_id: str, explanation: str) -> None:
        """See `Journal.refuse_verb`."""
        await inbox.refuse(self._owner, self._lease, request_id, explanation)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        answered = True
        try:
            yield
        except JournalUnavailable:
            answered = False
            raise
        finally:
            self._lease_answered = answered

    # --- Reader ---------------------------------------------------------------

    async def load(self, saga_id: str) -> StoredSaga | None:
        """See `Reader.load`."""
        return await reader.load(self._readers, saga_id)

    async def entries(self, saga_id: str, after_revision: int, limit: int) -> Sequence[Entry]:
        """See `Reader.entries`."""
        return await reader.entries(self._readers, saga_id, after_revision, limit)

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
        return await reader.list_sagas(
            self._readers,
            definition=definition,
            states=states,
            keys=keys,
            before=before,
            limit=limit,
        )

    async def standings(self, saga_ids: Sequence[str]) -> Mapping[str, Standing]:
        """See `Reader.standings`."""
        return await reader.standings(self._readers, saga_ids)

    async def revisions(self, saga_ids: Sequence[str]) -> Mapping[str, int]:
        """See `Reader.revisions`."""
        return await reader.revisions(self._readers, saga_ids)

    async def post_verb(self, verb: Verb) -> None:
        """See `Reader.post_verb`."""
        await inbox.post(self._owner, verb)

    async def verb_outcome(self, request_id: str) -> VerbOutcome | None:
        """See `Reader.verb_outcome`."""
        return await inbox.outcome(self._owner, request_id)

    # --- Retention ------------------------------------------------------------

    async def purge(self, *, finished_for_ms: int, limit: int) -> int:
        """See `Retention.purge`."""
        return await purge(self._readers, finished_for_ms=finished_for_ms, limit=limit)

    # --- DefinitionStore ------------------------------------------------------

    async def save_definition(
        self, *, name: str, content_hash: str, source: str, descriptors: bytes
    ) -> tuple[StoredDefinition, bool]:
        """See `DefinitionStore.save_definition`."""
        return await definitions.save(
            self._owner,
            name=name,
            content_hash=content_hash,
            source=source,
            descriptors=descriptors,
        )

    async def load_definition(self, content_hash: str) -> StoredDefinition | None:
        """See `DefinitionStore.load_definition`."""
        return await definitions.load(self._owner, content_hash)

    async def newest_definition(self, name: str) -> StoredDefinition | None:
        """See `DefinitionStore.newest_definition`."""
        return await definitions.newest(self._owner, name)

    async def list_definitions(self, *, after: str, limit: int) -> Sequence[StoredDefinition]:
        """See `DefinitionStore.list_definitions`."""
        return await definitions.newest_of_each(self._owner, after=after, limit=limit)

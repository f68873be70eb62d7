"""The journal on PostgreSQL: one connection that writes, a small pool for everything else.

    journal = PostgresJournal("postgresql://...")
    await journal.open()      # brings the database up to date
    ...
    await journal.close()

What it is made of: `group_commit` writes appends by the statement in `flush`; `leases`, `sagas` and
`inbox` are the rest of the owner's side; `reader` and `definitions` are anyone's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg

from coordinator.core.model import SagaState
from coordinator.journal import definitions, inbox, leases, reader, sagas
from coordinator.journal.base import (
    Append,
    AppendError,
    Entry,
    JournalUnavailable,
    Lease,
    StoredDefinition,
    StoredSaga,
    Verb,
    VerbOutcome,
)
from coordinator.journal.database import create_engine, transaction
from coordinator.journal.group_commit import GroupCommit
from mesh.migrate import migrate

_PACKAGE = "coordinator.journal"


class PostgresJournal:
    """Journal, Reader and DefinitionStore of one instance.

    `longest_wait` is how long, in seconds, a group commit may wait for more appends when many
    sagas run. It never waits by default; whether 0.001 pays is to be measured (`bench.journal`).
    """

    def __init__(self, dsn: str, *, longest_wait: float = 0.0, pool_size: int = 5) -> None:
        self._dsn = dsn
        self._writer = GroupCommit(dsn, longest_wait=longest_wait)
        self._engine = create_engine(dsn, pool_size=pool_size)
        self._lease_engine = create_engine(dsn, pool_size=1)  # never behind a slow reader
        self._lease: Lease | None = None
        self._lease_answered = True

    async def open(self) -> None:
        """Bring the database up to date and connect.

        Raises:
            JournalUnavailable: PostgreSQL is away.
        """
        async with transaction(self._lease_engine):
            pass  # it is there
        await migrate(self._dsn, _PACKAGE)
        try:
            await self._writer.open()
        except psycopg.OperationalError as error:
            raise JournalUnavailable("PostgreSQL does not answer") from error

    async def close(self) -> None:
        """Write what is queued, if PostgreSQL is there, and disconnect."""
        try:
            await self._writer.close()
        finally:
            await self._lease_engine.dispose()
            await self._engine.dispose()

    # --- Journal --------------------------------------------------------------

    @property
    def available(self) -> bool:
        """See `Journal.available`."""
        return self._writer.available and self._lease_answered

    def append(self, append: Append, done: Callable[[AppendError | None], None]) -> None:
        """See `Journal.append`."""
        self._writer.append(append, self._lease, done)

    async def acquire_lease(self, instance_id: str, length_ms: int) -> Lease:
        """See `Journal.acquire_lease`."""
        with self._watching():
            self._lease = await leases.acquire(self._lease_engine, instance_id, length_ms)
        return self._lease

    async def renew_lease(self, lease: Lease, length_ms: int) -> Lease:
        """See `Journal.renew_lease`. An instance that cannot write any more keeps no lease."""
        self._writer.check()
        with self._watching():
            return await leases.renew(self._lease_engine, lease, length_ms)

    async def release_lease(self, lease: Lease) -> None:
        """See `Journal.release_lease`."""
        await leases.release(self._lease_engine, lease)

    async def claim(self, lease: Lease, limit: int) -> Sequence[StoredSaga]:
        """See `Journal.claim`."""
        return await sagas.claim(self._engine, lease, limit)

    async def reload(self, lease: Lease, saga_id: str) -> StoredSaga | None:
        """See `Journal.reload`."""
        return await sagas.reload(self._engine, lease, saga_id)

    async def pending_verbs(self, lease: Lease) -> Sequence[Verb]:
        """See `Journal.pending_verbs`."""
        return await inbox.pending(self._engine, lease)

    async def refuse_verb(self, request_id: str, explanation: str) -> None:
        """See `Journal.refuse_verb`."""
        await inbox.refuse(self._engine, self._lease, request_id, explanation)

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
        return await reader.load(self._engine, saga_id)

    async def entries(self, saga_id: str, after_revision: int, limit: int) -> Sequence[Entry]:
        """See `Reader.entries`."""
        return await reader.entries(self._engine, saga_id, after_revision, limit)

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
            self._engine,
            definition=definition,
            states=states,
            keys=keys,
            before=before,
            limit=limit,
        )

    async def post_verb(self, verb: Verb) -> None:
        """See `Reader.post_verb`."""
        await inbox.post(self._engine, verb)

    async def verb_outcome(self, request_id: str) -> VerbOutcome | None:
        """See `Reader.verb_outcome`."""
        return await inbox.outcome(self._engine, request_id)

    # --- DefinitionStore ------------------------------------------------------

    async def save_definition(
        self, *, name: str, content_hash: str, source: str, descriptors: bytes
    ) -> tuple[StoredDefinition, bool]:
        """See `DefinitionStore.save_definition`."""
        return await definitions.save(
            self._engine,
            name=name,
            content_hash=content_hash,
            source=source,
            descriptors=descriptors,
        )

    async def load_definition(self, content_hash: str) -> StoredDefinition | None:
        """See `DefinitionStore.load_definition`."""
        return await definitions.load(self._engine, content_hash)

    async def newest_definition(self, name: str) -> StoredDefinition | None:
        """See `DefinitionStore.newest_definition`."""
        return await definitions.newest(self._engine, name)

    async def list_definitions(self, *, after: str, limit: int) -> Sequence[StoredDefinition]:
        """See `DefinitionStore.list_definitions`."""
        return await definitions.newest_of_each(self._engine, after=after, limit=limit)

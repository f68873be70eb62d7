"""Sagas as they are on disk: loaded whole, told event by event, or followed as they go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from coordinator.api.ports import Sagas
from coordinator.api.refusals import definition_missing, saga_not_found
from coordinator.core import evolve
from coordinator.core.saga import Saga
from coordinator.definitions.base import CompiledDefinition, Definitions
from coordinator.journal.base import Entry, Reader, StoredSaga

PAGE = 100
_TURNS = 3
"""Followers that read at the same time: however many wake up at once, readers have sessions left
for who asks for one saga."""


@dataclass(frozen=True, slots=True)
class LoadedSaga:
    """A saga with the version that it is pinned to."""

    saga: Saga
    version: CompiledDefinition


@dataclass(frozen=True, slots=True)
class Moment:
    """One event, and the saga as it was after it."""

    entry: Entry
    saga: Saga


class StoredSagas:
    """Reads sagas and folds them with the definition that they are pinned to."""

    def __init__(self, reader: Reader, definitions: Definitions, sagas: Sagas) -> None:
        self._reader = reader
        self._definitions = definitions
        self._sagas = sagas
        self._turns = asyncio.Semaphore(_TURNS)

    async def load(self, saga_id: str) -> LoadedSaga:
        """One saga.

        Raises:
            NotFound: SAGA_NOT_FOUND.
            RecordMissing: DEFINITION_MISSING; so do the others.
        """
        stored, version = await self._find(saga_id)
        entries = ((entry.event, entry.commands) for entry in stored.entries)
        return LoadedSaga(evolve.replay(saga_id, version.definition, entries), version)

    async def history(self, saga_id: str) -> Iterator[Moment]:
        """Everything that has happened to a saga, oldest first.

        Raises:
            NotFound: SAGA_NOT_FOUND.
        """
        stored, version = await self._find(saga_id)
        return accumulate(stored.entries[1:], _next, initial=_first(stored, version))

    async def follow(self, saga_id: str) -> AsyncGenerator[Moment, None]:
        """Everything that has happened to a saga and goes on to, until it is final.

        Nothing is read ahead of whoever listens.

        Raises:
            NotFound: SAGA_NOT_FOUND.
            JournalUnavailable: the journal went away meanwhile.
        """
        async with self._turns:
            stored, version = await self._find(saga_id)
        entries: Sequence[Entry] = stored.entries[1:]
        yield (moment := _first(stored, version))
        while True:
            for entry in entries:
                moment = _next(moment, entry)
                yield moment
            if moment.saga.state.final:
                return
            entries = await self._newer(moment.saga)

    async def _newer(self, saga: Saga) -> Sequence[Entry]:
        await self._sagas.wait_for_change(saga.saga_id, saga.revision)
        async with self._turns:
            return await self._reader.entries(saga.saga_id, saga.revision, PAGE)

    async def _find(self, saga_id: str) -> tuple[StoredSaga, CompiledDefinition]:
        stored = await self._reader.load(saga_id)
        if stored is None:
            raise saga_not_found(saga_id)
        version = await self._definitions.load(stored.definition_hash)
        if version is None:
            raise definition_missing(saga_id, stored.definition_hash)
        return stored, version


def _first(stored: StoredSaga, version: CompiledDefinition) -> Moment:
    entry = stored.entries[0]
    saga = evolve.replay(stored.saga_id, version.definition, [(entry.event, entry.commands)])
    return Moment(entry, saga)


def _next(moment: Moment, entry: Entry) -> Moment:
    return Moment(entry, evolve.record(evolve.apply(moment.saga, entry.event), entry.commands))

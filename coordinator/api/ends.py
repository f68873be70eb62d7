"""Waiting for a saga to end: to be final or STUCK."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TypeAlias

from coordinator.api.ports import Sagas
from coordinator.api.stored import LoadedSaga, StoredSagas
from coordinator.core.model import SagaState
from coordinator.core.saga import Saga

_End: TypeAlias = "Saga | SagaState | None"


class Ends:
    """Waits for the ends of sagas, for one caller each."""

    def __init__(self, sagas: Sagas, stored: StoredSagas) -> None:
        self._sagas = sagas
        self._stored = stored
        self._waiting: set[asyncio.Future[_End]] = set()
        self._draining = False

    def drain(self) -> None:
        """Let nobody wait any longer."""
        self._draining = True
        for heard in self._waiting:
            _hear(heard, None)

    async def wait(self, loaded: LoadedSaga, seconds: float) -> LoadedSaga:
        """The saga once it has ended, or as it is after so long or when this instance drains.

        Raises:
            JournalUnavailable: it had to be read, and the journal is away.
        """
        if loaded.saga.state.ended or self._draining:
            return loaded
        end = await self._end(loaded.saga.saga_id, seconds)
        if isinstance(end, Saga):
            return LoadedSaga(end, loaded.version)
        return await self._stored.load(loaded.saga.saga_id)

    async def _end(self, saga_id: str, seconds: float) -> _End:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[_End] = loop.create_future()
        self._waiting.add(heard)
        patience = loop.call_later(seconds, _hear, heard, None)
        call_off = self._sagas.when_ended(saga_id, partial(_hear, heard))
        try:
            return await heard
        finally:
            call_off()
            patience.cancel()
            self._waiting.discard(heard)


def _hear(heard: asyncio.Future[_End], end: _End) -> None:
    if not heard.done():
        heard.set_result(end)

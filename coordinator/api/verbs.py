"""Verbs: posted into the journal's inbox by whoever is asked, decided by the saga's owner alone."""

from __future__ import annotations

import asyncio

from coordinator.api.ports import Sagas
from coordinator.api.refusals import (
    request_id_reused,
    saga_not_found,
    step_not_found,
    verb_not_legal,
    verb_pending,
)
from coordinator.api.stored import LoadedSaga, StoredSagas
from coordinator.core.saga import Saga
from coordinator.core.transitions import LEGAL_VERBS
from coordinator.journal.base import (
    Reader,
    UnknownSaga,
    Verb,
    VerbIdReused,
    VerbKind,
    VerbOutcome,
    VerbState,
)

_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.25
"""Between two looks at whether a verb is decided."""


class Verbs:
    """Asks verbs of sagas."""

    def __init__(self, sagas: Sagas, reader: Reader, stored: StoredSagas) -> None:
        self._sagas = sagas
        self._reader = reader
        self._stored = stored

    async def ask(self, verb: Verb, *, patience_seconds: float) -> LoadedSaga:
        """Return the saga once the verb is accepted and durable.

        A verb that is asked again under its id is not done twice: its first outcome is the answer.

        Raises:
            NotFound: SAGA_NOT_FOUND.
            NotNow: VERB_NOT_LEGAL; it is not legal in the saga's present state.
            AlreadyExists: REQUEST_ID_REUSED.
            InvalidRequest: STEP_NOT_FOUND.
            Retry: VERB_PENDING; it is posted, and the patience is at its end.
        """
        saga = (await self._stored.load(verb.saga_id)).saga
        _check_step(verb, saga)
        if await self._reader.verb_outcome(verb.request_id) is None:
            _check_legal(verb, saga)
        await self._post(verb)
        outcome = await self._decided(verb.request_id, patience_seconds)
        loaded = await self._stored.load(verb.saga_id)
        if outcome.state is VerbState.REFUSED:
            raise verb_not_legal(verb.kind, loaded.saga.state, outcome.explanation)
        return loaded

    async def _post(self, verb: Verb) -> None:
        try:
            await self._reader.post_verb(verb)
        except VerbIdReused:
            raise request_id_reused(verb.request_id) from None
        except UnknownSaga:
            raise saga_not_found(verb.saga_id) from None
        self._sagas.verb_posted()

    async def _decided(self, request_id: str, patience_seconds: float) -> VerbOutcome:
        pause = _FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(patience_seconds):
                while True:
                    outcome = await self._reader.verb_outcome(request_id)
                    if outcome is not None and outcome.state is not VerbState.PENDING:
                        return outcome
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except TimeoutError:
            raise verb_pending(request_id) from None


def _check_step(verb: Verb, saga: Saga) -> None:
    steps = [step.name for step in saga.definition.steps]
    if verb.kind is VerbKind.SKIP and verb.step not in steps:
        raise step_not_found(steps)


def _check_legal(verb: Verb, saga: Saga) -> None:
    if verb.kind.value not in LEGAL_VERBS[saga.state]:
        raise verb_not_legal(verb.kind, saga.state)

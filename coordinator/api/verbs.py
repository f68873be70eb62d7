"""Verbs: posted into the journal's inbox by whoever is asked, decided by the saga's owner alone.

An operator's verb answers what the operator has seen, so it is bound to the revision that the saga
had then: of two operators who look at the same STUCK saga one wins, and the other is told to look
again. Only a cancel is for whatever the saga has become, unless it says otherwise.
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from coordinator.api.ports import Sagas
from coordinator.api.refusals import (
    request_id_reused,
    saga_changed,
    saga_not_found,
    step_not_found,
    verb_not_legal,
    verb_pending,
)
from coordinator.api.stored import StoredSagas
from coordinator.core.saga import Saga, open_steps, progress_of
from coordinator.core.words import legal_verbs
from coordinator.journal.base import Reader
from coordinator.journal.verbs import (
    UnknownSaga,
    Verb,
    VerbIdReused,
    VerbKind,
    VerbOutcome,
    VerbState,
)
from mesh.errors import MeshError

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25
"""Between two looks at whether a verb is decided."""


class Verbs:
    """Asks verbs of sagas."""

    def __init__(self, sagas: Sagas, reader: Reader, stored: StoredSagas) -> None:
        self._sagas = sagas
        self._reader = reader
        self._stored = stored

    async def ask(self, verb: Verb, *, patience_seconds: float, seen_revision: int = 0) -> None:
        """Return once the verb is accepted and durable.

        `seen_revision` is the one that the saga had when it was looked at; by default that is now.
        A verb that is asked again under its id is not done twice: its first outcome is the answer.

        Raises:
            NotFound: SAGA_NOT_FOUND.
            SagaChanged: SAGA_CHANGED; it has another revision than the verb is for.
            NotNow: VERB_NOT_LEGAL; it is not legal in the saga's present state.
            AlreadyExists: REQUEST_ID_REUSED.
            InvalidRequest: STEP_NOT_FOUND.
            Retry: VERB_PENDING; it is posted, and the patience is at its end.
        """
        saga = (await self._stored.load(verb.saga_id)).saga
        earlier = await self._reader.verb_outcome(verb.request_id)
        if earlier is None:
            verb = _bound(verb, seen_revision or saga.revision)
            _check(verb, saga)
        elif not verb.revision:
            verb = replace(verb, revision=earlier.revision)
        await self._post(verb)
        outcome = await self._decided(verb, saga.revision, patience_seconds)
        if outcome.state is VerbState.REFUSED:
            raise _refusal(verb, outcome, (await self._stored.load(verb.saga_id)).saga)

    async def check(self, verb: Verb) -> None:
        """Whether a verb would be asked; nothing is posted.

        Raises:
            MeshError: as `ask`, without what only its owner can say.
        """
        _check(verb, (await self._stored.load(verb.saga_id)).saga)

    async def _post(self, verb: Verb) -> None:
        try:
            await self._reader.post_verb(verb)
        except VerbIdReused:
            raise request_id_reused(verb.request_id) from None
        except UnknownSaga:
            raise saga_not_found(verb.saga_id) from None
        self._sagas.verb_posted()

    async def _decided(self, verb: Verb, revision: int, patience_seconds: float) -> VerbOutcome:
        """The owner's word; one in this process is heard at once, another is looked for."""
        pause = _FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(patience_seconds):
                await self._sagas.wait_for_change(verb.saga_id, revision, pause)
                while True:
                    outcome = await self._reader.verb_outcome(verb.request_id)
                    if outcome is not None and outcome.state is not VerbState.PENDING:
                        return outcome
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except TimeoutError:
            raise verb_pending(verb.request_id) from None


def _bound(verb: Verb, revision: int) -> Verb:
    if verb.revision or verb.kind is VerbKind.CANCEL:
        return verb
    return replace(verb, revision=revision)


def _check(verb: Verb, saga: Saga) -> None:
    """Refuse what the saga's owner would refuse if it decided now."""
    if verb.revision not in (0, saga.revision):
        raise saga_changed(saga, verb.revision)
    steps = [step.name for step in saga.definition.steps]
    if verb.kind is VerbKind.SKIP and verb.step not in steps:
        raise step_not_found(steps)
    if verb.kind.value not in legal_verbs(saga):
        raise verb_not_legal(verb.kind, saga)
    if verb.kind is VerbKind.SKIP and verb.step not in open_steps(saga):
        state = progress_of(saga, verb.step).state.value
        raise verb_not_legal(verb.kind, saga, f"step {verb.step} is {state}: nothing is to undo")


def _refusal(verb: Verb, outcome: VerbOutcome, saga: Saga) -> MeshError:
    """Why the owner refused, which has read the revision before anything else."""
    if verb.revision not in (0, saga.revision):
        return saga_changed(saga, verb.revision)
    return verb_not_legal(verb.kind, saga, outcome.explanation)

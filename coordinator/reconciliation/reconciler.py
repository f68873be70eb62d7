"""One reconciliation: first what participants hold, against the journal; then the other way round.

Theory of operation
-------------------
*Theirs.* Participants are read page by page, and of every page the journal is asked where its sagas
are. Whatever looks wrong then is only a suspect: its record was read before its saga was, and a
compensation may have happened in between. So the record is read again, and after it the history. A
saga that was COMPENSATED when it became suspect is so for ever, and its participant had answered by
then: what is held still is an orphan. Histories are loaded of suspects alone, so that sound books
cost one look into an index per effect.

*Ours.* COMPLETED sagas are read page by page, newest first, and the participants are asked for the
records of their steps, by key. That is final too: a step is DONE once its record was committed.

Sagas are deleted some time after their end, and so are records of participants. Hence only what is
younger than `window_ms` is compared: both sides surely still have it. Memory is bounded by pages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.core.model import SagaState
from coordinator.engine.definitions import Definitions, DefinitionUnavailable
from coordinator.journal.base import Reader, Standing, StoredSaga, UnreadableHistory
from coordinator.reconciliation.base import (
    EffectsUnavailable,
    Finding,
    HeldEffects,
    Orphan,
    Summary,
)
from coordinator.reconciliation.judge import judge_done, judge_held
from mesh.effects import Effect, EffectKey

SAGAS = 500
"""COMPLETED sagas that are looked at together."""
_DAY_MS = 86_400_000
_RECORD_DAYS = 31
"""How long every participant keeps the record of a done step, at the least."""


def window_ms(retention_days: float) -> int:
    """How far back sagas and records surely reach, when finished sagas are kept so long.

    Less than that by a day, or by half of it: the clocks on both sides may differ.
    """
    kept = min(retention_days, _RECORD_DAYS)
    return int((kept - min(1, kept / 2)) * _DAY_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Both sides of a reconciliation, and what leads from one to the other."""

    effects: HeldEffects
    journal: Reader
    definitions: Definitions
    whose: Callable[[str], str]
    """Name of the participant that serves a step service; the service itself if nobody does."""


class Reconciler:
    """Compares effects with the journal, as often as it is asked to.

    `now_ms` is the journal's clock; `window_ms` is how far back both sides surely reach.
    """

    def __init__(self, books: Books, *, now_ms: Callable[[], int], window_ms: int) -> None:
        self._books = books
        self._now_ms = now_ms
        self._window_ms = window_ms

    @property
    def participants(self) -> Sequence[str]:
        """Who can be asked."""
        return self._books.effects.participants

    def run(self, participants: Sequence[str]) -> AsyncGenerator[Finding, None]:
        """Every orphan at these participants as it is found, and at the end the summary.

        Raises:
            JournalUnavailable: the journal is away; nothing can be said about the rest.
        """
        return _Run(self._books, participants, self._now_ms() - self._window_ms).findings()


class _Run:
    def __init__(self, books: Books, participants: Sequence[str], since_ms: int) -> None:
        self._books = books
        self._participants = participants
        self._since_ms = since_ms
        self._effects = 0
        self._orphans = 0
        self._uncompared: dict[str, str] = {}
        """Who or what could not be compared, and why."""
        self._services: dict[str, Mapping[str, str]] = {}
        """By definition: the services of its steps, by their names."""

    async def findings(self) -> AsyncGenerator[Finding, None]:
        for participant in self._participants:
            async for orphan in self._theirs(participant):
                self._orphans += 1
                yield orphan
        async for orphan in self._ours():
            self._orphans += 1
            yield orphan
        yield Summary(
            effects=self._effects,
            orphans=self._orphans,
            participants=tuple(self._participants),
            unreachable=self._uncompared,
        )

    # --- theirs ---------------------------------------------------------------

    async def _theirs(self, participant: str) -> AsyncIterator[Orphan]:
        try:
            async for page in self._books.effects.held(participant, self._since_ms):
                self._effects += len(page)
                for orphan in await self._confirmed(participant, await self._suspects(page)):
                    yield orphan
        except EffectsUnavailable as error:
            self._uncompared[participant] = str(error)

    async def _suspects(self, effects: Sequence[Effect]) -> Sequence[EffectKey]:
        known = await self._standings(effects)
        keys = [effect.key for effect in effects]
        return [key for key in keys if await self._is_suspect(key, known.get(key.saga_id))]

    async def _is_suspect(self, key: EffectKey, standing: Standing | None) -> bool:
        if standing is None or standing.state is SagaState.COMPENSATED:
            return True
        if standing.state is not SagaState.COMPLETED:
            return False
        return key.step not in await self._services_of(standing.definition_hash)

    async def _confirmed(self, participant: str, suspects: Sequence[EffectKey]) -> Sequence[Orphan]:
        """The suspects that are orphans: their records are read again, and then their sagas."""
        if not suspects:
            return ()
        effects = await self._books.effects.find(participant, suspects)
        known = await self._standings(effects)
        orphans = []
        for effect in effects:
            saga_id = effect.key.saga_id
            try:
                saga = await self._books.journal.load(saga_id) if saga_id in known else None
            except UnreadableHistory as error:
                self._uncompared["journal"] = f"journal: a history cannot be read, {error}"
                continue
            orphans.append(judge_held(participant, effect, saga))
        return [orphan for orphan in orphans if orphan is not None]

    async def _standings(self, effects: Sequence[Effect]) -> Mapping[str, Standing]:
        saga_ids = dict.fromkeys(effect.key.saga_id for effect in effects)
        return await self._books.journal.standings(list(saga_ids))

    # --- ours -----------------------------------------------------------------

    async def _ours(self) -> AsyncIterator[Orphan]:
        async for sagas in self._completed():
            done = await self._done(sagas)
            for service in done.keys() - frozenset(self._books.effects.participants):
                self._uncompared[service] = f"{service}: no participant that answers serves it"
            for participant in self._participants:
                if participant not in self._uncompared:
                    for orphan in await self._missing(participant, done[participant]):
                        yield orphan

    async def _completed(self) -> AsyncIterator[Sequence[StoredSaga]]:
        """COMPLETED sagas that are young enough, newest first."""
        before = None
        while True:
            page = await self._books.journal.list_sagas(
                definition="",
                states=frozenset({SagaState.COMPLETED}),
                keys={},
                before=before,
                limit=SAGAS,
            )
            young = [saga for saga in page if saga.created_ms >= self._since_ms]
            yield young
            if len(young) < SAGAS:
                return
            before = (page[-1].created_ms, page[-1].saga_id)

    async def _done(self, sagas: Sequence[StoredSaga]) -> Mapping[str, Sequence[EffectKey]]:
        """Which records each participant must have of these sagas."""
        done = defaultdict[str, list[EffectKey]](list)
        for saga in sagas:
            for step, service in (await self._services_of(saga.definition_hash)).items():
                done[self._books.whose(service)].append(EffectKey(saga.saga_id, step))
        return done

    async def _missing(self, participant: str, keys: Sequence[EffectKey]) -> Sequence[Orphan]:
        try:
            effects = await self._books.effects.find(participant, keys)
        except EffectsUnavailable as error:
            self._uncompared[participant] = str(error)
            return ()
        found = {effect.key: effect for effect in effects}
        judged = (judge_done(participant, key, found.get(key)) for key in keys)
        return [orphan for orphan in judged if orphan is not None]

    async def _services_of(self, definition_hash: str) -> Mapping[str, str]:
        """Empty when the definition is not to be had."""
        if definition_hash not in self._services:
            try:
                definition = await self._books.definitions.load(definition_hash)
            except DefinitionUnavailable as error:
                self._services[definition_hash] = {}
                self._uncompared[definition_hash] = f"definition: {error}"
            else:
                self._services[definition_hash] = {s.name: s.service for s in definition.steps}
        return self._services[definition_hash]

"""A coordinator whose participants keep records as barriers do, and a reconciler of the two."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Self

from msgspec.structs import replace

from coordinator.core.model import Definition, Direction, FailureKind, SagaState
from coordinator.engine.definitions import DefinitionUnavailable
from coordinator.participants.base import Answer, Attempt, Done
from coordinator.participants.memory import Sent
from coordinator.reconciliation.base import THERE, EffectsUnavailable, Finding, Orphan, Summary
from coordinator.reconciliation.reconciler import Books, Reconciler
from mesh.effects import Effect, EffectKey, EffectState
from tests.builders import definition
from tests.unit.engine.world import World, failed

WINDOW_MS = 60_000
PARTICIPANTS = ("inventory", "payment")
STEPS = ("stock", "money")
"""One at each participant, in this order."""


class Records:
    """What every participant has stored; each also says so, as `HeldEffects`."""

    participants = PARTICIPANTS

    def __init__(self, page: int = 1_000) -> None:
        self.page = page
        self.slow = 0.001
        """How long a page is on its way, in seconds."""
        self.stored: dict[str, dict[EffectKey, Effect]] = defaultdict(dict)
        self.away: set[str] = set()

    def put(self, participant: str, key: EffectKey, state: EffectState, at_ms: int) -> None:
        self.stored[participant][key] = Effect(key, state, at_ms)

    async def held(self, participant: str, since_ms: int) -> AsyncIterator[Sequence[Effect]]:
        after = EffectKey("", "")
        while True:
            self._reach(participant)
            mine = sorted(self.stored[participant].items())
            page = [effect for key, effect in mine if key > after][: self.page]
            await asyncio.sleep(self.slow)
            yield [it for it in page if it.state in THERE and it.updated_ms >= since_ms]
            if len(page) < self.page:
                return
            after = page[-1].key

    async def find(self, participant: str, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        self._reach(participant)
        await asyncio.sleep(0.001)
        mine = self.stored[participant]
        return [mine[key] for key in keys if key in mine]

    def _reach(self, participant: str) -> None:
        if participant in self.away:
            raise EffectsUnavailable(f"{participant}: UNAVAILABLE, gone fishing")


class Versions:
    """The definitions that are stored."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def load(self, content_hash: str) -> Definition:
        try:
            return self._world.definitions.by_hash[content_hash]
        except KeyError:
            raise DefinitionUnavailable(f"{content_hash} is not stored") from None


class Audit:
    """One coordinator, two participants, and whoever compares their books."""

    def __init__(self) -> None:
        self.world = World()
        self.records = Records()
        self.chance = random.Random(4)
        self.slow = 0.0
        """How long a participant may take for one call, in seconds."""
        self.refusing: set[str] = set()
        """Sagas whose second step is refused for good."""
        self.stubborn: set[str] = set()
        """Sagas whose first step cannot be undone."""
        self.whose = {f"test.v1.{s.title()}": p for s, p in zip(STEPS, PARTICIPANTS, strict=True)}
        self._calls: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.coordinator = await self.world.coordinator(max_sagas=1_000)
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._serving.cancel()
        with suppress(asyncio.CancelledError):
            await self._serving
        await self.world.close()

    # --- participants ---------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            call = asyncio.create_task(self._answer(await self.coordinator.participants.next()))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _answer(self, sent: Sent) -> None:
        await asyncio.sleep(self.chance.random() * self.slow)
        answer = self._perform(sent.attempt)
        await asyncio.sleep(self.chance.random() * self.slow)
        sent.answer(answer)

    def _perform(self, attempt: Attempt) -> Answer:
        key = EffectKey(attempt.saga_id, attempt.step)
        if attempt.direction is Direction.COMPENSATE:
            if key.saga_id in self.stubborn:
                return failed(FailureKind.REFUSED)
            self.plant(key, EffectState.COMPENSATED)
        elif key.saga_id in self.refusing and key.step == STEPS[-1]:
            self.plant(key, EffectState.REJECTED)
            return failed(FailureKind.REJECTED)
        else:
            self.plant(key, EffectState.HELD)
        return Done(b"ok")

    def plant(self, key: EffectKey, state: EffectState, *, age_ms: int = 0) -> None:
        """Change a record behind the coordinator's back."""
        participant = PARTICIPANTS[STEPS.index(key.step)] if key.step in STEPS else "payment"
        self.records.put(participant, key, state, self.world.now_ms() - age_ms)

    def lose(self, participant: str, key: EffectKey) -> None:
        """Delete a record."""
        del self.records.stored[participant][key]

    # --- sagas ----------------------------------------------------------------

    async def start(self, saga_id: str) -> None:
        story = replace(definition(*STEPS), hash="-".join(STEPS))
        await self.world.start(self.coordinator, saga_id=saga_id, story=story)

    async def completed(self, saga_id: str = "saga-1") -> None:
        await self.start(saga_id)
        await self.world.until(SagaState.COMPLETED, saga_id)

    async def compensated(self, saga_id: str = "saga-1") -> None:
        self.refusing.add(saga_id)
        await self.start(saga_id)
        await self.world.until(SagaState.COMPENSATED, saga_id)

    async def stuck(self, saga_id: str = "saga-1") -> None:
        """With its first step not undone."""
        self.stubborn.add(saga_id)
        self.refusing.add(saga_id)
        await self.start(saga_id)
        await self.world.until(SagaState.STUCK, saga_id)

    # --- the comparison -------------------------------------------------------

    def reconciler(self) -> Reconciler:
        books = Books(
            effects=self.records,
            journal=self.world.reader,
            definitions=Versions(self.world),
            whose=lambda service: self.whose.get(service, service),
        )
        return Reconciler(books, now_ms=self.world.now_ms, window_ms=WINDOW_MS)

    async def findings(self, *participants: str) -> list[Finding]:
        run = self.reconciler().run(participants or PARTICIPANTS)
        return [finding async for finding in run]

    async def orphans(self) -> list[str]:
        """Each orphan in words, by participant, saga and step."""
        return [
            f"{it.participant} {it.key.saga_id} {it.key.step} {it.kind.value}"
            for it in await self.findings()
            if isinstance(it, Orphan)
        ]

    async def summary(self, *participants: str) -> Summary:
        last = (await self.findings(*participants))[-1]
        assert isinstance(last, Summary)
        return last

"""Coordinators without databases or networks, on virtual time: the real engine and its fakes."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from msgspec.structs import replace

from coordinator.core.evolve import replay
from coordinator.core.model import Definition, Direction, Failure, FailureKind, SagaState
from coordinator.core.saga import Saga
from coordinator.engine.clock import LoopClock
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.errors import Excess
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import NewSaga, Ports
from coordinator.journal.memory import MemoryJournal, MemoryStore
from coordinator.journal.verbs import Verb, VerbKind, VerbOutcome, VerbState
from coordinator.participants.base import Done, Failed
from coordinator.participants.memory import MemoryParticipants, Sent
from tests.builders import definition

EPOCH_MS = 1_700_000_000_000
"""What the store's clock says when virtual time begins; nothing like the loop's own."""


def failed(kind: FailureKind = FailureKind.UNKNOWN, *, retry_after_ms: int | None = None) -> Failed:
    return Failed(Failure(kind=kind, code="UNAVAILABLE", reason="TOLD"), retry_after_ms)


class Definitions:
    """Every definition that a test has used."""

    def __init__(self) -> None:
        self.by_hash: dict[str, Definition] = {}

    async def load(self, content_hash: str) -> Definition:
        return self.by_hash[content_hash]


class Counts:
    """What the engine counted."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.states: Counter[SagaState] = Counter()
        self.refused: Counter[Excess] = Counter()
        self.sagas_claimed = 0
        self.sagas_unrunnable = 0
        self.clock_jumps = 0

    def attempt(self, direction: Direction, outcome: str) -> None:
        self.attempts[f"{direction.value} {outcome}"] += 1

    def ended(self, state: SagaState) -> None:
        self.states[state] += 1

    def shed(self, excess: Excess) -> None:
        self.refused[excess] += 1

    def claimed(self, count: int) -> None:
        self.sagas_claimed += count

    def unrunnable(self, count: int) -> None:
        self.sagas_unrunnable = count

    def clock_jumped(self) -> None:
        self.clock_jumps += 1


class Coordinator:
    """One instance."""

    def __init__(
        self,
        world: World,
        instance_id: str,
        max_sagas: int,
        journal: MemoryJournal | None = None,
    ) -> None:
        self.journal = journal or MemoryJournal(world.store)
        self.participants = MemoryParticipants()
        self.counts = Counts()
        self.clock = LoopClock(asyncio.get_running_loop())
        ports = Ports(
            journal=self.journal,
            participants=self.participants,
            clock=self.clock,
            stats=self.counts,
            chance=lambda: 0.0,
        )
        settings = EngineSettings(
            ownership=OwnershipSettings(instance_id=instance_id), max_sagas=max_sagas
        )
        self.engine = Engine(settings, ports, definitions=world.definitions)
        self.task = asyncio.create_task(self.engine.run())

    async def ready(self) -> Coordinator:
        while not self.engine.ready:
            await asyncio.sleep(0.01)
        return self

    async def sent(self, what: str) -> Sent:
        """The next attempt, which must be this one, such as "DO a 1"."""
        sent = await self.participants.next()
        attempt = sent.attempt
        assert f"{attempt.direction.value} {attempt.step} {attempt.attempt}" == what
        return sent

    async def answer(self, what: str, answer: Done | Failed | None = None) -> None:
        """Take the next attempt and answer it, by default with OK."""
        sent = await self.sent(what)
        sent.answer(answer or Done(f"{sent.attempt.step}-ok".encode()))

    async def kill(self) -> None:
        """Stop without a word, as kill -9 does: nothing is released, nothing is heard any more."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    async def shut_down(self) -> None:
        """Stop as SIGTERM asks for."""
        await self.engine.drain()
        await self.kill()
        await self.engine.release()


class World:
    """One store, and the coordinators that share it."""

    def __init__(self) -> None:
        self.store = MemoryStore(self.now_ms)
        self.definitions = Definitions()
        self.reader = MemoryJournal(self.store)
        self.jump_ms = 0
        """How far the store's clock was set forward."""
        self._coordinators: list[Coordinator] = []

    def now_ms(self) -> int:
        return self.jump_ms + EPOCH_MS + int(asyncio.get_running_loop().time() * 1_000)

    async def coordinator(self, instance_id: str = "one", max_sagas: int = 100) -> Coordinator:
        self._coordinators.append(Coordinator(self, instance_id, max_sagas))
        return await self._coordinators[-1].ready()

    async def close(self) -> None:
        for coordinator in self._coordinators:
            await coordinator.kill()

    async def start(
        self,
        coordinator: Coordinator,
        *steps: str,
        saga_id: str = "saga-1",
        story: Definition | None = None,
    ) -> Saga:
        chosen = story or replace(definition(*steps), hash="-".join(steps))
        self.definitions.by_hash[chosen.hash] = chosen
        return await coordinator.engine.start(
            NewSaga(saga_id=saga_id, definition=chosen, input_bytes=b"in", keys={})
        )

    async def saga(self, saga_id: str = "saga-1") -> Saga:
        """The saga as it is on disk."""
        stored = await self.reader.load(saga_id)
        assert stored is not None
        story = self.definitions.by_hash[stored.definition_hash]
        saga = replay(saga_id, story, ((e.event, e.commands) for e in stored.entries))
        assert stored.state is saga.state
        return saga

    async def until(self, state: SagaState, saga_id: str = "saga-1") -> Saga:
        """The saga once it is in this state on disk."""
        while (saga := await self.saga(saga_id)).state is not state:
            await asyncio.sleep(0.001)
        return saga

    async def verb(
        self,
        coordinator: Coordinator,
        kind: VerbKind,
        *,
        step: str = "",
        request_id: str = "",
        revision: int = 0,
    ) -> VerbOutcome:
        """Post a verb and wait until it is decided."""
        request_id = request_id or kind.value.lower()
        await self.reader.post_verb(
            Verb(
                request_id=request_id,
                saga_id="saga-1",
                kind=kind,
                step=step,
                actor="ann",
                reason="told to",
                revision=revision,
            )
        )
        coordinator.engine.verb_posted()
        while True:
            outcome = await self.reader.verb_outcome(request_id)
            if outcome is not None and outcome.state is not VerbState.PENDING:
                return outcome
            await asyncio.sleep(0.001)


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(50):
        await asyncio.sleep(0)


async def stuck(world: World, one: Coordinator) -> None:
    """Let a saga be STUCK on its way back."""
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await one.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    await world.until(SagaState.STUCK)

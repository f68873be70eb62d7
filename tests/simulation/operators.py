"""Who uses the coordinators of a simulation: clients start sagas, operators steer them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from coordinator.core.model import Definition, SagaState
from coordinator.engine.engine import Engine
from coordinator.engine.errors import Draining, Overloaded
from coordinator.engine.ports import NewSaga
from coordinator.journal.base import JournalUnavailable, RevisionConflict
from coordinator.journal.verbs import Verb, VerbKind
from tests.builders import definition
from tests.simulation.store import WatchedStore
from tests.unit.engine.world import Definitions

TIMEOUT_MS = 4_000
DEADLINE_MS = 12_000
AT_REVISION = (VerbKind.RETRY, VerbKind.CANCEL)


class Running(Protocol):
    """A coordinator, as its users see it."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> Engine: ...


class Operators:
    """All users of a world, who may talk to any of its coordinators."""

    def __init__(
        self, chance: random.Random, store: WatchedStore, tell: Callable[[str], None]
    ) -> None:
        self.definitions = Definitions()
        self.started: set[str] = set()
        self._chance = chance
        self._store = store
        self._tell = tell
        self._verbs = 0

    async def run_saga(self, saga_id: str, instances: Sequence[Running]) -> None:
        """Start a saga, however often one must ask; some are cancelled a little later."""
        story = self._story()
        while not await self._start(saga_id, story, self._chance.choice(instances)):
            await asyncio.sleep(1)
        self.started.add(saga_id)
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.random() * 5)
            self._post(saga_id, VerbKind.CANCEL)

    async def until_final(self) -> None:
        """Wait until every saga has ended, steering those that are STUCK."""
        while True:
            states = {saga_id: self._store.state(saga_id) for saga_id in sorted(self.started)}
            if all(state.final for state in states.values()):
                return
            for saga_id, state in states.items():
                if state is SagaState.STUCK:
                    self._steer(saga_id)
            await asyncio.sleep(2)

    def _steer(self, saga_id: str) -> None:
        """One operator, or two at once, of whom at most one may be heard."""
        revision = self._store.revision(saga_id)
        self._post(saga_id, VerbKind.RETRY, revision=revision)
        if self._chance.random() < 0.3:
            self._post(saga_id, self._chance.choice(AT_REVISION), revision=revision)

    def _story(self) -> Definition:
        size = self._chance.randint(1, 4)
        deadline_ms = self._chance.choice([None, None, DEADLINE_MS])
        name = f"{size} steps, deadline {deadline_ms}"
        if name not in self.definitions.by_hash:
            short = definition(*"abcd"[:size])
            steps = tuple(replace(step, timeout_ms=TIMEOUT_MS) for step in short.steps)
            self.definitions.by_hash[name] = replace(
                short, hash=name, steps=steps, deadline_ms=deadline_ms
            )
        return self.definitions.by_hash[name]

    async def _start(self, saga_id: str, story: Definition, instance: Running) -> bool:
        try:
            await instance.engine.start(
                NewSaga(saga_id=saga_id, definition=story, input_bytes=b"in", keys={})
            )
        except RevisionConflict:
            return self._store.load(saga_id) is not None  # an earlier try was heard after all
        except (JournalUnavailable, Draining, Overloaded):
            return False
        self._tell(f"{saga_id} is started at {instance.name}")
        return True

    def _post(self, saga_id: str, kind: VerbKind, *, revision: int = 0) -> None:
        self._verbs += 1
        self._tell(f"{kind.value} {saga_id} is posted{f' at {revision}' if revision else ''}")
        self._store.post_verb(
            Verb(
                request_id=f"verb-{self._verbs}",
                saga_id=saga_id,
                kind=kind,
                actor="ann",
                reason="told to",
                revision=revision,
            )
        )

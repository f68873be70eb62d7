"""One seed, one world: real coordinators on a simulated journal, network and clock.

Two coordinators share a store. Sagas are started, cancelled and, when STUCK, retried by operators;
meanwhile coordinators are killed and restarted, links to the store are cut, commits lose their
answers or take for ever, and messages are lost, doubled, late or answered by a proxy. After a while
the weather clears. Then every saga that was started must come to its end, every message still under
way must arrive, and the effects must be all there or all gone.

Nothing depends on anything but the seed, so a failing one can be played again with its trace.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from coordinator.core.model import Definition, SagaState
from coordinator.engine.clock import LoopClock
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.errors import Draining
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import Ports
from coordinator.journal.base import (
    Append,
    AppendError,
    JournalUnavailable,
    Lease,
    RevisionConflict,
    Verb,
    VerbKind,
)
from coordinator.journal.codec import Row
from coordinator.journal.memory import MemoryJournal, MemoryStore
from coordinator.participants.base import Attempt
from tests.builders import definition
from tests.simulation.network import CLEAR, Network, Services, Weather
from tests.unit.engine.world import Counts, Definitions
from tests.virtual_time import VirtualLoop

EPOCH_MS = 1_700_000_000_000
STORM_SECONDS = 25.0
SLOWEST_SECONDS = 12.0
PATIENCE_SECONDS = 1_800.0
TIMEOUT_MS = 4_000


class Broken(AssertionError):
    """A promise that did not hold, with how it came to that."""


class WatchedStore(MemoryStore):
    """The store, with an eye of its own on who writes."""

    def write(self, lease: Lease, append: Append, row: Row) -> AppendError | None:
        newest = self._leases.get(lease.instance_id)
        if newest is None or newest.epoch != lease.epoch or newest.expires_ms <= self._now_ms():
            raise Broken(f"{row.saga_id} {row.revision} is written under a lease that is lost")
        return super().write(lease, append, row)


class Instance:
    """One coordinator that can be killed and started again."""

    def __init__(self, world: Simulation, name: str) -> None:
        self._world = world
        self.name = name
        self.start()

    def start(self) -> None:
        world = self._world
        self.journal = MemoryJournal(world.store)
        self.network = Network(world.services, world.chance, world.weather, world.check_durable)
        ports = Ports(
            journal=self.journal,
            participants=self.network,
            clock=LoopClock(asyncio.get_running_loop()),
            stats=Counts(),
            chance=world.chance.random,
        )
        settings = EngineSettings(ownership=OwnershipSettings(instance_id=self.name, poll_ms=1_000))
        self.engine = Engine(settings, ports, definitions=world.definitions)
        self._task = asyncio.create_task(self.engine.run())

    async def kill(self) -> None:
        self.network.dead = True
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class Simulation:
    """See the module."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.trace: list[str] = []
        self.store = WatchedStore(self._now_ms)
        self.reader = MemoryJournal(self.store)
        self.definitions = Definitions()
        self.services = Services(self.chance, self.tell, sour=self.chance.choice([0, 0.1, 0.3]))
        self._storm = Weather(
            lost=self.chance.choice([0, 0.1, 0.4]),
            doubled=self.chance.choice([0, 0.2]),
            proxied=self.chance.choice([0, 0.05]),
            slowest_seconds=self.chance.choice([1, 5, SLOWEST_SECONDS]),
        )
        self._clear = False
        self._started: set[str] = set()

    def _now_ms(self) -> int:
        return EPOCH_MS + int(asyncio.get_running_loop().time() * 1_000)

    def tell(self, what: str) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{asyncio.get_running_loop().time():9.3f}  {what}")

    def weather(self) -> Weather:
        return CLEAR if self._clear else self._storm

    def check_durable(self, attempt: Attempt) -> None:
        """Nothing is sent that the journal does not know."""
        what = f"{attempt.direction.value} {attempt.step} {attempt.attempt}"
        self.tell(f"sent {attempt.saga_id} {what}")
        stored = self.store.load(attempt.saga_id)
        calls = [call for entry in stored.entries for call in entry.commands] if stored else []
        if not any(
            (call.step, call.direction, call.attempt, call.request)
            == (attempt.step, attempt.direction, attempt.attempt, attempt.request)
            for call in calls
        ):
            raise Broken(f"sent but not on disk: {attempt.saga_id} {what}")

    async def run(self) -> None:
        """Play it through.

        Raises:
            Broken: a promise did not hold.
        """
        self._instances = [Instance(self, name) for name in ("one", "two")]
        clients = [
            asyncio.create_task(self._client(f"saga-{number}"))
            for number in range(self.chance.randint(1, 4))
        ]
        await self._faults()
        self._clear = True
        self.tell("the weather clears")
        mending = asyncio.create_task(self._mend())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*clients)
            await self._until_final()
        await asyncio.sleep(SLOWEST_SECONDS)  # whatever is still under way arrives
        self._check()
        mending.cancel()
        for instance in self._instances:
            await instance.kill()

    # --- clients and operators ------------------------------------------------

    async def _client(self, saga_id: str) -> None:
        story = self._story()
        await asyncio.sleep(self.chance.random() * STORM_SECONDS / 2)
        while not await self._start(saga_id, story):
            await asyncio.sleep(1)
        self._started.add(saga_id)
        if self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.random() * 5)
            self._post(saga_id, VerbKind.CANCEL)

    def _story(self) -> Definition:
        size, deadline_ms = self.chance.randint(1, 4), self.chance.choice([None, None, 12_000])
        short = definition(*"abcd"[:size])
        story = replace(
            short,
            hash=f"{size} steps, deadline {deadline_ms}",
            steps=tuple(replace(step, timeout_ms=TIMEOUT_MS) for step in short.steps),
            deadline_ms=deadline_ms,
        )
        self.definitions.by_hash[story.hash] = story
        return story

    async def _start(self, saga_id: str, story: Definition) -> bool:
        instance = self.chance.choice(self._instances)
        try:
            await instance.engine.start(
                saga_id=saga_id, definition=story, input_bytes=b"in", keys={}, traceparent=""
            )
        except RevisionConflict:
            return self.store.load(saga_id) is not None  # an earlier try was heard after all
        except (JournalUnavailable, Draining):
            return False
        self.tell(f"{saga_id} is started at {instance.name}")
        return True

    def _post(self, saga_id: str, kind: VerbKind) -> None:
        self.tell(f"{kind.value} {saga_id} is posted")
        self.store.post_verb(
            Verb(
                request_id=f"{kind.value}-{saga_id}-{self._now_ms()}",
                saga_id=saga_id,
                kind=kind,
                actor="ann",
                reason="told to",
            )
        )

    async def _until_final(self) -> None:
        while True:
            states = {saga_id: self._state(saga_id) for saga_id in self._started}
            if all(state.final for state in states.values()):
                return
            for saga_id in sorted(s for s, state in states.items() if state is SagaState.STUCK):
                self._post(saga_id, VerbKind.RETRY)
            await asyncio.sleep(2)

    def _state(self, saga_id: str) -> SagaState:
        stored = self.store.load(saga_id)
        if stored is None:
            raise Broken(f"{saga_id} was started and is not there")
        return stored.state

    # --- faults ---------------------------------------------------------------

    async def _faults(self) -> None:
        until = asyncio.get_running_loop().time() + STORM_SECONDS
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(self.chance.expovariate(1 / 2))
            await self._strike(self.chance.choice(self._instances))

    async def _mend(self) -> None:
        """Links come back, also one that is still to lose an answer."""
        while True:
            for instance in self._instances:
                instance.journal.let_go()
                instance.journal.mend()
            await asyncio.sleep(1)

    async def _strike(self, instance: Instance) -> None:
        journal = instance.journal
        strikes: dict[str, Callable[[], None]] = {
            "is cut off": journal.cut,
            "is back": journal.mend,
            "loses the next commit's answer": journal.lose_next_answer,
            "commits for ever": journal.hold,
            "commits again": journal.let_go,
        }
        fate = self.chance.choice([*strikes, "is killed"])
        self.tell(f"{instance.name} {fate}")
        if fate in strikes:
            strikes[fate]()
            return
        await instance.kill()
        await asyncio.sleep(self.chance.choice([0, 0.5, 4]))
        self.tell(f"{instance.name} starts again")
        instance.start()

    # --- the last word --------------------------------------------------------

    def _check(self) -> None:
        for saga_id in sorted(self._started):
            stored = self.store.load(saga_id)
            assert stored is not None
            steps = self.definitions.by_hash[stored.definition_hash].steps
            wanted = 1 if stored.state is SagaState.COMPLETED else 0
            effects = {s.name: self.services.effects.get((saga_id, s.name), 0) for s in steps}
            if set(effects.values()) != {wanted}:
                raise Broken(f"{saga_id} is {stored.state.value}, its effects are {effects}")


def play(seed: int) -> list[str]:
    """Play one seed and return its trace.

    Raises:
        Broken: a promise did not hold; the message ends with the trace.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    loop = VirtualLoop()
    simulation = Simulation(seed)
    broken: list[str] = []
    loop.set_exception_handler(lambda _, context: broken.append(_words(context)))
    try:
        loop.run_until_complete(simulation.run())
    except (Broken, TimeoutError, ExceptionGroup) as error:
        broken.append(str(error) or "not every saga came to its end")
    finally:
        loop.close()
    if broken:
        story = "\n".join([*simulation.trace, "", *broken])
        raise Broken(f"seed {seed}, play it again with make simulate SEED={seed}:\n{story}")
    return simulation.trace


def _words(context: dict[str, object]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"

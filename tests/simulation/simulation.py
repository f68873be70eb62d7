"""One seed, one world: real coordinators on a simulated journal, network and clock.

Two coordinators share a store. Sagas are started, cancelled and, when STUCK, steered by operators;
one of them may kill whoever runs it. Meanwhile a storm blows (`faults.py`): coordinators are
killed, sent away and restarted, the store fails in every way it can, its clock is set, participants
go down, and messages are lost, doubled, late or answered by a proxy. After a while the weather
clears. Then every saga that was started must come to its end, every message still under way must
arrive, and:

- the effects are all there, each once, or all gone;
- nothing was sent that was not on disk, nothing written under a lease that was lost;
- no saga was STUCK without a reason that this world has given;
- whatever waited at a gate was let go, and every verb was decided, one for each revision at most.

Nothing depends on anything but the seed, so a failing one can be played again with its trace.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress

import structlog

from coordinator.core.model import SagaState
from coordinator.engine.clock import LoopClock
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import Ports
from coordinator.journal.memory import MemoryJournal
from coordinator.participants.base import Attempt
from tests.simulation.faults import Storm
from tests.simulation.network import CLEAR, Network, Services, Traffic, Weather
from tests.simulation.operators import Operators
from tests.simulation.store import Broken, WatchedStore
from tests.unit.engine.world import Counts
from tests.virtual_time import VirtualLoop

PATIENCE_SECONDS = 600.0
PARK_AFTER_MS = 500
"""So that nearly every saga that waits between two attempts is parked."""
POISONED = 0.1
"""How many worlds have a saga that kills whoever runs it."""
POISON_SECONDS = (0, 0.3)
"""How long it takes to kill, at most, from its call."""
MOST_POISONINGS = 15
"""It may kill this often, because it is acquitted when it merely waits for its participant."""


class Instance:
    """One coordinator that can be killed and started again."""

    def __init__(self, world: Simulation, name: str) -> None:
        self._world = world
        self.name = name
        self.alive = False
        self.start()

    def start(self) -> None:
        """Live again, with nothing in memory; one that lives goes on."""
        if self.alive:
            return
        self.alive = True
        world = self._world
        self.journal = MemoryJournal(world.store)
        self.network = Network(
            world.services, world.traffic, world.chance, world.weather, self._sent
        )
        ports = Ports(
            journal=self.journal,
            participants=self.network,
            clock=LoopClock(asyncio.get_running_loop()),
            stats=Counts(),
            chance=world.chance.random,
        )
        settings = EngineSettings(
            ownership=OwnershipSettings(
                instance_id=self.name, poll_ms=1_000, park_after_ms=PARK_AFTER_MS
            ),
            max_calls=world.max_calls,
        )
        self.engine = Engine(settings, ports, definitions=world.operators.definitions)
        self._task = asyncio.create_task(self.engine.run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.alive:
            raise Broken(f"{self.name} stops by itself: {task}")

    async def kill(self) -> None:
        """Stop without a word, as kill -9 does: nothing is released, nothing is heard any more."""
        self._fall_silent()
        await self._stop()

    async def shut_down(self) -> None:
        """Stop as SIGTERM asks for."""
        await self.engine.drain()
        self.alive = False
        await self._stop()
        await self.engine.release()
        self._fall_silent()

    def _fall_silent(self) -> None:
        self.alive, self.network.dead = False, True
        self.journal.cut()

    async def _stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _sent(self, attempt: Attempt) -> bool:
        self._world.check_durable(attempt)
        if attempt.saga_id not in self._world.store.poison:
            return True
        self._world.meanwhile(self._die_of(attempt.saga_id, self._task))
        return False

    async def _die_of(self, saga_id: str, life: asyncio.Task[None]) -> None:
        await asyncio.sleep(self._world.chance.random() * self._world.poison_seconds)
        if self.alive and self._task is life:
            self._world.poisoned(self.name, saga_id)
            await self.kill()
            await asyncio.sleep(0.5)
            self.start()


class Simulation:
    """See the module."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.trace: list[str] = []
        self.store = WatchedStore(self.tell)
        self.services = Services(self.chance, self.tell, sour=self.chance.choice([0, 0.1, 0.3]))
        self.traffic = Traffic()
        self.operators = Operators(self.chance, self.store, self.tell)
        self.poison_seconds = self.chance.choice(POISON_SECONDS)
        self._poisoned = self.chance.random() < POISONED
        self.max_calls = self.chance.choice([2, 512])
        self._storm = Storm(self.chance, self.store, self.services, self.tell)
        self._weather = Weather(
            lost=self.chance.choice([0, 0.1, 0.4]),
            doubled=self.chance.choice([0, 0.2]),
            proxied=self.chance.choice([0, 0.05]),
            slowest_seconds=self.chance.choice([1, 5, 12]),
        )
        self._poisonings = 0
        self.broken: list[str] = []
        """What was found outside of anybody's call."""
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, what: str) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{asyncio.get_running_loop().time():9.3f}  {what}")

    def weather(self) -> Weather:
        """As it is now."""
        return self._weather

    def meanwhile(self, work: Coroutine[object, object, None]) -> None:
        """Let something happen beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

    def check_durable(self, attempt: Attempt) -> None:
        """Nothing is sent that the journal does not know."""
        what = f"{attempt.saga_id} {attempt.direction.value} {attempt.step} {attempt.attempt}"
        self.tell(f"sent {what}")
        if not self.store.knows(attempt):
            raise Broken(f"sent but not on disk: {what}")

    def poisoned(self, name: str, saga_id: str) -> None:
        """An instance dies of a saga."""
        self._poisonings += 1
        self.tell(f"{name} dies of {saga_id}")
        self.store.strike(name, poison=saga_id)
        if self._poisonings > MOST_POISONINGS:
            self.broken.append(f"{saga_id} kills and kills")

    async def run(self) -> None:
        """Play it through.

        Raises:
            Broken: a promise did not hold.
        """
        self.instances = [Instance(self, name) for name in ("one", "two")]
        sagas = [f"saga-{number}" for number in range(self.chance.randint(1, 4))]
        if self._poisoned:
            self.store.poison.add(sagas[0])
        clients = [asyncio.create_task(self._client(saga_id)) for saga_id in sagas]
        await self._storm.blow(self.instances)
        self._weather = CLEAR
        self.tell("the weather clears")
        self.meanwhile(self._storm.mend(self.instances))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*clients)
            await self.operators.until_final()
            await self._until_quiet()
        self._check()

    async def _client(self, saga_id: str) -> None:
        await asyncio.sleep(self.chance.random() * self._storm.seconds / 2)
        await self.operators.run_saga(saga_id, self.instances)

    async def _until_quiet(self) -> None:
        """Wait until every message has arrived and nobody waits for anything."""
        while self.traffic.messages or self.store.undecided or self._waiting():
            await asyncio.sleep(1)

    def _waiting(self) -> int:
        conditions = (c for instance in self.instances for c in instance.engine.conditions())
        return sum(condition.waiting + condition.in_flight for condition in conditions)

    def _check(self) -> None:
        for saga_id in sorted(self.operators.started):
            state = self.store.state(saga_id)
            wanted = 1 if state is SagaState.COMPLETED else 0
            story = self.operators.definitions.by_hash[self.store.definition(saga_id)]
            effects = {step.name: self.services.effects[saga_id, step.name] for step in story.steps}
            if set(effects.values()) != {wanted}:
                raise Broken(f"{saga_id} is {state.value}, its effects are {effects}")
        for (saga_id, revision), count in self.store.accepted().items():
            if count > 1:
                raise Broken(f"{count} verbs were accepted for revision {revision} of {saga_id}")


def play(seed: int) -> list[str]:
    """Play one seed and return its trace.

    Raises:
        Broken: a promise did not hold; the message ends with the trace.
    """
    simulation = Simulation(seed)
    broken = simulation.broken
    with _quiet(), _virtual_loop() as loop:
        loop.set_exception_handler(lambda _, context: broken.append(_words(context)))
        try:
            loop.run_until_complete(simulation.run())
        except (Broken, TimeoutError, ExceptionGroup) as error:
            broken.append(str(error) or "not everything came to its end")
        loop.set_exception_handler(lambda *_: None)  # it is over, in the middle of something
    if broken:
        story = "\n".join([*simulation.trace, "", *broken])
        raise Broken(f"seed {seed}, play it again with make simulate SEED={seed}:\n{story}")
    return simulation.trace


@contextmanager
def _virtual_loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    try:
        yield loop
    finally:
        loop.run_until_complete(_cancel_all())
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def _words(context: dict[str, object]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"

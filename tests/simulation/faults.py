"""The storm of a simulation: what befalls coordinators, the store and the participants."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from coordinator.journal.memory import MemoryJournal
from tests.simulation.network import PARTICIPANTS, Network, Services
from tests.simulation.store import WatchedStore

JUMPS_MS = (-20_000, -6_000, -2_000, 2_000, 6_000, 20_000)
STRIKES = 12
"""About so many in a storm, however long it is."""
LONG_OUTAGE_SECONDS = 40.0
"""Longer than any budget of attempts."""


class Victim(Protocol):
    """A coordinator that can be struck."""

    @property
    def name(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    @property
    def journal(self) -> MemoryJournal: ...
    @property
    def network(self) -> Network: ...
    def start(self) -> None: ...
    async def kill(self) -> None: ...
    async def shut_down(self) -> None: ...


class Storm:
    """Strikes at random for a while."""

    def __init__(
        self,
        chance: random.Random,
        store: WatchedStore,
        services: Services,
        tell: Callable[[str], None],
    ) -> None:
        self.seconds = chance.choice([6.0, 10.0, 20.0])
        self._chance = chance
        self._store = store
        self._services = services
        self._tell = tell
        self._outage_seconds = LONG_OUTAGE_SECONDS if chance.random() < 0.1 else 0.0

    async def blow(self, instances: Sequence[Victim]) -> None:
        """Strike until it is over."""
        until = asyncio.get_running_loop().time() + self.seconds
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(self._chance.expovariate(STRIKES / self.seconds))
            await self._strike(instances)

    async def mend(self, instances: Sequence[Victim]) -> None:
        """Links come back, also one that is still to lose an answer; participants may take long."""
        asyncio.get_running_loop().call_later(self._outage_seconds, self._services.down.clear)
        while True:
            for instance in instances:
                if instance.alive:
                    instance.journal.let_go()
                    instance.journal.mend()
            await asyncio.sleep(1)

    async def _strike(self, instances: Sequence[Victim]) -> None:
        dice, instance = self._chance.random(), self._chance.choice(instances)
        if dice < 0.15:
            self._participant()
        elif dice < 0.2:
            self._clock()
        elif instance.alive and dice < 0.45:
            await self._life(instance)
        elif instance.alive and dice < 0.6:
            self._stream(instance)
        elif instance.alive:
            self._journal(instance)

    def _stream(self, instance: Victim) -> None:
        name = self._chance.choice(PARTICIPANTS)
        self._tell(f"the stream of {instance.name} to {name} breaks")
        instance.network.break_stream(name)

    def _participant(self) -> None:
        name = self._chance.choice(PARTICIPANTS)
        self._services.down ^= {name}
        self._tell(f"{name} {'goes down' if name in self._services.down else 'is back'}")

    def _clock(self) -> None:
        ahead_ms = self._chance.choice(JUMPS_MS)
        self._tell(f"the store's clock is set {ahead_ms:+} ms")
        self._store.set_clock(ahead_ms)

    async def _life(self, instance: Victim) -> None:
        if self._chance.random() < 0.7:
            self._tell(f"{instance.name} is killed")
            self._store.strike(instance.name)
            await instance.kill()
        else:
            self._tell(f"{instance.name} is told to stop")
            self._store.strike(instance.name)  # it may be too late for it to acquit anybody
            await instance.shut_down()
        await asyncio.sleep(self._chance.choice([0, 0.5, 4]))
        self._tell(f"{instance.name} starts again")
        instance.start()

    def _lose_answer(self, instance: Victim) -> None:
        self._store.unlucky.add(instance.name)
        instance.journal.lose_next_answer()

    def _journal(self, instance: Victim) -> None:
        journal, store, name = instance.journal, self._store, instance.name
        fates: dict[str, Callable[[], None]] = {
            "is cut off": journal.cut,
            "is back": journal.mend,
            "loses the next commit's answer": lambda: self._lose_answer(instance),
            "commits for ever": journal.hold,
            "commits again": journal.let_go,
            "is taken for dead": lambda: store.end_lease(name),
            "will have an event refused": store.refuse_next,
        }
        fate = self._chance.choice(list(fates))
        self._tell(f"{name} {fate}")
        store.strike(name)
        fates[fate]()

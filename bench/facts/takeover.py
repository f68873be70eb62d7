"""What a crash costs: kill -9 under 10,000 sagas in flight, and another coordinator beside it."""

from __future__ import annotations

import time

from bench.facts.starting import BEFORE_EACH, hold
from bench.results import Fact
from bench.sides import Coordinator
from bench.window import LoadFailed
from bench.world import World
from local.until import until

_SAGAS = 10_000
_LONGEST_S = 120
_SETTINGS = {"MAX_CALLS_PER_PARTICIPANT": "65536"}


async def measure(world: World) -> list[Fact]:
    """Seconds from the kill until the last saga has ended."""
    async with (
        world.participant(streams=True) as participant,
        Coordinator(world, participant, settings=_SETTINGS) as first,
        Coordinator(world, participant, dsn=first.dsn, settings=_SETTINGS) as second,
    ):
        await hold(first, _SAGAS)
        participant.wake()
        await first.process.kill()
        killed = time.monotonic()

        async def ended() -> bool:
            return await second.finished() == {"COMPLETED": (1 + BEFORE_EACH) * _SAGAS}

        if not await until(ended, seconds=_LONGEST_S):
            raise LoadFailed(f"after a takeover there are {await second.finished()}")
        took = time.monotonic() - killed
    title = "kill -9 under 10,000 sagas until the last has ended, 3 s of it the lease"
    return [Fact(name="takeover_10000", title=title, unit="s", values=[took])]

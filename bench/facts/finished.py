"""What finished sagas in the tables cost those that run: coordinators on databases that differ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from bench.load import Load
from bench.rows import fill
from bench.scenarios import Outcome, take
from bench.sides import Coordinator, Ours
from bench.world import World

_LOAD = Load(in_flight=64)
_NAMES = {0: "none", 1_000_000: "1m", 10_000_000: "10m"}


async def measure(world: World, rounds: int, sizes: Sequence[int]) -> AsyncIterator[Outcome]:
    """Each database in turn, so many rounds; `sizes` are numbers of finished sagas."""
    async with AsyncExitStack() as stack:
        participant = await stack.enter_async_context(world.participant(streams=True))
        sides = {}
        for size in sizes:
            asked = await stack.enter_async_context(
                Coordinator(world, participant, settings={"RETENTION_DAYS": "365"})  # all are kept
            )
            if size:
                await fill(asked.dsn, 0, size, size)
            sides[_NAMES[size]] = Ours("stream", asked)
        for _ in range(rounds):
            for name, side in sides.items():
                window = await take(side, _LOAD)
                yield Outcome(
                    scenario="finished", side=name, in_flight=_LOAD.in_flight, window=window
                )

"""Memory of a saga in flight: the slope from 1,000 to 20,000 that wait for their last step."""

from __future__ import annotations

import asyncio

import psutil

from bench.facts.starting import hold
from bench.results import Fact
from bench.sides import Coordinator
from bench.world import World

_FEW, _MANY = 1_000, 20_000
_SETTLED_S = 2.0


async def measure(world: World) -> list[Fact]:
    """Over step streams, and by calls of their own."""
    found = []
    for streams in (True, False):
        async with (
            world.participant(streams=streams) as participant,
            # Every one of them is called, none waits before the gate.
            Coordinator(
                world, participant, settings={"MAX_CALLS_PER_PARTICIPANT": "65536"}
            ) as coordinator,
        ):
            slope = await _slope(coordinator)
        form = "streams" if streams else "unary"
        title = f"memory of a saga in flight, {form}"
        found.append(Fact(name=f"memory_{form}", title=title, unit="KiB", values=[slope]))
    return found


async def _slope(coordinator: Coordinator) -> float:
    """KiB for each saga more."""
    await hold(coordinator, _FEW)
    few = await resident(coordinator)
    await hold(coordinator, _MANY - _FEW)
    return (await resident(coordinator) - few) / (_MANY - _FEW) / 1024


async def resident(coordinator: Coordinator) -> int:
    """Bytes that its process holds, once it has come to rest."""
    await asyncio.sleep(_SETTLED_S)
    return int(psutil.Process(coordinator.process.pid).memory_info().rss)

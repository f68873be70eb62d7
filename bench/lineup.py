"""All sides of a scenario, started before the first takes its turn, so that each meets the same.

unary             each step is a call of its own, each saga a StartSaga
unary-startsagas  each step is a call of its own, sagas share one StartSagas stream
stream-startsaga  steps share a step stream, each saga is a StartSaga
stream            steps share a step stream, sagas one StartSagas stream
floor             the four calls of a saga, with nobody in between
dtm-async         DTM as it is by default; dtm-sync: each result durable before the next call
dbos, temporal    a Python worker of each
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from bench.load import Side
from bench.peers.dtm import Dtm
from bench.peers.python import Dbos, Temporal
from bench.sides import Coordinator, Floor, Ours
from bench.world import World

WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
OURS = ("unary", "unary-startsagas", "stream-startsaga", "stream")


@asynccontextmanager
async def lineup(
    world: World, names: Collection[str], *, jitter_ms: int = 0
) -> AsyncIterator[Mapping[str, Side]]:
    """Start what these sides need; they are there by name until the end."""
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(
            world.participant(jitter_ms=jitter_ms, streams=False)
        )
        sides: dict[str, Side] = {"floor": Floor(plain)}
        for streams in (False, True):
            wanted = {name for name in OURS if name.startswith("stream") is streams}
            if wanted := wanted.intersection(names):
                called = world.participant(jitter_ms=jitter_ms, streams=streams)
                participant = await stack.enter_async_context(called)
                asked = await stack.enter_async_context(
                    Coordinator(world, participant, workers=WORKERS)
                )
                sides |= {name: Ours(name, asked) for name in wanted}
        for name in {"dtm-async", "dtm-sync"}.intersection(names):
            peer = Dtm(name, world, plain, synchronous=name == "dtm-sync")
            sides[name] = await stack.enter_async_context(peer)
        if "dbos" in names:
            sides["dbos"] = await stack.enter_async_context(Dbos(world, plain))
        if "temporal" in names:
            sides["temporal"] = await stack.enter_async_context(Temporal(world, plain))
        yield sides

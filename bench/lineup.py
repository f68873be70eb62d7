"""All sides of a scenario, started before the first takes its turn, so that each meets the same.

unary             each step is a call of its own, each saga a StartSaga
unary-startsagas  each step is a call of its own, sagas share one StartSagas stream
stream-startsaga  steps share a step stream, each saga is a StartSaga
stream            steps share a step stream, sagas one StartSagas stream
stream-workers    the same, of a coordinator with two workers
floor             the four calls of a saga, with nobody in between
dtm-async         DTM as it is by default; dtm-sync: each result durable before the next call
dbos, temporal    a Python worker of each
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from bench.load import Side
from bench.peers.dtm import Dtm
from bench.peers.python import Dbos, Temporal
from bench.sides import Coordinator, Floor, Ours
from bench.world import World

OURS = ("unary", "unary-startsagas", "stream-startsaga", "stream")
WORKERS = "stream-workers"
_FORMS = {(False, 1): OURS[:2], (True, 1): OURS[2:], (True, 2): (WORKERS,)}
"""Of a coordinator: whether it is offered step streams, and its workers."""


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
        for (streams, workers), ours in _FORMS.items():
            if wanted := set(ours).intersection(names):
                called = world.participant(jitter_ms=jitter_ms, streams=streams)
                participant = await stack.enter_async_context(called)
                asked = await stack.enter_async_context(
                    Coordinator(world, participant, workers=workers)
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

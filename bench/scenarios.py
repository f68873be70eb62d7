"""What is asked of whom: the closed loops, in which sides take turns.

In each round every side has one window; then comes the next round. So what the machine does
meanwhile hits all of them, and a ratio is one of windows that lay beside each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import msgspec

from bench.lineup import OURS, WORKERS, lineup
from bench.load import Load, Side
from bench.window import LoadFailed, Window, measure
from bench.world import World

DTM = ("dtm-async", "dtm-sync")
_ENGINES = ("dbos", "temporal")
PEERS = (*DTM, *_ENGINES)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One side's part in each round of a scenario."""

    side: str
    load: Load


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Turns before participants that answer after 0 to `jitter_ms`."""

    name: str
    title: str
    turns: Sequence[Turn]
    jitter_ms: int = 0

    @property
    def company(self) -> tuple[int, bool]:
        """Those with the same run beside each other. DBOS and Temporal take a fifth of a core for
        doing nothing, so they are not there while others are measured."""
        return self.jitter_ms, any(turn.side in _ENGINES for turn in self.turns)


def _turns(sides: Iterable[str], in_flight: int, *, refused: bool = False) -> list[Turn]:
    return [Turn(side=side, load=Load(in_flight=in_flight, refused=refused)) for side in sides]


_FEW = ("floor", "unary", "stream-startsaga", *DTM)
_ALL = ("floor", *OURS, *DTM)

SCENARIOS = (
    Scenario(
        name="jitter-256",
        title="participants answer after 0 to 10 ms at random, 256 in flight",
        turns=_turns(_ALL, 256),
        jitter_ms=10,
    ),
    Scenario(name="one", title="one saga at a time", turns=_turns(_FEW, 1)),
    Scenario(name="steps-16", title="four no-op steps, 16 in flight", turns=_turns(_FEW, 16)),
    Scenario(
        name="steps-64",
        title="four no-op steps, 64 in flight",
        turns=_turns(_ALL, 64),
    ),
    Scenario(name="steps-256", title="four no-op steps, 256 in flight", turns=_turns(_ALL, 256)),
    Scenario(
        name="steps-1024",
        title="four no-op steps, 1,024 in flight (DTM at 64)",
        turns=[*_turns(("stream", WORKERS), 1_024), *_turns(("dtm-async",), 64)],
    ),
    Scenario(
        name="compensation-64",
        title="the fourth step refuses, three are undone, 64 in flight",
        turns=_turns((*OURS, *DTM), 64, refused=True),
    ),
    Scenario(
        name="engines-64",
        title="four no-op steps, 64 in flight, beside general engines",
        turns=_turns(("unary", *_ENGINES), 64),
    ),
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one side of one scenario."""

    scenario: str
    side: str
    in_flight: int
    window: Window


async def run(
    world: World, scenarios: Sequence[Scenario], rounds: int, failed: Callable[[str], None]
) -> AsyncIterator[Outcome]:
    """Let the sides of scenarios in the same company take their turns.

    `failed` hears of a load that failed, or was told what is not on its side's disk; that side
    takes no further turn in this scenario, and what the others find is not lost.
    """
    names = {turn.side for scenario in scenarios for turn in scenario.turns}
    (jitter_ms,) = {scenario.jitter_ms for scenario in scenarios}
    async with lineup(world, names, jitter_ms=jitter_ms) as sides:
        for scenario in scenarios:
            turns = list(scenario.turns)
            for _ in range(rounds):
                for turn in tuple(turns):
                    try:
                        window = await take(sides[turn.side], turn.load)
                    except LoadFailed as why:
                        failed(f"{scenario.name}, {turn.side}: {why}")
                        turns.remove(turn)
                        continue
                    yield Outcome(
                        scenario=scenario.name,
                        side=turn.side,
                        in_flight=turn.load.in_flight,
                        window=window,
                    )


async def take(side: Side, load: Load) -> Window:
    """Measure one window, and compare what was told with what is on disk.

    Raises:
        LoadFailed: they differ, or the load failed.
    """
    before = await side.finished()
    window = await measure(side.command(load), side.processes)
    after = await side.finished()
    stored = {state: count - before.get(state, 0) for state, count in after.items()}
    stored = {state: count for state, count in stored.items() if count}
    if after and stored != {load.end: window.report.finished}:
        told = f"{window.report.finished} {load.end}"
        raise LoadFailed(f"{side.name}: the load was told of {told}, on disk are {stored}")
    return window

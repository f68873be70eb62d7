"""A run as a whole: the closed loops first, then what is measured by other means, one by one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.facts import disk, finished, full_mesh, memory, parked, takeover
from bench.results import Fact
from bench.scenarios import Outcome, Scenario, run
from bench.window import LoadFailed
from bench.world import World

CHAPTERS = {
    "full-mesh": "place-order on the whole mesh: five steps, real databases and barriers",
    "finished": "streams, 64 in flight, with none, 1 M, 10 M finished sagas in the tables",
    "disk": "what the disk sees of a saga",
    "memory": "memory of a saga in flight",
    "takeover": "kill -9 under 10,000 sagas",
    "parked": "1 M parked sagas",
}
FULL = "10 M finished sagas in the tables: make bench FULL=1, some twenty minutes more"

_FACTS = {
    "disk": disk.measure,
    "memory": memory.measure,
    "takeover": takeover.measure,
    "parked": parked.measure,
}


class Notes:
    """What has been found so far, shown as it comes: in place on a terminal, else line by line."""

    def __init__(self, console: Console) -> None:
        self.outcomes: list[Outcome] = []
        self.facts: list[Fact] = []
        self.failures: list[str] = []
        columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.progress = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._console = console
        self._task = self.progress.add_task("starting")

    def found(self, outcome: Outcome) -> None:
        """Take in a window."""
        self.outcomes.append(outcome)
        rate = outcome.window.report.per_second
        self.say(f"{outcome.scenario}: {outcome.side} at {outcome.in_flight}, {rate:,.0f} sagas/s")

    def say(self, line: str) -> None:
        """Show what is going on."""
        self.progress.update(self._task, description=line)
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured."""

    scenarios: Sequence[Scenario]
    chapters: Sequence[str]
    rounds: int
    full: bool
    """Whether there are 10 M finished sagas too."""

    @property
    def titles(self) -> Mapping[str, str]:
        """What each part is, in words."""
        loops = {scenario.name: scenario.title for scenario in self.scenarios}
        return {**loops, **{name: CHAPTERS[name] for name in self.chapters}}

    async def run(self, world: World, notes: Notes) -> None:
        """Measure everything."""
        for _, alike in itertools.groupby(self.scenarios, lambda each: each.company):
            async for outcome in run(world, list(alike), self.rounds, notes.failures.append):
                notes.found(outcome)
        for chapter in self.chapters:
            notes.say(CHAPTERS[chapter])
            try:
                await self._chapter(chapter, world, notes)
            except LoadFailed as failed:  # what the others find is not lost
                notes.failures.append(f"{chapter}: {failed}")

    async def _chapter(self, chapter: str, world: World, notes: Notes) -> None:
        if chapter == "full-mesh":
            async for outcome in full_mesh.measure(world.folder / "mesh", self.rounds):
                notes.found(outcome)
        elif chapter == "finished":
            sizes = [0, 1_000_000, *([10_000_000] if self.full else [])]
            async for outcome in finished.measure(world, self.rounds, sizes):
                notes.found(outcome)
        else:
            notes.facts.extend(await _FACTS[chapter](world))

"""How fast it is: `python -m bench` measures, prints, and writes bench/results/latest.json.

python -m bench                          # a few minutes
python -m bench --peers                  # DTM, DBOS and Temporal take turns with us
python -m bench --only steps-64 --sides unary,dtm-async --rounds 5 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.build import build
from bench.machine import describe_machine, describe_versions
from bench.peers.build import build_dtm
from bench.report import show
from bench.results import LATEST, Results, figures, ratios, write
from bench.scenarios import DTM, PEERS, SCENARIOS, Outcome, Scenario, run
from bench.world import World


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    options.add_argument("--peers", action="store_true", help="build and measure the peers too")
    options.add_argument("--only", type=_words, help=f"scenarios: {names}")
    options.add_argument("--sides", type=_words, help="sides, such as unary,dtm-async")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=2, help="of each window")
    options.add_argument("--write", type=Path, default=LATEST, help="where results go, as JSON")
    return options.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


def _chosen(options: argparse.Namespace) -> list[Scenario]:
    chosen = []
    for scenario in SCENARIOS:
        if options.only and scenario.name not in options.only:
            continue
        sides = {turn.side for turn in scenario.turns}
        if options.sides:
            sides &= set(options.sides)
        elif not options.peers:
            sides -= set(PEERS)
        chosen.append(_lasting(scenario.of(sides), options.seconds))
    return chosen


def _lasting(scenario: Scenario, seconds: float) -> Scenario:
    turns = [replace(turn, load=replace(turn.load, window_s=seconds)) for turn in scenario.turns]
    return replace(scenario, turns=turns)


async def _measure(scenarios: Sequence[Scenario], rounds: int, console: Console) -> Results:
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with World(Path(folder)) as world:
            with _progress(console) as progress:
                task = progress.add_task("", total=rounds * sum(len(s.turns) for s in scenarios))
                for _, alike in itertools.groupby(scenarios, lambda each: each.jitter_ms):
                    async for outcome in run(world, list(alike), rounds):
                        outcomes.append(outcome)
                        progress.update(task, advance=1, description=_said(outcome))
                        if not console.is_terminal:
                            console.print(_said(outcome), highlight=False)
            found = figures(outcomes)
            return Results(
                taken=datetime.now(UTC).isoformat(timespec="seconds"),
                machine=describe_machine(Path(folder)),
                versions=await describe_versions(world.postgres.dsn()),
                titles={scenario.name: scenario.title for scenario in scenarios},
                figures=found,
                facts=[],
                ratios=ratios(found),
                left_out=[],
            )


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _said(outcome: Outcome) -> str:
    rate = outcome.window.report.per_second
    return f"{outcome.scenario} {outcome.side} at {outcome.in_flight}: {rate:,.0f} sagas/s"


def main() -> None:
    """Measure what is asked for."""
    options, console = _options(), Console()
    scenarios = _chosen(options)
    build()
    if {turn.side for scenario in scenarios for turn in scenario.turns}.intersection(DTM):
        build_dtm()
    results = asyncio.run(_measure(scenarios, options.rounds, console))
    write(results, options.write)
    show(results, console)


if __name__ == "__main__":
    main()

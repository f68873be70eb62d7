"""How fast it is: `python -m bench` measures, prints, and writes bench/results/latest.json.

python -m bench                          # some minutes
python -m bench --peers                  # DTM, DBOS and Temporal take turns with us
python -m bench --only steps-64 --sides unary,dtm-async --rounds 5 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from bench.build import build
from bench.chapters import CHAPTERS, FULL, Notes, Plan
from bench.chart import draw
from bench.machine import describe_machine, describe_versions
from bench.peers.build import build_dtm, build_python, build_temporal
from bench.report import show
from bench.results import LATEST, Results, figures, ratios, write
from bench.scenarios import DTM, PEERS, SCENARIOS, Scenario
from bench.world import World


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join([*(scenario.name for scenario in SCENARIOS), *CHAPTERS])
    options.add_argument("--peers", action="store_true", help="build and measure the peers too")
    options.add_argument("--full", action="store_true", help="with 10 M finished sagas")
    options.add_argument("--only", type=_words, help=f"some of: {names}")
    options.add_argument("--sides", type=_words, help="sides, such as unary,dtm-async")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=2, help="of each window")
    options.add_argument("--write", type=Path, default=LATEST, help="where results go, as JSON")
    return options.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


def _plan(options: argparse.Namespace) -> Plan:
    wanted = options.only or [*(scenario.name for scenario in SCENARIOS), *CHAPTERS]
    return Plan(
        scenarios=[_chosen(each, options) for each in SCENARIOS if each.name in wanted],
        chapters=[name for name in CHAPTERS if name in wanted],
        rounds=options.rounds,
        full=options.full,
    )


def _chosen(scenario: Scenario, options: argparse.Namespace) -> Scenario:
    sides = {turn.side for turn in scenario.turns}
    if options.sides:
        sides &= set(options.sides)
    elif not options.peers:
        sides -= set(PEERS)
    turns = [
        replace(turn, load=replace(turn.load, window_s=options.seconds))
        for turn in scenario.turns
        if turn.side in sides
    ]
    return replace(scenario, turns=turns)


def _build(sides: Collection[str]) -> None:
    build()
    if not set(DTM).isdisjoint(sides):
        build_dtm()
    if "temporal" in sides:
        build_temporal()
    if not {"dbos", "temporal"}.isdisjoint(sides):
        build_python()


async def _measure(plan: Plan, console: Console) -> Results:
    notes = Notes(console)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, notes.progress:
        async with World(Path(folder)) as world:
            await plan.run(world, notes)
            versions = await describe_versions(world.postgres.dsn())
        machine = describe_machine(Path(folder))
    found = figures(notes.outcomes)
    return Results(
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine,
        versions=versions,
        titles=plan.titles,
        figures=found,
        facts=notes.facts,
        ratios=ratios(found),
        failures=notes.failures,
        left_out=[] if plan.full else [FULL],
    )


def main() -> None:
    """Measure what is asked for."""
    options, console = _options(), Console()
    plan = _plan(options)
    _build({turn.side for scenario in plan.scenarios for turn in scenario.turns})
    results = asyncio.run(_measure(plan, console))
    write(results, options.write)
    draw(results, options.write.with_suffix(".svg"))
    show(results, console)
    if results.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()

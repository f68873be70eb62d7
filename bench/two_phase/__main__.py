"""Sagas beside two-phase commit: `python -m bench.two_phase`; needs nothing but this repository.

The same order over two PostgreSQL servers: a row in the one, stock taken in the other. Measured are
throughput, both ways taking turns, and what a coordinator leaves behind that is killed in the
middle. Prints tables and writes bench/results/two_phase.json; docs/two-phase-commit.md is about it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.machine import describe_machine, describe_versions
from bench.two_phase.crash import SagaCrash, TwoPhaseCrash, crash_saga, crash_two_phase
from bench.two_phase.load import Throughput, measure
from bench.two_phase.orders import PRODUCTS, customers
from bench.two_phase.prepared import TwoPhaseCommit
from bench.two_phase.world import SagaCaller, Sagas, World

RESULTS = Path(__file__).parents[1] / "results" / "two_phase.json"

_SCENARIOS = ((1, PRODUCTS), (16, PRODUCTS), (64, PRODUCTS), (64, 1))
"""Orders in flight, and of how many products."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Both ways under one load; a value for each round."""

    in_flight: int
    products: int
    two_phase: Sequence[Throughput]
    saga: Sequence[Throughput]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All of one run."""

    taken: str
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    scenarios: Sequence[Scenario]
    two_phase_crash: TwoPhaseCrash
    saga_crash: SagaCrash


async def _scenario(
    world: World, sagas: Sagas, load: tuple[int, int], options: argparse.Namespace
) -> Scenario:
    in_flight, products = load
    address = sagas.coordinators[0].address
    two_phase, saga = [], []
    for _ in range(options.rounds):
        prepared = [TwoPhaseCommit(world.two_phase) for _ in range(in_flight)]
        two_phase.append(await measure(prepared, customers(products), options.seconds))
        callers = [SagaCaller(address) for _ in range(in_flight)]
        saga.append(await measure(callers, customers(products), options.seconds))
    return Scenario(in_flight=in_flight, products=products, two_phase=two_phase, saga=saga)


async def _run(folder: Path, options: argparse.Namespace) -> Results:
    async with World(folder) as world:
        async with Sagas(world) as sagas:
            scenarios = [await _scenario(world, sagas, load, options) for load in _SCENARIOS]
            saga_crash = await crash_saga(world, sagas)
        return Results(
            taken=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=describe_machine(folder),
            versions=await describe_versions(world.two_phase.log),
            scenarios=scenarios,
            two_phase_crash=await crash_two_phase(world),
            saga_crash=saga_crash,
        )


def _show(results: Results, console: Console) -> None:
    table = Table(title="orders over two databases", title_justify="left", box=SIMPLE_HEAD)
    for name in ("in flight", "products", "way", "orders/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for scenario in results.scenarios:
        for way, rounds in (("2PC", scenario.two_phase), ("saga", scenario.saga)):
            cells = (_median(rounds, name) for name in ("per_second", "p50_ms", "p99_ms"))
            table.add_row(f"{scenario.in_flight}", f"{scenario.products:,}", way, *cells)
    console.print(table)
    _show_crash("2PC: its coordinator is killed", results.two_phase_crash, console)
    _show_crash("saga: its coordinator is killed", results.saga_crash, console)


def _median(rounds: Sequence[Throughput], name: str) -> str:
    value = statistics.median(getattr(each, name) for each in rounds)
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _show_crash(title: str, crash: TwoPhaseCrash | SagaCrash, console: Console) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_header=False)
    for name, value in msgspec.structs.asdict(crash).items():
        shown = f"{value.per_second:,.0f}/s" if isinstance(value, Throughput) else f"{value:,.4g}"
        table.add_row(name.replace("_", " "), shown)
    console.print(table)


def main() -> None:
    """Measure, print and write."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--seconds", type=float, default=3, help="of each window")
    flags.add_argument("--write", type=Path, default=RESULTS, help="where results go, as JSON")
    options = flags.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        results = asyncio.run(_run(Path(folder), options))
    _show(results, Console())
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")


if __name__ == "__main__":
    main()

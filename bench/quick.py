"""The guard against getting slower: `python -m bench.quick`, in less than a minute.

Machines differ, and what else they do differs from minute to minute. So a coordinator is compared
with the *floor*, the same calls without any coordinator, in five rounds of windows side by side:

    cpu    the coordinator's CPU time for a saga / that of both ends of the floor for its calls; the
           least of each, for what comes in between only ever adds to it
    rate   sagas a second / sagas a second of the floor, the median of the rounds; not judged while
           other programs keep more than half a core busy

Each is held against bench/baseline.json. When one is worse by more than a quarter, five more rounds
are run before that is believed. `--accept` makes what was measured the baseline of later changes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.build import build
from bench.load import Load
from bench.report import LABELS, sparkline
from bench.scenarios import Outcome, Scenario, Turn, run
from bench.window import LoadFailed, Window
from bench.world import World

BASELINE = Path(__file__).parent / "baseline.json"
TOLERANCE = 1.25
_BUSY = 0.5
_ROUNDS = 5
_SIDES = ("unary", "stream")
_LOAD = Load(in_flight=64, warm_s=0.4, window_s=1)


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """A coordinator to the floor."""

    value: float
    rounds: list[float]
    judged: bool = True


Ratios = Mapping[str, Ratio]
"""By names such as `unary cpu`."""


def scenario() -> Scenario:
    """Each of ours beside the floor."""
    turns = [Turn(side=side, load=_LOAD) for side in ("floor", *_SIDES)]
    return Scenario(name="guard", title="the guard", turns=turns)


def ratios(outcomes: list[Outcome]) -> Ratios:
    """What the rounds came to, from windows in the order of the turns."""
    windows: dict[str, list[Window]] = {}
    for outcome in outcomes:
        windows.setdefault(outcome.side, []).append(outcome.window)
    busy = statistics.median(outcome.window.foreign_cores for outcome in outcomes)
    found: dict[str, Ratio] = {}
    for side in _SIDES:
        found[f"{side} cpu"] = _cpu(windows[side], windows["floor"])
        found[f"{side} rate"] = _rate(windows[side], windows["floor"], judged=busy <= _BUSY)
    return found


def _cpu(ours: list[Window], floor: list[Window]) -> Ratio:
    least = min(sum(window.cpu_us.values()) for window in floor)
    rounds = [window.cpu_us["coordinator"] / least for window in ours]
    return Ratio(value=min(rounds), rounds=rounds)


def _rate(ours: list[Window], floor: list[Window], *, judged: bool) -> Ratio:
    pairs = zip(ours, floor, strict=True)
    rounds = [mine.report.per_second / other.report.per_second for mine, other in pairs]
    return Ratio(value=statistics.median(rounds), rounds=rounds, judged=judged)


def worsening(name: str, now: float, before: float) -> float:
    """How many times worse it has become; below 1 it is better."""
    return now / before if name.endswith("cpu") else before / now


def regressions(found: Ratios, baseline: Mapping[str, float]) -> list[str]:
    """Names of what is worse than allowed."""
    return [
        name
        for name, before in baseline.items()
        if found[name].judged and worsening(name, found[name].value, before) > TOLERANCE
    ]


async def _measure(baseline: Mapping[str, float]) -> Ratios:
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with World(Path(folder)) as world:
            for _ in range(2):  # once more, should the first time look bad
                outcomes += [
                    outcome async for outcome in run(world, [scenario()], _ROUNDS, _give_up)
                ]
                if not regressions(ratios(outcomes), baseline):
                    break
    return ratios(outcomes)


def _give_up(words: str) -> NoReturn:
    raise LoadFailed(words)


def _show(found: Ratios, baseline: Mapping[str, float], console: Console) -> None:
    table = Table("ratio to the floor", "now", "baseline", "change", "rounds")
    for name, now in found.items():
        side, _, what = name.partition(" ")
        before = baseline.get(name)
        was = "" if before is None else f"{before:.3f}"
        change = Text("new") if before is None else _change(name, now, before)
        label = f"{LABELS[side]}: {what}"
        table.add_row(label, f"{now.value:.3f}", was, change, sparkline(now.rounds))
    console.print(table)


def _change(name: str, now: Ratio, before: float) -> Text:
    worse = worsening(name, now.value, before) - 1
    words = f"{worse:.0%} worse" if worse > 0 else f"{-worse:.0%} better"
    if not now.judged:
        return Text(f"{words}, not judged: others were busy", "dim")
    return Text(words, "bold red" if worse > TOLERANCE - 1 else "green")


def _accept(found: Ratios) -> None:
    values = {name: round(ratio.value, 4) for name, ratio in found.items()}
    BASELINE.write_bytes(msgspec.json.format(msgspec.json.encode(values), indent=1) + b"\n")


def main() -> None:
    """Measure, compare, and say so by the exit code: 1 when it has become slower."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--accept", action="store_true", help="make this the new baseline")
    accept, console = options.parse_args().accept, Console()
    build()
    there = BASELINE.exists() and not accept
    baseline = msgspec.json.decode(BASELINE.read_bytes(), type=dict[str, float]) if there else {}
    found = asyncio.run(_measure(baseline))
    _show(found, baseline, console)
    if accept:
        _accept(found)
        console.print(f"accepted: commit bench/{BASELINE.name}")
    elif slower := regressions(found, baseline):
        console.print(
            f"slower than bench/{BASELINE.name} by more than {TOLERANCE - 1:.0%}:"
            f" {', '.join(slower)}; if that is meant, `make bench-accept` and commit it"
        )
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Shows results, by default the latest: `python -m bench.report [--markdown] [FILE]`."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.results import LATEST, Figure, Results, read

LABELS = {
    "unary": "unary, StartSaga",
    "unary-startsagas": "unary, StartSagas",
    "stream-startsaga": "streams, StartSaga",
    "stream": "streams, StartSagas",
    "stream-workers": "streams, StartSagas, two workers",
    "floor": "no coordinator",
    "dtm-async": "DTM, asynchronous",
    "dtm-sync": "DTM, synchronous",
    "dbos": "DBOS",
    "temporal": "Temporal dev server",
}
_BUSY = 0.25
"""Cores that others kept busy from which on figures are doubtful."""
_SPARKS = "▁▂▃▄▅▆▇█"


def show(results: Results, console: Console) -> None:
    """Every scenario as a table, then what else was measured, and the ratios."""
    for scenario, found in by_scenario(results):
        console.print(_scenario(results.titles.get(scenario, scenario), found))
    if results.facts:
        console.print(_facts(results))
    if results.ratios:
        console.print(_ratios(results))
    for words in results.failures:
        console.print(Text(f"failed: {words}", "bold red"))
    for words in (*_doubts(results), *(f"left out: {what}" for what in results.left_out)):
        console.print(Text(words, "yellow"))


def by_scenario(results: Results) -> Iterable[tuple[str, list[Figure]]]:
    """Figures by the name of their scenario, in their order."""
    for scenario, found in itertools.groupby(results.figures, lambda figure: figure.scenario):
        yield scenario, list(found)


def _scenario(title: str, found: Sequence[Figure]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("side", no_wrap=True)
    for name in ("sagas/s", "rounds", "p50 ms", "p99 ms", "CPU µs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", max_width=30)
    most = max(figure.per_second for figure in found)
    for figure in found:
        table.add_row(*_row(figure), Bar(most, 0, figure.per_second, color=_colour(figure.side)))
    return table


def _row(figure: Figure) -> Iterable[Text]:
    values = [window.report.per_second for window in figure.windows]
    style = _colour(figure.side)
    yield Text(LABELS.get(figure.side, figure.side), style)
    yield Text(f"{figure.per_second:,.0f}", "bold")
    yield Text(sparkline(values), style)
    yield Text(f"{figure.p50_ms:,.1f}")
    yield Text(f"{figure.p99_ms:,.1f}")
    coordinator = figure.cpu_us.get("coordinator")
    yield Text("" if coordinator is None else f"{coordinator:,.0f}")


def _colour(side: str) -> str:
    if side == "floor":
        return "bright_black"
    return "blue" if side.startswith(("dtm", "dbos", "temporal")) else "green"


def sparkline(values: Sequence[float]) -> str:
    """One bar for each value, from none to the highest."""
    most = max(values) or 1
    return "".join(_SPARKS[round(value / most * (len(_SPARKS) - 1))] for value in values)


def _facts(results: Results) -> Table:
    table = Table("also measured", box=SIMPLE_HEAD)
    table.add_column("median", justify="right")
    table.add_column("all")
    for fact in results.facts:
        values = " ".join(f"{value:,.4g}" for value in fact.values)
        table.add_row(fact.title, f"{fact.median:,.4g} {fact.unit}", values)
    return table


def _ratios(results: Results) -> Table:
    table = Table("ratio", box=SIMPLE_HEAD)
    table.add_column("", justify="right")
    for name, value in results.ratios.items():
        table.add_row(name, Text(f"{value:,.2f}x", "bold green" if value >= 1 else ""))
    return table


def _doubts(results: Results) -> Iterable[str]:
    busy = [figure for figure in results.figures if figure.foreign_cores > _BUSY]
    if busy:
        most = max(figure.foreign_cores for figure in busy)
        yield (
            f"doubtful: other programs took up to {most:.1f} cores during {len(busy)} of"
            f" {len(results.figures)} measurements"
        )


def markdown(results: Results) -> str:
    """The same as tables for a document."""
    lines = [_taken(results)]
    for scenario, found in by_scenario(results):
        lines += ["", f"**{results.titles.get(scenario, scenario)}**", "", _HEAD, _RULE]
        lines += [_line(figure) for figure in found]
    if results.facts:
        lines += ["", "| also measured | median | all |", "| --- | ---: | --- |"]
        lines += [
            f"| {fact.title} | {fact.median:,.4g} {fact.unit} |"
            f" {', '.join(f'{value:,.4g}' for value in fact.values)} |"
            for fact in results.facts
        ]
    if results.ratios:
        lines += ["", "| ratio | |", "| --- | ---: |"]
        lines += [f"| `{name}` | {value:,.2f} |" for name, value in results.ratios.items()]
    return "\n".join([*lines, ""])


_HEAD = "| side | in flight | sagas/s | rounds | p50 ms | p99 ms | coordinator's CPU, µs |"
_RULE = "| --- | ---: | ---: | --- | ---: | ---: | ---: |"


def _line(figure: Figure) -> str:
    rounds = ", ".join(f"{window.report.per_second:,.0f}" for window in figure.windows)
    cells = [
        LABELS.get(figure.side, figure.side),
        f"{figure.in_flight:,}",
        f"**{figure.per_second:,.0f}**",
        rounds,
        f"{figure.p50_ms:,.1f}",
        f"{figure.p99_ms:,.1f}",
        f"{figure.cpu_us.get('coordinator', 0):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _taken(results: Results) -> str:
    machine, versions = results.machine, results.versions
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, a sync"
        f" takes {machine['sync_us']} µs; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


def main() -> None:
    """Show the results in a file."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", nargs="?", type=Path, default=LATEST)
    options.add_argument("--markdown", action="store_true", help="as tables for a document")
    chosen = options.parse_args()
    results = read(chosen.file)
    if chosen.markdown:
        print(markdown(results))  # noqa: T201 - this is what it is for
    else:
        show(results, Console())


if __name__ == "__main__":
    main()

"""What a run has found: every window, medians, ratios; kept as bench/results/latest.json.

A ratio of two sides is the median of the ratios of their rounds: windows that lay beside each other
met the same machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench.scenarios import Outcome
from bench.window import Window

LATEST = Path(__file__).parent / "results" / "latest.json"

_RATIOS = {
    "jitter_vs_dtm_async": ("jitter-256 stream", "jitter-256 dtm-async"),
    "jitter_startsaga_vs_dtm_async": ("jitter-256 stream-startsaga", "jitter-256 dtm-async"),
    "unary_vs_dtm_async": ("steps-64 unary", "steps-64 dtm-async"),
    "unary_vs_dtm_sync": ("steps-64 unary", "steps-64 dtm-sync"),
    "unary_startsagas_vs_dtm_async": ("steps-64 unary-startsagas", "steps-64 dtm-async"),
    "stream_startsaga_vs_dtm_async": ("steps-64 stream-startsaga", "steps-64 dtm-async"),
    "stream_vs_dtm_async": ("steps-64 stream", "steps-64 dtm-async"),
    "stream_1024_vs_dtm_async": ("steps-1024 stream", "steps-1024 dtm-async"),
    "stream_1024_workers_vs_dtm_async": ("steps-1024 stream-workers", "steps-1024 dtm-async"),
    "compensation_vs_dtm_async": ("compensation-64 stream", "compensation-64 dtm-async"),
    "vs_temporal": ("engines-64 unary", "engines-64 temporal"),
    "vs_dbos": ("engines-64 unary", "engines-64 dbos"),
    "floor": ("steps-64 unary", "steps-64 floor"),
    "stream_floor": ("steps-64 stream", "steps-64 floor"),
    "finished_1m": ("finished 1m", "finished none"),
    "finished_10m": ("finished 10m", "finished none"),
}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One side of one scenario: medians over its rounds, and every window."""

    scenario: str
    side: str
    in_flight: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: Mapping[str, float]
    """CPU time for each saga, by process."""
    foreign_cores: float
    """The most that others kept busy in any window."""
    windows: Sequence[Window]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of another kind, such as memory for each saga; the median of its values."""

    name: str
    title: str
    unit: str
    values: Sequence[float]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.values)


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All of one run."""

    taken: str
    """When, in UTC."""
    machine: Mapping[str, str | int | float]
    versions: Mapping[str, str]
    titles: Mapping[str, str]
    """What each scenario is, in words."""
    figures: Sequence[Figure]
    facts: Sequence[Fact]
    ratios: Mapping[str, float]
    failures: Sequence[str]
    """What could not be measured, for sagas did not do what they were meant to."""
    left_out: Sequence[str]
    """What was not measured, and how to have it measured."""


def figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """Medians of the windows of each side, in the order in which they took their turns."""
    windows: dict[tuple[str, str, int], list[Window]] = {}
    for outcome in outcomes:
        key = (outcome.scenario, outcome.side, outcome.in_flight)
        windows.setdefault(key, []).append(outcome.window)
    return [_figure(*key, found) for key, found in windows.items()]


def _figure(scenario: str, side: str, in_flight: int, windows: Sequence[Window]) -> Figure:
    reports = [window.report for window in windows]
    return Figure(
        scenario=scenario,
        side=side,
        in_flight=in_flight,
        per_second=statistics.median(report.per_second for report in reports),
        p50_ms=statistics.median(report.p50_ms for report in reports),
        p99_ms=statistics.median(report.p99_ms for report in reports),
        cpu_us={
            name: statistics.median(window.cpu_us[name] for window in windows)
            for name in windows[0].cpu_us
        },
        foreign_cores=max(window.foreign_cores for window in windows),
        windows=windows,
    )


def ratios(found: Sequence[Figure]) -> dict[str, float]:
    """Those of whose sides there are figures."""
    by_name = {f"{figure.scenario} {figure.side}": figure for figure in found}
    return {
        name: round(_ratio(by_name[ours], by_name[theirs]), 3)
        for name, (ours, theirs) in _RATIOS.items()
        if ours in by_name and theirs in by_name
    }


def _ratio(ours: Figure, theirs: Figure) -> float:
    rounds = zip(ours.windows, theirs.windows, strict=False)  # a side that failed has fewer
    return statistics.median(
        mine.report.per_second / other.report.per_second for mine, other in rounds
    )


def write(results: Results, path: Path) -> None:
    """Write it as JSON, to be read by people too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(path: Path) -> Results:
    """Read what was written."""
    return msgspec.json.decode(path.read_bytes(), type=Results)

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chart import draw
from bench.report import markdown, sparkline
from bench.results import Fact, Results, figures, ratios, read, write
from bench.scenarios import Outcome
from bench.window import Report, Window


def window(per_second: float, *, cpu_us: float = 100) -> Window:
    report = Report(
        seconds=1,
        count=int(per_second),
        per_second=per_second,
        p50_ms=1,
        p99_ms=2,
        finished=int(per_second),
        wrong=0,
        cpu_s=0.5,
    )
    return Window(report=report, cpu_us={"coordinator": cpu_us}, foreign_cores=0)


def outcomes(side: str, *rates: float, scenario: str = "steps-64") -> list[Outcome]:
    return [
        Outcome(scenario=scenario, side=side, in_flight=64, window=window(rate)) for rate in rates
    ]


def results(found: list[Outcome]) -> Results:
    return Results(
        taken="2030-01-01T00:00:00+00:00",
        machine={"processor": "any", "cores": 2, "memory_gib": 4.0, "sync_us": 100},
        versions={"python": "3.11"},
        titles={"steps-64": "four <steps>"},
        figures=figures(found),
        facts=[Fact(name="memory", title="memory of a saga", unit="KiB", values=[3.0, 2.0, 4.0])],
        ratios=ratios(figures(found)),
        failures=[],
        left_out=[],
    )


def test_a_figure_is_the_median_of_its_rounds_and_keeps_all_of_them() -> None:
    (figure,) = figures(outcomes("unary", 100, 900, 300))

    assert figure.per_second == 300
    assert [each.report.per_second for each in figure.windows] == [100, 900, 300]


def test_a_ratio_compares_windows_that_lay_beside_each_other() -> None:
    # The machine was slow in one round, for both: the ratio of medians would be 300 / 100.
    found = figures([*outcomes("unary", 20, 300, 400), *outcomes("dtm-async", 10, 100, 200)])

    assert ratios(found) == {"unary_vs_dtm_async": 2.0}


def test_a_ratio_to_a_peer_that_was_not_measured_is_left_out() -> None:
    assert ratios(figures(outcomes("unary", 1, 2, 3))) == {}


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    taken = results(outcomes("unary", 1, 2, 3))

    write(taken, tmp_path / "deep" / "latest.json")

    assert read(tmp_path / "deep" / "latest.json") == taken


def test_a_document_tells_every_round_and_every_fact() -> None:
    text = markdown(results(outcomes("unary", 1_000, 2_000, 3_000)))

    assert "| unary, StartSaga | 64 | **2,000** | 1,000, 2,000, 3,000 |" in text
    assert "| memory of a saga | 3 KiB | 3, 2, 4 |" in text


def test_the_chart_names_every_side(tmp_path: Path) -> None:
    found = [*outcomes("unary", 1, 2, 3), *outcomes("floor", 10, 20, 30)]

    draw(results(found), tmp_path / "latest.svg")

    drawn = (tmp_path / "latest.svg").read_text()
    assert ">unary, StartSaga<" in drawn
    assert ">no coordinator<" in drawn
    assert "four &lt;steps&gt;" in drawn


@pytest.mark.parametrize(("values", "bars"), [([1, 2, 4], "▃▅█"), ([0, 0], "▁▁"), ([5], "█")])
def test_a_sparkline_has_a_bar_for_each_round(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars

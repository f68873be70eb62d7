from __future__ import annotations

import pytest

from bench.quick import Ratio, ratios, regressions
from bench.scenarios import Outcome
from bench.window import Report, Window

BASELINE = {"unary cpu": 4.0, "unary rate": 0.2}


def ratio(value: float, *, judged: bool = True) -> Ratio:
    return Ratio(value=value, rounds=[value], judged=judged)


@pytest.mark.parametrize(
    ("cpu", "rate", "worse"),
    [
        (4.0, 0.2, []),
        (4.9, 0.165, []),
        (5.1, 0.2, ["unary cpu"]),
        (4.0, 0.15, ["unary rate"]),
        (1.0, 0.9, []),
    ],
)
def test_a_quarter_worse_is_a_regression_and_any_better_is_none(
    cpu: float, rate: float, worse: list[str]
) -> None:
    assert regressions({"unary cpu": ratio(cpu), "unary rate": ratio(rate)}, BASELINE) == worse


def test_rates_of_a_busy_machine_are_not_judged() -> None:
    found = {"unary cpu": ratio(4.0), "unary rate": ratio(0.01, judged=False)}

    assert regressions(found, BASELINE) == []


def outcome(side: str, rate: float, cpu_us: dict[str, float], foreign: float) -> Outcome:
    report = Report(
        seconds=1,
        count=1,
        per_second=rate,
        p50_ms=1,
        p99_ms=1,
        finished=1,
        wrong=0,
        cpu_s=0,
    )
    window = Window(report=report, cpu_us=cpu_us, foreign_cores=foreign)
    return Outcome(scenario="guard", side=side, in_flight=64, window=window)


def measured(foreign: float) -> list[Outcome]:
    found = []
    for round_ in (1, 2, 3):
        found.append(
            outcome("floor", 1_000 * round_, {"participant": 50, "load": 50 * round_}, foreign)
        )
        found += [
            outcome(side, 100 * round_, {"coordinator": 200 + round_}, foreign)
            for side in ("unary", "stream")
        ]
    return found


def test_cpu_time_is_the_least_of_the_rounds_and_the_rate_is_their_median() -> None:
    found = ratios(measured(foreign=0.1))

    assert found["unary cpu"].value == pytest.approx(2.01)
    assert found["unary rate"].value == pytest.approx(0.1)
    assert found["unary rate"].judged


def test_what_others_took_decides_whether_rates_are_judged() -> None:
    assert not ratios(measured(foreign=1.2))["stream rate"].judged

"""The report's figures are what they say."""

from __future__ import annotations

import pytest

from tests.chaos.figures import percentile, report
from tests.chaos.records import History, Record, Recovery, Run
from tests.chaos.schedule import Fault, FaultKind

RUN = Run(seed=1, seconds=60, rate=5, stock={})


def recovery(at: float, seconds: float) -> Recovery:
    return Recovery(kind="KILL", coordinator="coordinator", saga_id="s", at=at, seconds=seconds)


def fault(target: str, at: float, until: float) -> Fault:
    return Fault(kind=FaultKind.PAUSE, target=target, at=at, until=until)


def told(*records: Record) -> str:
    return next(line for line in report(History((RUN, *records))) if line.startswith("recovery"))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_a_percentile_is_the_value_that_so_many_are_not_above(
    share: float, expected: float
) -> None:
    assert percentile([4, 1, 3, 2], share) == expected


@pytest.mark.parametrize(
    ("hindrance", "unhindered"),
    [
        (fault("postgres", 12, 13), "none"),
        (fault("coordinator-2", 9, 11), "none"),
        (fault("coordinator-2>postgres", 5, 8), "none"),  # a process may still be starting
        (fault("coordinator", 10, 13), "1 sagas, p50 3.00 s"),  # its own fall
        (fault("payment", 10, 13), "1 sagas, p50 3.00 s"),
        (fault("coordinator-2>payment", 10, 13), "1 sagas, p50 3.00 s"),
        (fault("postgres", 14, 15), "1 sagas, p50 3.00 s"),
        (fault("postgres", 1, 4), "1 sagas, p50 3.00 s"),
    ],
)
def test_a_recovery_counts_as_unhindered_when_nothing_else_it_needs_was_in_trouble(
    hindrance: Fault, unhindered: str
) -> None:
    line = told(recovery(10, 3), hindrance)
    assert "1 sagas, p50 3.00 s" in line
    assert f"well: {unhindered}" in line


def test_a_run_in_which_no_coordinator_fell_has_no_time_of_recovery() -> None:
    assert told() == "recovery  none; with PostgreSQL and the other coordinator well: none"

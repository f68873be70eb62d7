from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from tests.unit.cli.coordinator import StandIn, serving

Saga = Callable[..., Result]


@pytest.fixture
def coordinator() -> Iterator[StandIn]:
    with serving(StandIn()) as coordinator:
        yield coordinator


@pytest.fixture
def saga(coordinator: StandIn) -> Saga:
    """Runs the command: `saga("get", "demo-1")`."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        runner = CliRunner(env={"SAGA_ADDRESS": coordinator.address, "SAGA_ACTOR": "ada"})
        return runner.invoke(app, arguments, input=stdin, catch_exceptions=False)

    return run

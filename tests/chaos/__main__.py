"""`python -m tests.chaos`: shake a mesh for some minutes and check every promise; `make chaos`.

With --check FOLDER, the history of an earlier run is checked again, without any mesh.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.chaos.figures import report
from tests.chaos.invariants import violations
from tests.chaos.records import History, load, save
from tests.chaos.run import first_run, perform
from tests.chaos.screen import Screen

app = typer.Typer(add_completion=False)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(help="how long faults happen")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="of faults and orders; by chance")] = None,
    rate: Annotated[float, typer.Option(help="orders a second")] = 5.0,
    check: Annotated[Path | None, typer.Option(help="only check this folder's history")] = None,
) -> None:
    """Orders and faults for some minutes, then every promise checked in the databases."""
    console = Console(highlight=False, soft_wrap=True)
    history = load(check) if check else _perform(console, minutes, seed, rate)
    for line in report(history):
        console.print(line, markup=False)
    if violations(history):
        raise typer.Exit(1)


def _perform(console: Console, minutes: float, seed: int | None, rate: float) -> History:
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix=f"saga-chaos-{seed}-"))
    console.print(f"seed {seed}; history, data and logs in {folder}")
    run = first_run(seed=seed, seconds=60 * minutes, rate=rate)
    with Screen(console) as screen:
        history = asyncio.run(perform(run, folder, screen.watch))
    save(folder, history)
    return history


if __name__ == "__main__":
    sys.exit(app())

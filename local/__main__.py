"""`python -m local up` and `python -m local demo`: what `make up` and `make demo` run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from local import demo as play
from local import up as stay
from local.folder import FolderTaken
from local.ports import PortTaken
from local.processes import StartFailed
from local.screen import Screen

T = TypeVar("T")

app = typer.Typer(
    help="The whole mesh on this machine.", no_args_is_help=True, add_completion=False
)


@app.command()
def up(
    data: Path = Path("data"), coordinators: Annotated[int, typer.Option(min=1, max=9)] = 1
) -> None:
    """Start the mesh and stay until Ctrl-C; data stays in its folder."""
    _run(stay.up(data, Screen(Console()), coordinators=coordinators))


@app.command()
def demo() -> None:
    """Place five orders and check in the databases what became of each."""
    if not _run(play.demo(Screen(Console()))):
        raise typer.Exit(1)


def _run(work: Coroutine[object, object, T]) -> T:
    """Run to the end, or until a signal; what was started is stopped either way."""
    try:
        return asyncio.run(_until_signal(work))
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
    except (FolderTaken, PortTaken, StartFailed) as failed:
        Console(stderr=True).print(failed, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


async def _until_signal(work: Coroutine[object, object, T]) -> T:
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


if __name__ == "__main__":
    app()

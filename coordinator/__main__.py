"""`python -m coordinator [--workers N]`: run one coordinator, or several behind one port.

`--help` lists its environment variables; `--workers N` is short for one of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from structlog.contextvars import bind_contextvars

from coordinator.settings import Settings
from coordinator.workers import drain_without_parent, supervise
from mesh.settings import run


async def coordinate(settings: Settings) -> None:
    """Be what the settings say: one coordinator, several, or one of several."""
    if settings.workers > 1:
        await supervise(settings)
        return
    if settings.worker:
        bind_contextvars(worker=settings.instance_id)  # all of them write to one stderr
        drain_without_parent()
    from coordinator.app import main  # noqa: PLC0415 - whoever only supervises does without 60 MB

    await main(settings)


def _others(arguments: Sequence[str]) -> Sequence[str]:
    """Take `--workers N` as its environment variable; what is left is asked of `run`."""
    match arguments:
        case ["--workers", number]:
            os.environ["WORKERS"] = number
            return ()
    return arguments


if __name__ == "__main__":
    run(Settings, coordinate, service="coordinator", arguments=_others(sys.argv[1:]))

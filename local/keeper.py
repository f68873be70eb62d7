"""Starts again what has ended, as the supervisor of a container would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from local.processes import Process, StartFailed

_LOOK_SECONDS = 0.2
_PAUSE_SECONDS = 10.0
"""Long enough to look at what the others do meanwhile."""


async def keep(
    process: Process,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Keep a process running until cancelled, and say when it ends and when it is back."""
    while True:
        while process.pid is not None:
            await sleep(_LOOK_SECONDS)
        say(f"{process.name} has ended, and is started again in {_PAUSE_SECONDS:g} s")
        await sleep(_PAUSE_SECONDS)
        try:
            await process.start()
        except StartFailed as failed:
            say(str(failed))
        else:
            say(f"{process.name} is back, process {process.pid}")

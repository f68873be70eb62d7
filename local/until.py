"""Waiting for something outside this process that cannot tell us when it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2

Check = Callable[[], Awaitable[bool]]


async def until(check: Check, *, seconds: float) -> bool:
    """Ask again and again; True once `check` answers True, False when time is up."""
    give_up, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while not await check():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return True

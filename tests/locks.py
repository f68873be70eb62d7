"""Who waits for whom in PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def waiting(engine: AsyncEngine, number: int, call: asyncio.Task[Any] | None = None) -> None:
    """Returns once so many sessions wait for a lock, or `call` is over."""
    async with engine.connect() as connection:
        while (await connection.execute(_WAITING)).scalar_one() < number:
            if call is not None and call.done():
                return
            await connection.rollback()
            await asyncio.sleep(0.005)

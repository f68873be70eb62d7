"""The moments at which a session outside any transaction is given back: what was asked is committed
or rolled back, and nothing answered yet. Those of transactions are SQLAlchemy's `checkin`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh import postgres
from mesh.sessions import at_hand


def when_given_back(tick: Callable[[], None]) -> None:
    """Call `tick` whenever a `mesh.postgres.session` has ended."""

    @asynccontextmanager
    async def ticking(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            async with at_hand(engine) as connection:
                yield connection
        finally:
            tick()

    pytest.MonkeyPatch().setattr(postgres, "at_hand", ticking)

"""The effects in a `barrier` table, of both barriers that keep their rows there.

A page follows the primary key, so that it reads its own rows and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.rules import BarrierState
from mesh.barrier.tables import barrier
from mesh.effects import Effect, EffectKey, EffectState
from mesh.postgres import transaction

STATES = {
    BarrierState.DOING: EffectState.DOING,
    BarrierState.DONE: EffectState.HELD,
    BarrierState.REJECTED: EffectState.REJECTED,
    BarrierState.COMPENSATING: EffectState.COMPENSATING,
    BarrierState.COMPENSATED: EffectState.COMPENSATED,
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_key = tuple_(barrier.c.saga_id, barrier.c.step)
_EFFECTS = select(barrier.c.saga_id, barrier.c.step, barrier.c.state, barrier.c.update_time)


class PostgresEffects:
    """`mesh.effects.Effects` in the database of `engine`, made by `mesh.postgres`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, after: EffectKey | None, limit: int) -> Sequence[Effect]:
        """See `Effects.page`."""
        statement = _EFFECTS.order_by(barrier.c.saga_id, barrier.c.step).limit(limit)
        return await self._read(statement if after is None else statement.where(_key > after))

    async def of_saga(self, saga_id: str) -> Sequence[Effect]:
        """See `Effects.of_saga`."""
        return await self._read(_EFFECTS.where(barrier.c.saga_id == saga_id))

    async def find(self, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        """See `Effects.find`."""
        return await self._read(_EFFECTS.where(_key.in_(keys)))

    async def _read(self, statement: Select[Any]) -> Sequence[Effect]:
        async with transaction(self._engine) as tx:
            rows = await tx.execute(statement)
        return [
            Effect(EffectKey(saga_id, step), STATES[BarrierState(state)], _ms(time))
            for saga_id, step, state, time in rows
        ]


def _ms(time: datetime) -> int:
    return (time - _EPOCH) // _MILLISECOND

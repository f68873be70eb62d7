"""The effects in the `barrier` collection of the MongoDB barrier. Stock decides nothing there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.cursor import AsyncCursor

from mesh.barrier.mongo import Database, database_errors, durable
from mesh.barrier.mongo_algorithm import State
from mesh.barrier.mongo_operations import BARRIER, Document
from mesh.effects import Effect, EffectKey, EffectState

STATES = {
    State.DOING: EffectState.DOING,
    State.DONE: EffectState.HELD,
    State.REJECTING: EffectState.COMPENSATING,  # something may be held that is being given back
    State.REJECTED: EffectState.REJECTED,
    State.COMPENSATING: EffectState.COMPENSATING,
    State.COMPENSATED: EffectState.COMPENSATED,
    State.SHIPPING: EffectState.HELD,
    State.SHIPPED: EffectState.HELD,
    State.SHIPPING: EffectState.HELD,  # for good
    State.SHIPPED: EffectState.HELD,
}
_SEEN = {"state": 1, "time_ms": 1}


class MongoEffects:
    """`mesh.effects.Effects` in the database of a `MongoBarrier`."""

    def __init__(self, database: Database) -> None:
        self._records = durable(database)[BARRIER]

    async def page(self, after: EffectKey | None, limit: int) -> Sequence[Effect]:
        """See `Effects.page`."""
        later = {} if after is None else {"_id": {"$gt": ":".join(after)}}
        return await _read(self._records.find(later, _SEEN).sort("_id", 1).limit(limit))

    async def of_saga(self, saga_id: str) -> Sequence[Effect]:
        """See `Effects.of_saga`."""
        own = {"_id": {"$gt": f"{saga_id}:", "$lt": f"{saga_id};"}}  # ; comes right after :
        return await _read(self._records.find(own, _SEEN))

    async def find(self, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        """See `Effects.find`."""
        return await _read(self._records.find({"_id": {"$in": list(map(":".join, keys))}}, _SEEN))


async def _read(records: AsyncCursor[dict[str, Any]]) -> Sequence[Effect]:
    with database_errors():
        return [_effect(record) async for record in records]


def _effect(record: Document) -> Effect:
    saga_id, _, step = record["_id"].partition(":")
    return Effect(EffectKey(saga_id, step), STATES[State(record["state"])], record["time_ms"])

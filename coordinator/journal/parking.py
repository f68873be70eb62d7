"""Sagas that wait long, in nobody's memory.

A parked saga has an epoch of its own, which no lease has and no claim looks at, and a time. When
that has come, the next claim gives it back (`wake_due`); so does a verb that is posted for it.

A verb must not be overlooked by parking, nor parking by the verb. So parking locks its sagas first
and looks for verbs by a second statement, while whoever posts a verb writes it first, and then
waits for such a lock before looking whether the saga is parked: one of the two sees the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ARRAY, BigInteger, Integer, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.journal.base import ClaimUnknown, JournalUnavailable, Lease, Parking
from coordinator.journal.database import transaction
from coordinator.journal.limits import check_texts

_LOCK = text("""
SELECT saga_id FROM saga.saga
WHERE saga_id = ANY (:saga_ids) AND epoch = :epoch AND finish_time IS NULL
ORDER BY saga_id FOR NO KEY UPDATE
""").bindparams(bindparam("saga_ids", type_=ARRAY(Text)))

_PARK = text("""
UPDATE saga.saga
SET epoch = -1, owner = '', claims = 0,
  wake_time = timestamptz 'epoch' + parked.until_ms * interval '1 millisecond'
FROM unnest(:saga_ids, :revisions, :untils) AS parked (saga_id, revision, until_ms)
WHERE saga.saga_id = parked.saga_id AND saga.saga_id = ANY (:locked)
  AND parked.revision = (
    SELECT newest.revision FROM saga.saga_event AS newest
    WHERE newest.saga_id = parked.saga_id ORDER BY newest.revision DESC LIMIT 1
  )
  AND NOT EXISTS (
    SELECT FROM saga.saga_inbox
    WHERE saga_inbox.saga_id = parked.saga_id AND decide_time IS NULL
  )
RETURNING saga.saga_id
""").bindparams(
    bindparam("saga_ids", type_=ARRAY(Text)),
    bindparam("revisions", type_=ARRAY(Integer)),
    bindparam("untils", type_=ARRAY(BigInteger)),
    bindparam("locked", type_=ARRAY(Text)),
)

_DUE = text("""
SELECT saga_id FROM saga.saga
WHERE epoch = -1 AND wake_time <= clock_timestamp()
ORDER BY wake_time, saga_id LIMIT :limit
FOR NO KEY UPDATE SKIP LOCKED
""")

_GIVE_BACK = text("""
UPDATE saga.saga SET epoch = 0, wake_time = NULL
WHERE saga_id = ANY (:saga_ids) AND epoch = -1
""").bindparams(bindparam("saga_ids", type_=ARRAY(Text)))

_AWAIT_PARKING = text("SELECT FROM saga.saga WHERE saga_id = :saga_id FOR SHARE")

_WAKE = text("""
UPDATE saga.saga SET wake_time = least(wake_time, clock_timestamp())
WHERE saga_id = :saga_id AND epoch = -1
  AND EXISTS (
    SELECT FROM saga.saga_inbox
    WHERE saga_inbox.saga_id = saga.saga_id AND decide_time IS NULL
  )
""")


async def park(engine: AsyncEngine, lease: Lease, parkings: Sequence[Parking]) -> frozenset[str]:
    """Make sagas nobody's until their time; see `Journal.park`."""
    check_texts(*(parking.saga_id for parking in parkings))
    tried = False
    try:
        async with transaction(engine) as tx:
            ids = [parking.saga_id for parking in parkings]
            locked = await tx.execute(_LOCK, {"saga_ids": ids, "epoch": lease.epoch})
            tried = True
            values = {
                "saga_ids": ids,
                "revisions": [parking.revision for parking in parkings],
                "untils": [parking.until_ms for parking in parkings],
                "locked": list(locked.scalars()),
            }
            return frozenset((await tx.execute(_PARK, values)).scalars())
    except JournalUnavailable as error:
        if tried:
            words = f"what epoch {lease.epoch} has parked is not known"
            raise ClaimUnknown(words, ()) from error
        raise


async def wake_due(tx: AsyncConnection, limit: int) -> None:
    """Give back parked sagas whose time has come. Writes nothing when there is none."""
    due = list((await tx.execute(_DUE, {"limit": limit})).scalars())
    if due:
        await tx.execute(_GIVE_BACK, {"saga_ids": due})


async def wake(tx: AsyncConnection, saga_id: str) -> None:
    """Let a saga be claimed now if it is parked and a verb waits for it."""
    await tx.execute(_AWAIT_PARKING, {"saga_id": saga_id})
    await tx.execute(_WAKE, {"saga_id": saga_id})

"""How an instance takes sagas that nobody owns, and how a saga comes to be suspected.

A claim must cost nothing while there is nothing to claim, however many sagas wait or are finished:
every instance asks each second. An epoch without a lease is dead for ever, and there are few epochs
among the unfinished sagas. So the index is skipped through from epoch to epoch, and only when a
dead one is found are sagas locked, from that part of the index alone. Until then nothing is written
or locked, so that no claim that finds nothing waits for the disk.

`claims` counts against a saga from when it is claimed until its next event (`flush`), or until its
owner acquits it. It is part of that index, so the least suspected come first. It is on disk before
a history is read: one that takes all memory kills its reader, and would do so for ever, with the
same neighbours.

Parked sagas come before all epochs in that index and are skipped as a whole; those whose time has
come are given back first, and then claimed as any others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import (
    ARRAY,
    BigInteger,
    RowMapping,
    Text,
    Update,
    bindparam,
    case,
    exists,
    func,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.core.model import SagaState
from coordinator.journal import leases, parking
from coordinator.journal.base import (
    Claimed,
    ClaimUnknown,
    Entry,
    JournalUnavailable,
    Lease,
    UnreadableHistory,
    company,
)
from coordinator.journal.codec import decode
from coordinator.journal.database import autocommit, transaction
from coordinator.journal.limits import check_page, check_texts
from coordinator.journal.sagas import COLUMNS, load_rows, stored_saga
from coordinator.journal.tables import NOBODY, instance, one_of, saga

_PASSING_OVER = bindparam("passing_over", type_=ARRAY(Text))

_DEAD_EPOCHS = text("""
WITH RECURSIVE found (epoch) AS (
  SELECT min(epoch) FROM saga.saga WHERE finish_time IS NULL AND epoch >= 0
  UNION ALL
  SELECT (
    SELECT min(later.epoch) FROM saga.saga AS later
    WHERE later.finish_time IS NULL AND later.epoch > found.epoch
  ) FROM found WHERE found.epoch IS NOT NULL
)
SELECT found.epoch, least.claims
FROM found, LATERAL (
  SELECT claims FROM saga.saga
  WHERE saga.epoch = found.epoch AND finish_time IS NULL AND saga_id <> ALL (:passing_over)
  ORDER BY claims LIMIT 1
) AS least
WHERE NOT EXISTS (SELECT FROM saga.instance WHERE instance.epoch = found.epoch)
""").bindparams(_PASSING_OVER)
"""The epochs without a lease that still own unfinished sagas, each with its least suspicion."""

_LOCK = text("""
SELECT free.saga_id
FROM unnest(:epochs) AS dead (epoch), LATERAL (
  SELECT saga_id, create_time FROM saga.saga
  WHERE saga.epoch = dead.epoch AND claims = :claims AND finish_time IS NULL
    AND saga_id <> ALL (:passing_over)
  ORDER BY create_time, saga_id LIMIT :limit
  FOR NO KEY UPDATE SKIP LOCKED
) AS free
ORDER BY free.create_time, free.saga_id LIMIT :limit
""").bindparams(_PASSING_OVER, bindparam("epochs", type_=ARRAY(BigInteger)))

_UNOWNED = ~exists().where(instance.c.epoch == saga.c.epoch)
_log = structlog.stdlib.get_logger()


async def claim(
    engine: AsyncEngine, lease: Lease, limit: int, passing_over: frozenset[str]
) -> Claimed:
    """Give a lease unfinished sagas whose own lease is not held any more; see `Journal.claim`.

    Raises:
        LeaseLost: the lease that claims is not held itself.
        ClaimUnknown: the database went away at COMMIT or later, and what the lease may own now
            would be run by nobody.
    """
    check_page(limit)
    check_texts(*passing_over)
    taken: list[RowMapping] = []
    try:
        async with transaction(engine) as tx:
            await leases.end_expired(tx)
            await parking.wake_due(tx, limit)
            dead = await tx.execute(_DEAD_EPOCHS, {"passing_over": sorted(passing_over)})
            least = {row.epoch: row.claims for row in dead}
            if not least:
                return Claimed(sagas=[])
            await leases.hold(tx, lease)
            taken = await _take(
                tx, lease, await _lock_unowned(tx, least, limit, sorted(passing_over))
            )
        return await _hand_out(engine, lease, taken)
    except JournalUnavailable as error:
        if taken:
            words = f"what epoch {lease.epoch} has claimed is not known"
            raise ClaimUnknown(words, [row["saga_id"] for row in taken]) from error
        raise


async def _hand_out(engine: AsyncEngine, lease: Lease, taken: Sequence[RowMapping]) -> Claimed:
    """Sagas that were taken, with their histories; those that cannot be read are given back."""
    to_run = [row["saga_id"] for row in taken if row["state"] != SagaState.STUCK.value]
    async with transaction(engine) as tx:
        histories = await _readable(tx, to_run)
        unreadable = frozenset(to_run) - histories.keys()
        if unreadable:
            await tx.execute(_give_back(lease, sorted(unreadable)))
    readable = [row for row in taken if row["saga_id"] not in unreadable]
    readable.sort(key=lambda row: (row["create_time"], row["saga_id"]))
    return Claimed(
        sagas=[stored_saga(row, histories.get(row["saga_id"], ())) for row in readable],
        unreadable=unreadable,
    )


def _give_back(lease: Lease, saga_ids: Sequence[str]) -> Update:
    """Take the claim back, as if it had not been made."""
    return (
        update(saga)
        .where(one_of(saga.c.saga_id, saga_ids), saga.c.epoch == lease.epoch)
        .values(owner="", epoch=NOBODY, claims=func.greatest(saga.c.claims - 1, 0))
    )


async def _lock_unowned(
    tx: AsyncConnection, least: Mapping[int, int], limit: int, passing_over: Sequence[str]
) -> Sequence[str]:
    """The ids of those to claim now, given dead epochs and the least claims in each.

    Another instance that claims meanwhile is given others.
    """
    claims = min(least.values())
    free = {
        "epochs": [epoch for epoch in least if least[epoch] == claims],
        "claims": claims,
        "passing_over": passing_over,
        "limit": company(claims, limit),
    }
    return (await tx.execute(_LOCK, free)).scalars().all()


async def _readable(tx: AsyncConnection, saga_ids: Sequence[str]) -> Mapping[str, Sequence[Entry]]:
    """The histories of those sagas that this version can read."""
    histories = {}
    for saga_id, rows in (await load_rows(tx, saga_ids)).items():
        try:
            histories[saga_id] = [decode(row) for row in rows]
        except UnreadableHistory as error:
            _log.error("journal.unreadable", saga_id=saga_id, error=str(error))
    return histories


async def _take(tx: AsyncConnection, lease: Lease, saga_ids: Sequence[str]) -> list[RowMapping]:
    """Put the lease's epoch on sagas that are locked.

    Asks again whether they are unowned: the statement that locked them did not see a lease that was
    acquired, and took some of them, since that statement began. This one does.
    """
    stuck = saga.c.state == SagaState.STUCK.value  # nobody runs it, so nobody dies of it
    taken = (
        update(saga)
        .where(one_of(saga.c.saga_id, saga_ids), _UNOWNED)
        .values(
            owner=lease.instance_id,
            epoch=lease.epoch,
            claims=case((stuck, 0), else_=saga.c.claims + 1),
        )
        .returning(*COLUMNS)
    )
    return list((await tx.execute(taken)).mappings())


_ACQUIT = text("""
UPDATE saga.saga SET claims = 0
FROM (
  SELECT saga_id FROM saga.saga
  WHERE saga_id = ANY (:saga_ids) AND epoch = :epoch AND claims > 0
  FOR NO KEY UPDATE SKIP LOCKED
) AS suspect
WHERE saga.saga_id = suspect.saga_id
""").bindparams(bindparam("saga_ids", type_=ARRAY(Text)))
"""Skips what is locked: a group commit that moves a saga acquits it by itself."""


async def acquit(engine: AsyncEngine, lease: Lease, saga_ids: Sequence[str]) -> None:
    """Count no claim against these sagas of a lease any more."""
    check_texts(*saga_ids)
    async with transaction(autocommit(engine)) as tx:
        await tx.execute(_ACQUIT, {"saga_ids": list(saga_ids), "epoch": lease.epoch})

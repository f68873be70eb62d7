"""The inbox: verbs for sagas' owners. Group commits accept them; here is the rest.

Every statement commits by itself: a process that freezes here never blocks a saga's owner.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from sqlalchemy import ColumnElement, RowMapping, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.journal import parking
from coordinator.journal.base import Lease
from coordinator.journal.codec import clean, clean_verb
from coordinator.journal.database import autocommit, transaction
from coordinator.journal.limits import check_texts
from coordinator.journal.tables import saga, saga_inbox
from coordinator.journal.verbs import (
    UnknownSaga,
    Verb,
    VerbIdReused,
    VerbKind,
    VerbOutcome,
    VerbState,
)

_VERB = (
    saga_inbox.c.request_id,
    saga_inbox.c.saga_id,
    saga_inbox.c.verb,
    saga_inbox.c.step,
    saga_inbox.c.actor,
    saga_inbox.c.reason,
    saga_inbox.c.revision,
)
_PENDING = saga_inbox.c.state == VerbState.PENDING.value


async def post(engine: AsyncEngine, verb: Verb) -> None:
    """Put a verb into the inbox.

    Raises:
        UnknownSaga: its saga does not exist.
        VerbIdReused: the request id belongs to another verb.
    """
    verb = clean_verb(verb)
    async with transaction(autocommit(engine)) as tx:
        await _insert(tx, verb)
        await parking.wake(tx, verb.saga_id)
        stored = await tx.execute(select(*_VERB).where(saga_inbox.c.request_id == verb.request_id))
        if _verb(stored.mappings().one()) != verb:
            raise VerbIdReused(f"{verb.request_id} is the id of another verb")


async def _insert(tx: AsyncConnection, verb: Verb) -> None:
    statement = insert(saga_inbox).values(
        request_id=verb.request_id,
        saga_id=verb.saga_id,
        verb=verb.kind.value,
        step=verb.step,
        actor=verb.actor,
        reason=verb.reason,
        revision=verb.revision,
    )
    try:
        await tx.execute(statement.on_conflict_do_nothing())
    except IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.ForeignKeyViolation):
            raise UnknownSaga(f"there is no saga {verb.saga_id}") from error
        raise


async def outcome(engine: AsyncEngine, request_id: str) -> VerbOutcome | None:
    """What came of a verb so far."""
    check_texts(request_id)
    columns = (saga_inbox.c.state, saga_inbox.c.explanation, saga_inbox.c.revision)
    statement = select(*columns).where(saga_inbox.c.request_id == request_id)
    async with transaction(engine) as tx:
        row = (await tx.execute(statement)).one_or_none()
    return None if row is None else VerbOutcome(VerbState(row[0]), *row[1:])


async def pending(engine: AsyncEngine, lease: Lease) -> Sequence[Verb]:
    """Undecided verbs that a lease may decide, oldest first."""
    statement = (
        select(*_VERB)
        .join(saga, saga.c.saga_id == saga_inbox.c.saga_id)
        .where(_PENDING, _decidable(lease))
        .order_by(saga_inbox.c.create_time, saga_inbox.c.request_id)
    )
    async with transaction(engine) as tx:
        return [_verb(row) for row in (await tx.execute(statement)).mappings()]


async def refuse(
    engine: AsyncEngine, lease: Lease | None, request_id: str, explanation: str
) -> None:
    """Refuse a verb if it is undecided and this lease may decide it.

    The saga is locked against being claimed meanwhile, so that no other owner accepts the verb.
    """
    check_texts(request_id)
    addressed = select(saga_inbox.c.saga_id).where(saga_inbox.c.request_id == request_id)
    ours = (
        select(saga.c.saga_id)
        .where(saga.c.saga_id == addressed.scalar_subquery(), _decidable(lease))
        .with_for_update(read=True)
        .cte("ours")
    )
    statement = (
        update(saga_inbox)
        .where(
            saga_inbox.c.request_id == request_id, _PENDING, saga_inbox.c.saga_id == ours.c.saga_id
        )
        .values(
            state=VerbState.REFUSED.value,
            explanation=clean(explanation),
            decide_time=func.clock_timestamp(),
        )
    )
    async with transaction(autocommit(engine)) as tx:
        await tx.execute(statement)


def _decidable(lease: Lease | None) -> ColumnElement[bool]:
    finished = saga.c.finish_time.is_not(None)
    return finished if lease is None else or_(finished, saga.c.epoch == lease.epoch)


def _verb(row: RowMapping) -> Verb:
    return Verb(
        request_id=row["request_id"],
        saga_id=row["saga_id"],
        kind=VerbKind(row["verb"]),
        step=row["step"],
        actor=row["actor"],
        reason=row["reason"],
        revision=row["revision"],
    )

"""The statements on the `barrier` table. Each is one round trip; the barriers give them meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, assert_never

from google.protobuf.message import Message
from sqlalchemy import Select, Update, and_, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.barrier import rules
from mesh.barrier.rules import BarrierState, canonical, fingerprint
from mesh.barrier.tables import barrier
from mesh.errors import Rejected
from mesh.step import StepCall, StepTypes

Note = Mapping[str, str | int]
"""How far the stages are: a few ids and counters, stored as JSON. Never a secret or a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is stored of one step of one saga."""

    service: str
    state: BarrierState
    request: bytes | None
    request_sha256: bytes | None
    response: bytes | None
    rejection: bytes | None
    note: Note
    stage: int
    """How often the note changed."""

    def outcome(self, call: StepCall, request: Message, types: StepTypes) -> Outcome | None:
        """What a Do with this request is answered; None while it is DOING.

        Raises:
            Conflict: `STEP_REQUEST_CHANGED`, or a key that another service has used.
            NotNow: `STEP_ALREADY_COMPENSATED`.
        """
        self.refuse_other_service(call, types)
        rules.refuse_changed_request(
            call, stored=self.request_sha256, arrived=rules.fingerprint(request)
        )
        match self.state:
            case BarrierState.DOING:
                return None
            case BarrierState.DONE:
                return types.response.FromString(_present(self.response))
            case BarrierState.REJECTED:
                return rules.thaw(_present(self.rejection))
            case BarrierState.COMPENSATING | BarrierState.COMPENSATED:
                raise rules.already_compensated(call)
            case _:
                assert_never(self.state)

    def refuse_other_service(self, call: StepCall, types: StepTypes) -> None:
        """Raises Conflict `STEP_REQUEST_CHANGED` when the row is another step service's."""
        if self.service != types.service.full_name:
            raise rules.request_changed(call)

    def parsed_request(self, types: StepTypes) -> Message:
        """What Do was sent."""
        return types.request.FromString(_present(self.request))

    def parsed_response(self, types: StepTypes) -> Message | None:
        """What Do answered; None when it has not."""
        return None if self.response is None else types.response.FromString(self.response)


Outcome = Message | Rejected

# Statements are built once: SQLAlchemy takes longer to build one than PostgreSQL to execute it.
_HERE = and_(barrier.c.saga_id == bindparam("of_saga"), barrier.c.step == bindparam("of_step"))
_INSERT = insert(barrier).on_conflict_do_nothing().returning(barrier.c.step)
_READ = select(*[barrier.c[field.name] for field in fields(Row)]).where(_HERE)
_LOCK = _READ.with_for_update()
_UPDATE = (
    update(barrier)
    .where(_HERE, barrier.c.state == bindparam("from_state"))
    .values(update_time=func.clock_timestamp())
)
_NOTE = _UPDATE.where(barrier.c.stage == bindparam("from_stage"))


async def insert_doing(tx: AsyncConnection, call: StepCall, service: str, request: Message) -> bool:
    """True if this Do is the first; waits for a parallel twin's transaction to end."""
    return await _insert(tx, call, service, BarrierState.DOING, _sent(request))


async def insert_rejected(
    tx: AsyncConnection, call: StepCall, service: str, request: Message, rejection: bytes
) -> bool:
    """True if nothing else was decided since this Do gave up its row; waits like `insert_doing`."""
    values = {**_sent(request), "rejection": rejection}
    return await _insert(tx, call, service, BarrierState.REJECTED, values)


async def insert_tombstone(tx: AsyncConnection, call: StepCall, service: str) -> bool:
    """True if this Compensate is the first that is heard of the step; waits like `insert_doing`."""
    return await _insert(tx, call, service, BarrierState.COMPENSATED, {})


async def read(tx: AsyncConnection, call: StepCall) -> Row:
    """What is committed. Raises Conflict `STEP_BUSY` when a purge was faster."""
    return await _read(tx, call, _READ)


async def lock(tx: AsyncConnection, call: StepCall) -> Row:
    """Like `read`, and nobody else changes the row until this transaction ends."""
    return await _read(tx, call, _LOCK)


async def move(
    tx: AsyncConnection,
    call: StepCall,
    source: BarrierState,
    target: BarrierState,
    *,
    response: bytes | None = None,
    rejection: bytes | None = None,
) -> bool:
    """Compare and swap the state; False when it is no longer `source`."""
    outcome = {"response": response, "rejection": rejection}
    known = {name: value for name, value in outcome.items() if value is not None}
    return await _update(tx, call, _UPDATE, {"from_state": source, "state": target, **known})


async def note(
    tx: AsyncConnection, call: StepCall, state: BarrierState, stage: int, changed: Note
) -> bool:
    """Compare and swap the note; False when state or stage are others by now."""
    here = {"from_state": state, "from_stage": stage}
    return await _update(tx, call, _NOTE, {**here, "note": dict(changed), "stage": stage + 1})


def _sent(request: Message) -> dict[str, object]:
    return {"request": canonical(request), "request_sha256": fingerprint(request)}


async def _insert(
    tx: AsyncConnection,
    call: StepCall,
    service: str,
    state: BarrierState,
    values: Mapping[str, object],
) -> bool:
    key = {"saga_id": call.saga_id, "step": call.step}
    row = {**key, "service": service, "state": state, **values}
    return (await tx.execute(_INSERT, row)).first() is not None


async def _read(tx: AsyncConnection, call: StepCall, statement: Select[Any]) -> Row:
    row = (await tx.execute(statement, _key(call))).mappings().one_or_none()
    if row is None:
        raise rules.busy(call)
    return Row(**{**row, "state": BarrierState(row["state"])})


async def _update(
    tx: AsyncConnection, call: StepCall, statement: Update, values: dict[str, object]
) -> bool:
    result = await tx.execute(statement, {**_key(call), **values})
    return result.rowcount == 1


def _key(call: StepCall) -> dict[str, object]:
    return {"of_saga": call.saga_id, "of_step": call.step}


def _present(value: bytes | None) -> bytes:
    if value is None:
        raise ValueError("a CHECK of the barrier table is missing: the state promises a value")
    return value

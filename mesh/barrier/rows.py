"""The statements on the `barrier` table. Each is one round trip; the barriers give them meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import assert_never

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.barrier import rules
from mesh.barrier.rules import BarrierState, canonical
from mesh.errors import Rejected
from mesh.statement import COMMIT, Question, Statement, ask, is_begun
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

_KEY = {"saga_id": "text", "step": "text"}
_INSERT = Statement(
    "barrier_insert",
    """
    INSERT INTO barrier (saga_id, step, service, state, request, request_sha256, rejection)
    VALUES (%(saga_id)s, %(step)s, %(service)s, %(state)s, %(request)s, %(sha256)s, %(rejection)s)
    ON CONFLICT DO NOTHING RETURNING true
    """,
    {
        **_KEY,
        "service": "text",
        "state": "text",
        "request": "bytea",
        "sha256": "bytea",
        "rejection": "bytea",
    },
)
_SELECT = """
    SELECT service, state, request, request_sha256, response, rejection, note::text, stage::bigint
    FROM barrier WHERE saga_id = %(saga_id)s AND step = %(step)s
    """
_READ = Statement("barrier_read", _SELECT, _KEY)
_LOCK = Statement("barrier_lock", _SELECT + "FOR UPDATE", _KEY)
_MOVE = Statement(
    "barrier_move",
    """
    UPDATE barrier SET state = %(target)s, update_time = clock_timestamp(),
      response = coalesce(%(response)s, response), rejection = coalesce(%(rejection)s, rejection)
    WHERE saga_id = %(saga_id)s AND step = %(step)s AND state = %(source)s
    RETURNING true
    """,
    {**_KEY, "source": "text", "target": "text", "response": "bytea", "rejection": "bytea"},
)
_NOTE = Statement(
    "barrier_note",
    """
    UPDATE barrier SET note = %(note)s::jsonb, stage = stage + 1, update_time = clock_timestamp()
    WHERE saga_id = %(saga_id)s AND step = %(step)s AND state = %(state)s AND stage = %(stage)s
    RETURNING true
    """,
    {**_KEY, "state": "text", "stage": "bigint", "note": "text"},
)


async def insert_doing(tx: AsyncConnection, call: StepCall, service: str, request: Message) -> bool:
    """True if this Do is the first; waits for a parallel twin's transaction to end."""
    return await _insert(tx, call, service=service, state=BarrierState.DOING, **_sent(request))


async def insert_rejected(
    tx: AsyncConnection, call: StepCall, service: str, request: Message, rejection: bytes
) -> bool:
    """True if nothing else was decided since this Do gave up its row; waits like `insert_doing`."""
    values = {**_sent(request), "rejection": rejection}
    return await _insert(tx, call, service=service, state=BarrierState.REJECTED, **values)


async def insert_tombstone(tx: AsyncConnection, call: StepCall, service: str) -> bool:
    """True if this Compensate is the first that is heard of the step; waits like `insert_doing`."""
    return await _insert(tx, call, service=service, state=BarrierState.COMPENSATED)


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
    question = _moving(call, source, target, response=response, rejection=rejection)
    (moved,) = await ask(tx, question)
    return bool(moved)


async def finish(tx: AsyncConnection, call: StepCall, response: bytes) -> None:
    """Store what a Do in this transaction answers, and commit; both in one round trip.

    Raises:
        RuntimeError: the transaction has been ended by somebody else.
    """
    if not (tx.in_transaction() and is_begun(tx)):
        raise RuntimeError(f"{call.key}: do() must not end the transaction that it is given")
    done = _moving(call, BarrierState.DOING, BarrierState.DONE, response=response)
    await ask(tx, done, COMMIT)


async def note(
    tx: AsyncConnection, call: StepCall, state: BarrierState, stage: int, changed: Note
) -> bool:
    """Compare and swap the note; False when state or stage are others by now."""
    told = json.dumps(dict(changed))
    (noted,) = await ask(tx, _NOTE(**_key(call), state=state, stage=stage, note=told))
    return bool(noted)


def begun(service: str, request: Message) -> Row:
    """The row as `insert_doing` stores it."""
    sent = canonical(request)
    return Row(
        service=service,
        state=BarrierState.DOING,
        request=sent,
        request_sha256=sha256(sent).digest(),
        response=None,
        rejection=None,
        note={},
        stage=0,
    )


def _sent(request: Message) -> dict[str, bytes]:
    sent = canonical(request)
    return {"request": sent, "sha256": sha256(sent).digest()}


async def _insert(tx: AsyncConnection, call: StepCall, **values: str | bytes) -> bool:
    row = {"request": None, "sha256": None, "rejection": None, **values}
    (inserted,) = await ask(tx, _INSERT(**_key(call), **row))
    return bool(inserted)


def _moving(
    call: StepCall,
    source: BarrierState,
    target: BarrierState,
    *,
    response: bytes | None = None,
    rejection: bytes | None = None,
) -> Question:
    outcome = {"response": response, "rejection": rejection}
    return _MOVE(**_key(call), source=source, target=target, **outcome)


async def _read(tx: AsyncConnection, call: StepCall, statement: Statement) -> Row:
    (found,) = await ask(tx, statement(**_key(call)))
    if not found:
        raise rules.busy(call)
    service, state, request, sha, response, rejection, noted, stage = found[0]
    return Row(
        service=_present(service).decode(),
        state=BarrierState(_present(state).decode()),
        request=request,
        request_sha256=sha,
        response=response,
        rejection=rejection,
        note=json.loads(_present(noted)),
        stage=int.from_bytes(_present(stage)),
    )


def _key(call: StepCall) -> dict[str, str]:
    return {"saga_id": call.saga_id, "step": call.step}


def _present(value: bytes | None) -> bytes:
    if value is None:
        raise ValueError("a CHECK of the barrier table is missing: the state promises a value")
    return value

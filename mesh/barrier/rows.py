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
from mesh.barrier.along import Along
from mesh.barrier.rules import BarrierState, canonical
from mesh.errors import Rejected
from mesh.statement import COMMIT, Question, Statement, Value, ask, is_begun
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
    return await _insert(tx, call, service=service, state=BarrierState.DOING, **sent(request))


async def insert_rejected(
    tx: AsyncConnection, call: StepCall, service: str, request: Message, rejection: bytes
) -> bool:
    """True if nothing else was decided since this Do gave up its row; waits like `insert_doing`."""
    values = {**sent(request), "rejection": rejection}
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
    along: Along | None = None,
    **outcome: bytes,
) -> bool:
    """Compare and swap the state; False when it is no longer `source`, and nothing goes along.

    `outcome` is the response or the rejection to store.
    """
    (moved,) = await ask(tx, _with(along, _MOVE, _moving(call, source, target, outcome)))
    return bool(moved)


async def finish(tx: AsyncConnection, call: StepCall, response: bytes) -> None:
    """Store what a Do in this transaction answers, and commit; both in one round trip.

    Raises:
        RuntimeError: the transaction has been ended by somebody else.
    """
    if not (tx.in_transaction() and is_begun(tx)):
        raise RuntimeError(f"{call.key}: do() must not end the transaction that it is given")
    done = _moving(call, BarrierState.DOING, BarrierState.DONE, {"response": response})
    await ask(tx, _MOVE(**done), COMMIT)


async def note(
    tx: AsyncConnection, call: StepCall, here: Row, changed: Note, along: Along | None = None
) -> bool:
    """Compare and swap the note of a row; False when its state or stage are others by now."""
    told = json.dumps(dict(changed))
    at: dict[str, Value] = {"state": here.state, "stage": here.stage}
    values = {**_key(call), **at, "note": told}
    (noted,) = await ask(tx, _with(along, _NOTE, values))
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


def sent(request: Message) -> dict[str, bytes]:
    """What is stored of a request."""
    sent = canonical(request)
    return {"request": sent, "sha256": sha256(sent).digest()}


async def _insert(tx: AsyncConnection, call: StepCall, **values: str | bytes) -> bool:
    row = {"request": None, "sha256": None, "rejection": None, **values}
    (inserted,) = await ask(tx, _INSERT(**_key(call), **row))
    return bool(inserted)


def _moving(
    call: StepCall, source: BarrierState, target: BarrierState, outcome: Mapping[str, bytes]
) -> Mapping[str, Value]:
    none = {"response": None, "rejection": None}
    return {**_key(call), "source": source, "target": target, **none, **outcome}


def _with(along: Along | None, change: Statement, values: Mapping[str, Value]) -> Question:
    return change(**values) if along is None else along.after(change, values)


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

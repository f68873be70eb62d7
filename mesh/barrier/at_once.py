"""A step whose effect is one statement: it is made and recorded by that statement, or not at all.

    _TAKE = EffectStatement(
        "take_seat",
        '''
        effect AS (
          UPDATE seat SET saga_id = %(saga_id)s WHERE seat = %(seat)s AND saga_id IS NULL
          RETURNING true
        )
        ''',
        {"seat": "text", "saga_id": "text"},
    )

    class TakeSeat(AtOnceStep[TakeSeatRequest, TakeSeatResponse]):
        service = "cinema.v1.TakeSeat"

        def at_once(self, call, request):
            return AtOnce(TakeSeatResponse(), _TAKE(seat=request.seat, saga_id=call.saga_id))

        async def refusal(self, call, request, tx):
            return Rejected("SEAT_TAKEN", ...)

Where the answer does not depend on what the database says, a Do is one round trip and one commit,
without BEGIN, COMMIT and an update of the barrier's row. Whatever is not that plain (a duplicate, a
Compensate that came first, an effect that cannot be made) has left no trace, and goes the way of
every other step: `do` is then written here.

The row comes after the effect here, not before it. A twin or a Compensate in parallel still ends as
it should: the row's key is one, so the second to write it takes back what it has done. While the
statement waits for locks (at most 5 s, `mesh.postgres`) its time may run out; it is made
nevertheless, as an effect is that was in time and whose COMMIT was slow.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

import psycopg
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.barrier.rows import sent
from mesh.errors import Rejected
from mesh.statement import Question, Statement, Value, ask
from mesh.step import RequestT, ResponseT, Step, StepCall

_RECORD = """
    INSERT INTO barrier (saga_id, step, service, state, request, request_sha256, response)
    SELECT %(saga_id)s, %(step)s, %(service)s, 'DONE', %(request)s, %(sha256)s, %(response)s
    WHERE EXISTS (SELECT FROM effect)
    RETURNING true
    """
_OF_THE_CALL = ("saga_id", "step", "service")
_RECORDED = {
    **dict.fromkeys(_OF_THE_CALL, "text"),
    **dict.fromkeys(("request", "sha256", "response"), "bytea"),
}


class EffectStatement:
    """What a step does to the database.

    `text` is what stands between WITH and the statement proper: CTEs, of which the one called
    `effect` has a row exactly when it has written something. Whatever else is written takes what it
    writes from `effect`, or it would be written also where nothing is recorded. The names of the
    parameters are its own, but for `saga_id`, `step` and `service`, which are the call's; see
    `Statement` for the rest.

    Raises:
        ValueError: a name is one of the record's parameters.
    """

    def __init__(self, name: str, text: str, types: Mapping[str, str]) -> None:
        if taken := sorted(types.keys() & _RECORDED.keys() - set(_OF_THE_CALL)):
            raise ValueError(f"{name}: {', '.join(taken)} are parameters of the barrier")
        self._alone = Statement(name, f"WITH {text} SELECT FROM effect LIMIT 1", types)
        self._recorded = Statement(
            f"{name}_recorded", f"WITH {text} {_RECORD}", {**types, **_RECORDED}
        )

    def __call__(self, **values: Value) -> Effect:
        """The effect with these values."""
        return Effect(self._alone, self._recorded, values)


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect with its values."""

    _alone: Statement
    _recorded: Statement
    _values: Mapping[str, Value]

    def alone(self) -> Question:
        """Make it; a row when it is made."""
        return self._alone(**self._values)

    def recorded(self, record: Mapping[str, Value]) -> Question:
        """Make it, and record it as DONE; a row when both is done, else neither is."""
        return self._recorded(**{**self._values, **record})


@dataclass(frozen=True, slots=True)
class AtOnce(Generic[ResponseT]):
    """What a Do answers, and what it does if that can be done."""

    response: ResponseT
    effect: Effect


class AtOnceStep(Step[RequestT, ResponseT, AsyncConnection]):
    """A step behind the PostgreSQL barrier whose answer is known before its effect is made."""

    @abstractmethod
    def at_once(self, call: StepCall, request: RequestT) -> AtOnce[ResponseT]:
        """What is to be done, by the request alone.

        Raises:
            Rejected: for good, whatever is in the database.
        """

    async def refusal(self, call: StepCall, request: RequestT, tx: AsyncConnection) -> Rejected:
        """Why the effect, asked for in `tx`, was not made."""
        raise RuntimeError(f"{self.service}: the effect of {call.key} was not made")

    async def do(self, call: StepCall, request: RequestT, tx: AsyncConnection) -> ResponseT:
        """The same as every other step does it, behind a row that is there."""
        wanted = self.at_once(call, request)
        (made,) = await ask(tx, wanted.effect.alone())
        if not made:
            raise await self.refusal(call, request, tx)
        return wanted.response


async def make_and_record(
    db: AsyncConnection, effect: Effect, key: Mapping[str, str], request: Message, response: bytes
) -> bool:
    """Make and record an effect, outside any transaction; False when nothing at all has happened.

    `key` is the row's saga_id, step and service. Waits for a parallel twin's transaction to end.
    """
    try:
        (recorded,) = await ask(db, effect.recorded({**key, **sent(request), "response": response}))
    except psycopg.errors.UniqueViolation:  # there is a row, or what it would write is there
        return False
    return bool(recorded)

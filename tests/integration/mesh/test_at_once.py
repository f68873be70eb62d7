"""What a step of one statement promises beyond the suite of all barriers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.barrier import rows
from mesh.barrier.at_once import AtOnce, AtOnceStep, EffectStatement
from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.tables import barrier
from mesh.errors import Conflict, MeshError, NotNow, Rejected, Retry
from mesh.postgres import begin_with, create_engine
from mesh.step import MAX_MESSAGE_BYTES, StepCall
from protos.order.v1 import order_pb2
from tests.locks import waiting

CALL = StepCall(saga_id="saga-1", step="take_seat")
REQUEST = order_pb2.CreateOrderRequest(order_id="7a")
SEATS = """
    CREATE TABLE seat (seat text PRIMARY KEY, saga_id text, price int NOT NULL DEFAULT 1);
    CREATE TABLE ticket (seat text PRIMARY KEY);
    INSERT INTO seat (seat) VALUES ('7a'), ('7b')
"""
TAKE = EffectStatement(
    "take_seat",
    """
    effect AS (
      UPDATE seat SET saga_id = %(saga_id)s WHERE seat = %(seat)s AND saga_id IS NULL
      RETURNING seat
    ), printed AS (
      INSERT INTO ticket (seat) SELECT seat FROM effect
    )
    """,
    {"seat": "text", "saga_id": "text"},
)
END_THEM = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)

Request = order_pb2.CreateOrderRequest
Response = order_pb2.CreateOrderResponse


class TakeSeat(AtOnceStep[Request, Response]):
    service = "order.v1.CreateOrder"

    def __init__(self, response: Response | None = None) -> None:
        self._response = response or Response()

    def at_once(self, call: StepCall, request: Request) -> AtOnce[Response]:
        return AtOnce(self._response, TAKE(seat=request.order_id, saga_id=call.saga_id))

    async def refusal(self, call: StepCall, request: Request, tx: AsyncConnection) -> Rejected:
        return Rejected("SEAT_TAKEN", "somebody sits there")

    async def compensate(
        self, call: StepCall, request: Request, response: Response, tx: AsyncConnection
    ) -> None:
        await tx.execute(text("UPDATE seat SET saga_id = NULL"))
        await tx.execute(text("DELETE FROM ticket"))


@pytest.fixture(autouse=True)
async def _seats(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(SEATS))


@pytest_asyncio.fixture
async def other(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A session of somebody else, in a transaction."""
    async with engine.connect() as connection:
        yield connection


async def do(engine: AsyncEngine, step: TakeSeat | None = None) -> Message:
    return await PostgresBarrier(engine).guard(step or TakeSeat()).do(CALL, REQUEST)


async def compensate(engine: AsyncEngine) -> Message:
    undo = order_pb2.CreateOrderCompensation(request=REQUEST)
    return await PostgresBarrier(engine).guard(TakeSeat()).compensate(CALL, undo)


async def counts(engine: AsyncEngine) -> tuple[int, int, int]:
    """(seats that are taken, tickets, barrier rows)."""
    asked = (
        text("SELECT count(saga_id) FROM seat"),
        text("SELECT count(*) FROM ticket"),
        select(func.count()).select_from(barrier),
    )
    async with engine.connect() as connection:
        taken, printed, stored = [(await connection.execute(it)).scalar_one() for it in asked]
    return taken, printed, stored


async def test_a_plain_do_asks_nothing_but_its_statement(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(rows, "ask")

    await do(engine)

    assert await counts(engine) == (1, 1, 1)


async def test_what_cannot_be_done_writes_nothing_but_its_refusal(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE seat SET saga_id = 'saga-0' WHERE seat = '7a'"))

    for _ in range(2):
        with pytest.raises(Rejected, match="somebody sits there"):
            await do(engine)

    assert await counts(engine) == (1, 0, 1)


async def test_a_refusal_that_is_not_foreseen_is_a_fault_and_is_not_stored(
    engine: AsyncEngine,
) -> None:
    class Careless(TakeSeat):
        refusal = AtOnceStep.refusal

        def at_once(self, call: StepCall, request: Request) -> AtOnce[Response]:
            return AtOnce(Response(), TAKE(seat="9z", saga_id=call.saga_id))

    with pytest.raises(RuntimeError, match="was not made"):
        await do(engine, Careless())

    assert await counts(engine) == (0, 0, 0)


async def test_a_unique_key_that_is_not_the_barriers_is_no_duplicate(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO ticket VALUES ('7a')"))

    for _ in range(2):
        with pytest.raises(psycopg.errors.UniqueViolation):
            await do(engine)
    assert await counts(engine) == (0, 1, 0)

    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM ticket"))
    assert isinstance(await do(engine), Response)
    assert await counts(engine) == (1, 1, 1)


async def test_a_response_too_large_is_refused_before_anything_is_done(engine: AsyncEngine) -> None:
    response = Response()
    response.total.currency_code = "o" * MAX_MESSAGE_BYTES

    with pytest.raises(MeshError) as refused:
        await do(engine, TakeSeat(response))

    assert refused.value.reason == "RESPONSE_TOO_LARGE"
    assert await counts(engine) == (0, 0, 0)


@pytest.mark.parametrize(
    ("meanwhile", "tickets"),
    [("UPDATE seat SET price = 2", 1), ("UPDATE seat SET saga_id = 'saga-0'", 0)],
)
async def test_a_row_that_changes_while_the_statement_waits_is_judged_as_it_is_then(
    engine: AsyncEngine, other: AsyncConnection, meanwhile: str, tickets: int
) -> None:
    await other.execute(text(f"{meanwhile} WHERE seat = '7a'"))
    doing = asyncio.create_task(do(engine))
    await waiting(engine, 1)
    await other.commit()

    if tickets:
        await doing
    else:
        with pytest.raises(Rejected):
            await doing
    assert await counts(engine) == (1, tickets, 1)


TOMBSTONE = text(
    "INSERT INTO barrier (saga_id, step, service, state)"
    " VALUES ('saga-1', 'take_seat', 'order.v1.CreateOrder', 'COMPENSATED')"
)


async def test_a_do_that_waits_for_a_compensate_leaves_nothing_once_that_has_won(
    engine: AsyncEngine, other: AsyncConnection
) -> None:
    await other.execute(TOMBSTONE)
    doing = asyncio.create_task(do(engine))
    await waiting(engine, 1)
    await other.commit()

    with pytest.raises(NotNow) as refused:
        await doing
    assert refused.value.reason == "STEP_ALREADY_COMPENSATED"
    assert await counts(engine) == (0, 0, 1)


async def test_a_do_that_waits_for_a_compensate_is_done_once_that_has_failed(
    engine: AsyncEngine, other: AsyncConnection
) -> None:
    await other.execute(TOMBSTONE)
    doing = asyncio.create_task(do(engine))
    await waiting(engine, 1)
    await other.rollback()

    assert isinstance(await doing, Response)
    assert await counts(engine) == (1, 1, 1)


async def test_a_compensate_waits_for_the_statement_and_undoes_it(
    engine: AsyncEngine, other: AsyncConnection
) -> None:
    await other.execute(text("UPDATE seat SET price = 2 WHERE seat = '7a'"))
    doing = asyncio.create_task(do(engine))
    await waiting(engine, 1)
    undoing = asyncio.create_task(compensate(engine))
    await other.commit()

    await asyncio.wait({doing, undoing})

    undoing.result()
    assert await counts(engine) == (0, 0, 1)
    with pytest.raises(NotNow):
        await do(engine)


async def test_a_statement_that_waits_too_long_leaves_nothing(
    engine: AsyncEngine, other: AsyncConnection, postgres_dsn: str
) -> None:
    impatient = create_engine(postgres_dsn)
    begin_with(impatient, {"lock_timeout": "20ms"})
    await other.execute(text("UPDATE seat SET price = 2 WHERE seat = '7a'"))

    with pytest.raises(Conflict) as refused:
        await do(impatient)

    assert refused.value.reason == "DATABASE_CONFLICT"
    await other.commit()
    await impatient.dispose()
    assert await counts(engine) == (0, 0, 0)


async def test_a_session_that_ends_under_the_statement_leaves_its_outcome_open(
    engine: AsyncEngine, other: AsyncConnection
) -> None:
    await other.execute(text("UPDATE seat SET price = 2 WHERE seat = '7a'"))
    doing = asyncio.create_task(do(engine))
    await waiting(engine, 1)
    await other.execute(END_THEM)

    with pytest.raises(Retry):
        await doing
    await other.commit()
    assert isinstance(await do(engine), Response)
    assert await counts(engine) == (1, 1, 1)


async def test_a_caller_that_gives_up_takes_the_statement_back(
    engine: AsyncEngine, other: AsyncConnection
) -> None:
    await other.execute(text("UPDATE seat SET price = 2 WHERE seat = '7a'"))
    doing = asyncio.create_task(do(engine))
    await waiting(engine, 1)
    doing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await doing
    await other.commit()
    assert await counts(engine) == (0, 0, 0)
    assert isinstance(await do(engine), Response)


def named(name: str) -> Callable[[], EffectStatement]:
    return lambda: EffectStatement("mine", "effect AS (SELECT)", {name: "bytea"})


@pytest.mark.parametrize("name", ["request", "sha256", "response"])
def test_a_parameter_with_the_name_of_one_of_the_records_is_a_mistake(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        named(name)()

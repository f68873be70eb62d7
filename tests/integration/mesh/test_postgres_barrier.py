"""What the PostgreSQL barrier promises beyond the suite of all barriers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from google.protobuf.message import Message
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mesh.barrier import rows
from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.tables import barrier
from mesh.errors import Conflict, MeshError, NotNow, Rejected, Retry
from mesh.postgres import create_engine, driver_url, ready
from mesh.step import MAX_MESSAGE_BYTES, Step, StepCall
from protos.order.v1 import order_pb2
from tests.contract.barrier_harness import Pause
from tests.contract.postgres_harness import CreateOrder, effects

CALL = StepCall(saga_id="saga-1", step="create_order")
REQUEST = order_pb2.CreateOrderRequest(order_id="order-1")

Request = order_pb2.CreateOrderRequest
Response = order_pb2.CreateOrderResponse


@pytest.fixture(autouse=True)
async def _effects(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(effects.create)


class Misbehaving(CreateOrder):
    """Makes its effect, and then does what the test wants."""

    def __init__(self, then: Callable[[AsyncConnection], Awaitable[Response]]) -> None:
        super().__init__()
        self._then = then

    async def do(self, call: StepCall, request: Request, tx: AsyncConnection) -> Response:
        await super().do(call, request, tx)
        return await self._then(tx)


async def counts(engine: AsyncEngine) -> tuple[int, int]:
    """(effects, barrier rows)."""
    async with engine.connect() as connection:
        held = await connection.execute(select(func.count()).select_from(effects))
        stored = await connection.execute(select(func.count()).select_from(barrier))
        return held.scalar_one(), stored.scalar_one()


async def do(
    engine: AsyncEngine, step: Step[Request, Response, AsyncConnection] | None = None
) -> Message:
    return await PostgresBarrier(engine).guard(step or CreateOrder()).do(CALL, REQUEST)


async def test_any_other_exception_rolls_everything_back(engine: AsyncEngine) -> None:
    async def fail(_: AsyncConnection) -> Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await do(engine, Misbehaving(fail))

    assert await counts(engine) == (0, 0)


async def test_a_retry_rolls_everything_back(engine: AsyncEngine) -> None:
    async def later(_: AsyncConnection) -> Response:
        raise Retry("CATALOGUE_AWAY", "ask again")

    with pytest.raises(Retry, match="ask again"):
        await do(engine, Misbehaving(later))

    assert await counts(engine) == (0, 0)


async def test_a_response_too_large_is_rolled_back(engine: AsyncEngine) -> None:
    async def large(_: AsyncConnection) -> Response:
        response = Response()
        response.total.currency_code = "o" * MAX_MESSAGE_BYTES
        return response

    with pytest.raises(MeshError) as refused:
        await do(engine, Misbehaving(large))

    assert refused.value.reason == "RESPONSE_TOO_LARGE"
    assert await counts(engine) == (0, 0)


async def test_a_rejection_after_a_failed_statement_is_stored(engine: AsyncEngine) -> None:
    async def refuse(tx: AsyncConnection) -> Response:
        try:
            await tx.execute(text("SELECT 1 / 0"))
        except DBAPIError as error:
            raise Rejected("OUT_OF_STOCK", "none left") from error
        raise AssertionError

    for step in (Misbehaving(refuse), CreateOrder()):
        with pytest.raises(Rejected):
            await do(engine, step)

    assert await counts(engine) == (0, 1)


def refusing() -> CreateOrder:
    step = CreateOrder()
    step.rejecting = True
    return step


@pytest.fixture
def in_between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Awaitable[Message]], None]:
    """Has something else happen after a rejection has taken back its writes."""

    def happens(other: Awaitable[Message]) -> None:
        store = rows.insert_rejected

        async def later(
            tx: AsyncConnection, call: StepCall, service: str, request: Message, rejection: bytes
        ) -> bool:
            monkeypatch.undo()
            await other
            return await store(tx, call, service, request, rejection)

        monkeypatch.setattr(rows, "insert_rejected", later)

    return happens


async def test_a_compensate_before_a_rejection_is_stored_decides(
    engine: AsyncEngine, in_between: Callable[[Awaitable[Message]], None]
) -> None:
    undo = order_pb2.CreateOrderCompensation(request=REQUEST)
    in_between(PostgresBarrier(engine).guard(CreateOrder()).compensate(CALL, undo))

    with pytest.raises(NotNow) as refused:
        await do(engine, refusing())

    assert refused.value.reason == "STEP_ALREADY_COMPENSATED"
    assert await counts(engine) == (0, 1)


async def test_a_twin_that_succeeds_before_a_rejection_is_stored_answers_for_both(
    engine: AsyncEngine, in_between: Callable[[Awaitable[Message]], None]
) -> None:
    in_between(do(engine))

    response = await do(engine, refusing())

    assert isinstance(response, Response)
    assert await counts(engine) == (1, 1)


async def test_a_twin_that_rejects_before_a_rejection_is_stored_answers_for_both(
    engine: AsyncEngine, in_between: Callable[[Awaitable[Message]], None]
) -> None:
    async def twin() -> Message:
        with pytest.raises(Rejected):
            await do(engine, refusing())
        return Response()

    in_between(twin())

    with pytest.raises(Rejected, match="none left"):
        await do(engine, refusing())

    assert await counts(engine) == (0, 1)


async def test_a_failed_statement_that_is_swallowed_is_not_committed(engine: AsyncEngine) -> None:
    async def swallow(tx: AsyncConnection) -> Response:
        try:
            await tx.execute(text("SELECT 1 / 0"))
        except DBAPIError:
            return Response()
        raise AssertionError

    with pytest.raises(Exception, match="current transaction is aborted"):
        await do(engine, Misbehaving(swallow))

    assert await counts(engine) == (0, 0)


async def test_a_handler_that_commits_by_itself_is_never_answered(engine: AsyncEngine) -> None:
    async def commit(tx: AsyncConnection) -> Response:
        await tx.commit()
        return Response()

    with pytest.raises(Exception, match="transaction"):
        await do(engine, Misbehaving(commit))

    with pytest.raises(Conflict) as refused:
        await do(engine)
    assert refused.value.reason == "STEP_BUSY"


async def test_a_commit_whose_answer_is_lost_is_unknown_and_replayed_later(
    engine: AsyncEngine, cut_off: AsyncEngine
) -> None:
    with pytest.raises(Retry) as unknown:
        await do(cut_off)

    assert unknown.value.reason == "DATABASE_UNAVAILABLE"
    assert await counts(engine) == (1, 1)
    assert isinstance(await do(engine), Response)
    assert await counts(engine) == (1, 1)


async def test_a_rejection_whose_commit_has_no_answer_is_not_yet_one(
    engine: AsyncEngine, cut_off: AsyncEngine
) -> None:
    step = CreateOrder()
    step.rejecting = True

    with pytest.raises(Retry):
        await do(cut_off, step)

    with pytest.raises(Rejected):
        await do(engine)


@pytest.fixture
async def cut_off(postgres_dsn: str) -> AsyncIterator[AsyncEngine]:
    """An engine whose connections are cut when PostgreSQL answers a COMMIT."""
    url = driver_url(postgres_dsn)
    host, port = url.host or "", url.port or 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, port)
        committing = asyncio.Event()

        async def upwards() -> None:
            while data := await reader.read(65536):
                if b"COMMIT\0" in data:
                    committing.set()
                up_writer.write(data)

        asking = asyncio.create_task(upwards())
        while data := await up_reader.read(65536):
            if committing.is_set():
                break
            writer.write(data)
        asking.cancel()
        writer.close()
        up_writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1") as server:
        port_here = server.sockets[0].getsockname()[1]
        here = url.set(drivername="postgresql", host="127.0.0.1", port=port_here)
        engine = create_engine(here.render_as_string(hide_password=False))
        yield engine
        await engine.dispose()


async def test_a_database_that_is_away_is_unknown_and_not_ready() -> None:
    away = create_engine("postgresql://postgres@127.0.0.1:1/nowhere")

    with pytest.raises(Retry) as unknown:
        await do(away)
    assert unknown.value.reason == "DATABASE_UNAVAILABLE"
    with pytest.raises(Retry):
        await ready(away)()


async def test_a_database_that_is_there_is_ready(engine: AsyncEngine) -> None:
    await ready(engine)()


async def test_a_twin_that_waits_too_long_is_told_to_ask_again(
    engine: AsyncEngine, postgres_dsn: str
) -> None:
    impatient = create_async_engine(
        driver_url(postgres_dsn), connect_args={"options": "-c lock_timeout=20ms"}
    )
    step = CreateOrder()
    step.pause = Pause()
    first = asyncio.create_task(do(engine, step))
    await step.pause.reached()

    with pytest.raises(Conflict) as refused:
        await do(impatient)
    assert refused.value.reason == "DATABASE_CONFLICT"

    step.pause.resume()
    await first
    await impatient.dispose()
    assert await counts(engine) == (1, 1)


async def test_a_caller_that_gives_up_leaves_nothing_behind(engine: AsyncEngine) -> None:
    step = CreateOrder()
    step.pause = Pause()
    doing = asyncio.create_task(do(engine, step))
    await step.pause.reached()
    twin = asyncio.create_task(do(engine))

    doing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await doing
    assert isinstance(await twin, Response)
    assert await counts(engine) == (1, 1)


async def test_sessions_wait_and_idle_no_longer_than_they_should(engine: AsyncEngine) -> None:
    limits = {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "10s"}
    async with engine.connect() as connection:
        for name, limit in limits.items():
            assert (await connection.execute(text(f"SHOW {name}"))).scalar_one() == limit
        isolation = await connection.execute(text("SHOW transaction_isolation"))
        assert isolation.scalar_one() == "read committed"


async def test_a_key_that_another_step_service_used_is_refused(engine: AsyncEngine) -> None:
    class ConfirmOrder(Step[Message, Message, AsyncConnection]):
        service = "order.v1.ConfirmOrder"

        async def do(self, call: StepCall, request: Message, tx: AsyncConnection) -> Message:
            raise AssertionError("not run")

        async def compensate(
            self, call: StepCall, request: Message, response: Message, tx: AsyncConnection
        ) -> None:
            raise AssertionError("not run")

    await do(engine)
    other = PostgresBarrier(engine).guard(ConfirmOrder())

    for answer in (
        other.do(CALL, order_pb2.ConfirmOrderRequest(order_id="order-1")),
        other.compensate(CALL, order_pb2.ConfirmOrderCompensation()),
    ):
        with pytest.raises(Conflict) as refused:
            await answer
        assert refused.value.reason == "STEP_REQUEST_CHANGED"
    assert await counts(engine) == (1, 1)


async def test_a_compensate_that_fails_can_be_asked_again(engine: AsyncEngine) -> None:
    class Stubborn(CreateOrder):
        failures = 1

        async def compensate(
            self, call: StepCall, request: Request, response: Response, tx: AsyncConnection
        ) -> None:
            await super().compensate(call, request, response, tx)
            if self.failures:
                self.failures -= 1
                raise ZeroDivisionError

    step = PostgresBarrier(engine).guard(Stubborn())
    await step.do(CALL, REQUEST)

    with pytest.raises(ZeroDivisionError):
        await step.compensate(CALL, order_pb2.CreateOrderCompensation())
    assert await counts(engine) == (1, 1)

    await step.compensate(CALL, order_pb2.CreateOrderCompensation())
    assert await counts(engine) == (0, 1)


async def test_compensates_at_once_undo_once(engine: AsyncEngine) -> None:
    undone: list[StepCall] = []

    class Counting(CreateOrder):
        async def compensate(
            self, call: StepCall, request: Request, response: Response, tx: AsyncConnection
        ) -> None:
            undone.append(call)
            await asyncio.sleep(0)

    step = PostgresBarrier(engine).guard(Counting())
    await step.do(CALL, REQUEST)

    compensation = order_pb2.CreateOrderCompensation()
    await asyncio.gather(*(step.compensate(CALL, compensation) for _ in range(5)))

    assert undone == [CALL]


async def test_compensate_is_given_what_was_stored_and_not_what_was_sent(
    engine: AsyncEngine,
) -> None:
    seen: list[Message] = []

    class Recording(CreateOrder):
        async def compensate(
            self, call: StepCall, request: Request, response: Response, tx: AsyncConnection
        ) -> None:
            seen.extend([request, response])

    step = PostgresBarrier(engine).guard(Recording())
    response = await step.do(CALL, REQUEST)

    forged = order_pb2.CreateOrderCompensation()
    forged.request.order_id = "order-2"
    await step.compensate(CALL, forged)

    assert seen == [REQUEST, response]

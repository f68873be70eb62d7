"""What the staged barrier promises beyond the suite of all barriers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.along import AlongStatement
from mesh.barrier.staged import StagedBarrier, StagedStep, StageRecord, Superseded
from mesh.barrier.tables import barrier
from mesh.errors import Conflict, NotNow, Rejected
from mesh.step import GuardedStep, StepCall
from protos.payment.v1 import payment_pb2

CALL = StepCall(saga_id="saga-1", step="charge_payment", not_after_ms=1_000)

Request = payment_pb2.ChargePaymentRequest
Response = payment_pb2.ChargePaymentResponse
REQUEST = Request(order_id="order-1")
COMPENSATION = payment_pb2.ChargePaymentCompensation(request=REQUEST)

Body = Callable[[StageRecord], Awaitable[None]]

TELL = AlongStatement(
    "tell", "INSERT INTO told (what) SELECT %(what)s FROM moved", {"what": "text"}
)
OPEN_TRANSACTIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL"
)


async def nothing(_: StageRecord) -> None:
    return


class Scripted(StagedStep[Request, Response]):
    service = "payment.v1.ChargePayment"

    def __init__(self, do: Body = nothing, compensate: Body = nothing) -> None:
        self._do = do
        self._compensate = compensate

    async def do(self, call: StepCall, request: Request, record: StageRecord) -> Response:
        await self._do(record)
        return Response(provider_reference=str(record.note.get("charge", "")))

    async def compensate(self, call: StepCall, request: Request, record: StageRecord) -> None:
        assert request == REQUEST
        await self._compensate(record)


@pytest.fixture
def guard(engine: AsyncEngine) -> Callable[..., GuardedStep]:
    def guard(do: Body = nothing, compensate: Body = nothing, *, now_ms: int = 0) -> GuardedStep:
        return StagedBarrier(engine, clock=lambda: now_ms).guard(Scripted(do, compensate))

    return guard


Guard = Callable[..., GuardedStep]


async def stored_state(engine: AsyncEngine) -> str:
    async with engine.connect() as connection:
        return str((await connection.execute(select(barrier.c.state))).scalar_one())


async def crash(_: StageRecord) -> None:
    raise ZeroDivisionError


async def create_charge(record: StageRecord) -> None:
    await record.advance({"charge": "charge-1", "confirmations": 1})


async def test_the_next_attempt_resumes_from_the_note(guard: Guard, engine: AsyncEngine) -> None:
    async def create_and_crash(record: StageRecord) -> None:
        assert record.note == {}
        await create_charge(record)
        assert record.note == {"charge": "charge-1", "confirmations": 1}
        await crash(record)

    async def resume(record: StageRecord) -> None:
        assert record.note == {"charge": "charge-1", "confirmations": 1}
        assert record.response is None

    with pytest.raises(ZeroDivisionError):
        await guard(create_and_crash).do(CALL, REQUEST)
    assert await stored_state(engine) == "DOING"

    assert await guard(resume).do(CALL, REQUEST) == Response(provider_reference="charge-1")
    assert await stored_state(engine) == "DONE"


async def test_a_note_may_change_several_times_in_one_attempt(guard: Guard) -> None:
    async def confirm_twice(record: StageRecord) -> None:
        for number in (1, 2):
            await record.advance({"charge": "charge-1", "confirmations": number})
        assert record.note["confirmations"] == 2

    await guard(confirm_twice).do(CALL, REQUEST)


async def test_a_twin_that_is_behind_is_told_to_ask_again_and_not_to_clean_up(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def be_overtaken(record: StageRecord) -> None:
        with pytest.raises(ZeroDivisionError):
            await guard(create_and_crash).do(CALL, REQUEST)
        await record.advance({"charge": "charge-2"})

    async def create_and_crash(record: StageRecord) -> None:
        await create_charge(record)
        await crash(record)

    with pytest.raises(Conflict) as refused:
        await guard(be_overtaken).do(CALL, REQUEST)

    assert refused.value.reason == "STEP_BUSY"
    assert await guard().do(CALL, REQUEST) == Response(provider_reference="charge-1")


async def test_a_twin_that_finishes_second_answers_what_the_first_stored(guard: Guard) -> None:
    async def be_overtaken(_: StageRecord) -> None:
        await guard(create_charge).do(CALL, REQUEST)

    assert await guard(be_overtaken).do(CALL, REQUEST) == Response(provider_reference="charge-1")


async def test_a_rejection_that_comes_second_gives_way_to_the_stored_response(
    guard: Guard,
) -> None:
    async def be_overtaken(_: StageRecord) -> None:
        await guard(create_charge).do(CALL, REQUEST)
        raise Rejected("CARD_DECLINED", "declined")

    assert await guard(be_overtaken).do(CALL, REQUEST) == Response(provider_reference="charge-1")


async def test_a_do_overtaken_by_compensate_is_superseded(
    guard: Guard, engine: AsyncEngine
) -> None:
    cleaned_up: list[str] = []

    async def be_compensated(record: StageRecord) -> None:
        await guard().compensate(CALL, COMPENSATION)
        try:
            await create_charge(record)
        except Superseded:
            cleaned_up.append("charge-1")
            raise

    with pytest.raises(Superseded) as refused:
        await guard(be_compensated).do(CALL, REQUEST)

    assert refused.value.reason == "STEP_ALREADY_COMPENSATED"
    assert cleaned_up == ["charge-1"]
    assert await stored_state(engine) == "COMPENSATED"


async def reject(_: StageRecord) -> None:
    raise Rejected("CARD_DECLINED", "declined")


@pytest.mark.parametrize("end", [nothing, reject])
async def test_a_do_that_ends_after_its_compensate_is_superseded(guard: Guard, end: Body) -> None:
    async def be_compensated(record: StageRecord) -> None:
        await guard().compensate(CALL, COMPENSATION)
        await end(record)

    with pytest.raises(Superseded):
        await guard(be_compensated).do(CALL, REQUEST)


async def test_compensate_has_the_note_and_the_response_of_a_done_step(
    guard: Guard, engine: AsyncEngine
) -> None:
    seen: list[tuple[object, object]] = []

    async def refund(record: StageRecord) -> None:
        seen.append((record.note["charge"], record.response))

    await guard(create_charge).do(CALL, REQUEST)
    await guard(compensate=refund).compensate(CALL, COMPENSATION)

    assert seen == [("charge-1", Response(provider_reference="charge-1"))]
    assert await stored_state(engine) == "COMPENSATED"


async def test_compensate_has_the_note_of_a_step_that_never_answered(guard: Guard) -> None:
    seen: list[tuple[object, object]] = []

    async def create_and_crash(record: StageRecord) -> None:
        await create_charge(record)
        await crash(record)

    async def cancel(record: StageRecord) -> None:
        seen.append((record.note["charge"], record.response))

    with pytest.raises(ZeroDivisionError):
        await guard(create_and_crash).do(CALL, REQUEST)
    await guard(compensate=cancel).compensate(CALL, COMPENSATION)

    assert seen == [("charge-1", None)]


async def test_a_compensate_that_fails_resumes_from_its_own_note(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def refund_and_crash(record: StageRecord) -> None:
        await record.advance({**record.note, "refund": "refund-1"})
        await crash(record)

    async def resume(record: StageRecord) -> None:
        assert record.note["refund"] == "refund-1"
        assert record.note["charge"] == "charge-1"

    await guard(create_charge).do(CALL, REQUEST)
    with pytest.raises(ZeroDivisionError):
        await guard(compensate=refund_and_crash).compensate(CALL, COMPENSATION)
    assert await stored_state(engine) == "COMPENSATING"
    with pytest.raises(Superseded):
        await guard().do(CALL, REQUEST)

    await guard(compensate=resume).compensate(CALL, COMPENSATION)
    assert await stored_state(engine) == "COMPENSATED"


async def test_a_compensate_that_has_nothing_to_undo_does_not_run(guard: Guard) -> None:
    with pytest.raises(Rejected):
        await guard(reject).do(CALL, REQUEST)

    for _ in range(2):
        await guard(compensate=crash).compensate(CALL, COMPENSATION)


async def test_what_was_done_when_time_ran_out_is_noted_first(
    engine: AsyncEngine, guard: Guard
) -> None:
    readings = iter([0, 1_001])
    step = StagedBarrier(engine, clock=lambda: next(readings)).guard(Scripted(create_charge))

    with pytest.raises(NotNow) as refused:
        await step.do(CALL, REQUEST)
    assert refused.value.reason == "STEP_EXPIRED"

    async def cancel(record: StageRecord) -> None:
        assert record.note["charge"] == "charge-1"

    await guard(compensate=cancel).compensate(CALL, COMPENSATION)


async def test_an_effect_may_be_refused_because_time_ran_out(engine: AsyncEngine) -> None:
    async def check(record: StageRecord) -> None:
        record.refuse_expired()
        raise AssertionError("not reached")

    readings = iter([1_000, 1_001])
    step = StagedBarrier(engine, clock=lambda: next(readings)).guard(Scripted(check))

    with pytest.raises(NotNow) as refused:
        await step.do(CALL, REQUEST)
    assert refused.value.reason == "STEP_EXPIRED"


async def test_no_transaction_is_open_while_the_step_runs(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def look(_: StageRecord) -> None:
        async with engine.connect() as connection:
            assert (await connection.execute(OPEN_TRANSACTIONS)).scalar_one() == 0

    await guard(look).do(CALL, REQUEST)
    await guard(compensate=look).compensate(CALL, COMPENSATION)


@pytest.fixture
async def _told(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE told (what text PRIMARY KEY)"))


async def told(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT what FROM told"))).scalars())


async def note_and_tell(record: StageRecord) -> None:
    await record.advance({"charge": "charge-1"}, along=TELL(what="created"))


async def answer_and_tell(record: StageRecord) -> None:
    record.with_response(TELL(what="charged"))


@pytest.mark.usefixtures("_told")
async def test_what_goes_along_with_a_note_is_there_as_soon_as_the_note(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def look(record: StageRecord) -> None:
        await note_and_tell(record)
        assert await told(engine) == ["created"]
        await crash(record)

    with pytest.raises(ZeroDivisionError):
        await guard(look).do(CALL, REQUEST)
    assert await told(engine) == ["created"]


@pytest.mark.usefixtures("_told")
async def test_what_goes_along_with_a_note_that_comes_too_late_is_not_written(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def be_overtaken(record: StageRecord) -> None:
        with pytest.raises(ZeroDivisionError):
            await guard(note_and_crash).do(CALL, REQUEST)
        await record.advance({"charge": "charge-2"}, along=TELL(what="again"))

    async def note_and_crash(record: StageRecord) -> None:
        await create_charge(record)
        await crash(record)

    with pytest.raises(Conflict):
        await guard(be_overtaken).do(CALL, REQUEST)
    assert await told(engine) == []


@pytest.mark.usefixtures("_told")
async def test_a_note_is_not_kept_when_what_goes_along_cannot_be_written(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def note_twice(record: StageRecord) -> None:
        await note_and_tell(record)
        await record.advance({"charge": "charge-2"}, along=TELL(what="created"))

    async def resume(record: StageRecord) -> None:
        assert record.note == {"charge": "charge-1"}

    with pytest.raises(psycopg.errors.UniqueViolation):
        await guard(note_twice).do(CALL, REQUEST)
    await guard(resume).do(CALL, REQUEST)
    assert await told(engine) == ["created"]


@pytest.mark.usefixtures("_told")
async def test_what_goes_along_with_the_response_is_written_once(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def look(record: StageRecord) -> None:
        await answer_and_tell(record)
        assert await told(engine) == []

    for _ in range(2):
        await guard(look).do(CALL, REQUEST)
    assert await told(engine) == ["charged"]


@pytest.mark.usefixtures("_told")
async def test_what_goes_along_with_a_response_that_is_not_stored_is_not_written(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def reject_after_all(record: StageRecord) -> None:
        await answer_and_tell(record)
        await reject(record)

    with pytest.raises(Rejected):
        await guard(reject_after_all).do(CALL, REQUEST)
    assert await told(engine) == []


@pytest.mark.usefixtures("_told")
async def test_what_goes_along_with_a_response_that_compensate_forestalls_is_not_written(
    guard: Guard, engine: AsyncEngine
) -> None:
    async def be_compensated(record: StageRecord) -> None:
        await answer_and_tell(record)
        await guard().compensate(CALL, COMPENSATION)

    with pytest.raises(Superseded):
        await guard(be_compensated).do(CALL, REQUEST)
    assert await told(engine) == []


@pytest.mark.usefixtures("_told")
async def test_a_parameter_with_the_name_of_one_of_the_barriers_is_a_mistake(guard: Guard) -> None:
    state = AlongStatement("mine", "SELECT %(state)s FROM moved", {"state": "text"})

    async def note(record: StageRecord) -> None:
        await record.advance({}, along=state(state="mine"))

    with pytest.raises(ValueError, match="state"):
        await guard(note).do(CALL, REQUEST)

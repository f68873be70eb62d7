"""A participant process that kills itself (SIGKILL) at the n-th of its writes.

It runs one call of a guarded step. Its engine counts statements and ends of transactions, and
after the chosen one the process is gone, as by `kill -9`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from dataclasses import dataclass
from enum import StrEnum

import pytest
from google.protobuf.message import Message
from sqlalchemy import Column, MetaData, Table, Text, event, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.barrier import at_once, rows
from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.staged import StagedBarrier
from mesh.errors import Rejected
from mesh.postgres import create_engine
from mesh.statement import Question, Rows, ask
from mesh.step import GuardedStep, StepCall
from tests.contract.at_once_harness import CreateOrderAtOnce
from tests.contract.postgres_harness import CreateOrder, effects
from tests.contract.staged_harness import ChargePayment
from tests.moments import when_given_back

NEVER = 0
ANSWERED = 0
"""Exit code of a call that was answered, with OK or with a rejection."""

_MOMENTS = (
    "after_cursor_execute",  # which is as good as before the next one
    "checkin",  # committed or rolled back, and nothing answered yet
)

charges = Table(
    "charge",
    MetaData(),
    Column("key", Text, primary_key=True),
    Column("saga_id", Text, nullable=False),
    Column("state", Text, nullable=False),
)


class Kind(StrEnum):
    POSTGRES = "postgres"
    AT_ONCE = "at once"
    STAGED = "staged"


class Ask(StrEnum):
    DO = "do"
    DO_REJECTED = "do, rejected"
    COMPENSATE = "compensate"


@dataclass(frozen=True)
class Run:
    """One call in one process."""

    dsn: str
    kind: Kind
    ask: Ask
    saga_id: str
    kill_at: int = NEVER


class LedgerProvider:
    """A provider with its ledger on disk, which commits every call at once."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.rejecting = False

    async def create(self, saga_id: str, key: str) -> str:
        charge = {"key": key, "saga_id": saga_id, "state": "created"}
        async with self._engine.connect() as connection:
            await connection.execute(insert(charges).values(charge).on_conflict_do_nothing())
        return key

    async def confirm(self, charge_id: str) -> bool:
        await self._change(charge_id, "created", "refused" if self.rejecting else "charged")
        state = select(charges.c.state).where(charges.c.key == charge_id)
        async with self._engine.connect() as connection:
            return bool((await connection.execute(state)).scalar_one() == "charged")

    async def undo(self, charge_id: str) -> None:
        await self._change(charge_id, "charged", "refunded")
        await self._change(charge_id, "created", "cancelled")

    async def _change(self, charge_id: str, source: str, target: str) -> None:
        here = (charges.c.key == charge_id) & (charges.c.state == source)
        async with self._engine.connect() as connection:
            await connection.execute(update(charges).where(here).values(state=target))


def run(call: Run) -> None:
    """The body of the process; exits with ANSWERED, or not at all."""
    asyncio.run(_run(call))


async def _run(run: Run) -> None:
    engine = create_engine(run.dsn)
    async with engine.connect() as connection:  # what a new connection asks is of no interest
        await connection.execute(select(1))
    _kill_at(engine, run.kill_at)
    await answer(run, engine)
    await engine.dispose()


def _kill_at(engine: AsyncEngine, chosen: int) -> None:
    moments = itertools.count(1)

    def pass_by(*_: object) -> None:
        if next(moments) == chosen:
            os.kill(os.getpid(), signal.SIGKILL)

    async def ask_and_pass_by(connection: AsyncConnection, *questions: Question) -> list[Rows]:
        answers = await ask(connection, *questions)
        pass_by()
        return answers

    for moment in _MOMENTS:
        event.listen(engine.sync_engine, moment, pass_by)
    for asking in (rows, at_once):  # past SQLAlchemy
        pytest.MonkeyPatch().setattr(asking, "ask", ask_and_pass_by)
    when_given_back(pass_by)


async def answer(run: Run, engine: AsyncEngine) -> Message | None:
    """Make the call; None when it is rejected."""
    call = StepCall(saga_id=run.saga_id, step="the_step")
    step = _guarded(run, engine)
    request = step.types.request(order_id="order-1")
    try:
        if run.ask is Ask.COMPENSATE:
            return await step.compensate(call, step.types.compensation(request=request))
        return await step.do(call, request)
    except Rejected:
        return None


async def effects_of(run: Run, engine: AsyncEngine) -> int:
    """What the saga holds now."""
    in_database = select(func.count()).where(effects.c.saga_id == run.saga_id)
    counts = {
        Kind.POSTGRES: in_database,
        Kind.AT_ONCE: in_database,
        Kind.STAGED: select(func.count()).where(
            charges.c.saga_id == run.saga_id, charges.c.state == "charged"
        ),
    }
    async with engine.connect() as connection:
        return (await connection.execute(counts[run.kind])).scalar_one()


def _guarded(run: Run, engine: AsyncEngine) -> GuardedStep:
    rejecting = run.ask is Ask.DO_REJECTED
    if run.kind is not Kind.STAGED:
        order = CreateOrder() if run.kind is Kind.POSTGRES else CreateOrderAtOnce()
        order.rejecting = rejecting
        return PostgresBarrier(engine).guard(order)
    provider = LedgerProvider(engine)
    provider.rejecting = rejecting
    return StagedBarrier(engine).guard(ChargePayment(provider))

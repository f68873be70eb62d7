"""ChargePayment on one thread under a scheduler that may stop, double or kill it at every await.

The provider is the sandbox's own operations on a ledger in memory, the barrier a row in memory with
the rules of the real one. Before and after each call to either, a coroutine gives way; the
scheduler decides by its seed who goes on, who dies there, and which answers are lost.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import Message
from google.type import money_pb2

from mesh.barrier.along import Along
from mesh.barrier.rules import already_compensated, busy
from mesh.barrier.staged import Note, StageRecord
from mesh.errors import Conflict, MeshError, Rejected, Retry
from mesh.money import Money
from mesh.step import StepCall
from payment_svc.payment import SOURCES, Charge, PaymentState
from payment_svc.provider import (
    Intent,
    IntentState,
    Passed,
    ProviderBroken,
    Refund,
    RefundState,
    Refused,
)
from payment_svc.sandbox.errors import Answer, Json
from payment_svc.sandbox.ledger import Ledger
from payment_svc.sandbox.objects import (
    CancelIntent,
    ConfirmIntent,
    CreateIntent,
    CreateRefund,
    Parameters,
    RefundPage,
    RetrieveIntent,
)
from payment_svc.sandbox.operations import Operations, Request
from payment_svc.sandbox.rules import Moment
from payment_svc.sandbox.switches import FaultKind
from payment_svc.steps import ChargePayment
from protos.payment.v1 import payment_pb2

AMOUNT = 1999
CALL = StepCall(saga_id="walk", step="charge_payment")
DAY = 24 * 3600
CARDS = [
    "pm_card_visa",
    "pm_card_chargeDeclined",
    "pm_card_chargeDeclinedOnce",
    "pm_card_processing",
    "pm_card_processingThenDeclined",
]
ACCIDENTS = (
    FaultKind.RATE_LIMIT,
    FaultKind.ERROR_BEFORE,
    FaultKind.ERROR_AFTER,
    FaultKind.DROP_BEFORE,
    FaultKind.DROP_AFTER,
    FaultKind.REFUND_PENDING,
)


class Pause:
    """Where the scheduler may do anything."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Provider:
    """The port over the sandbox's operations, with accidents on the way."""

    def __init__(self, chance: random.Random) -> None:
        self.operations = Operations(Ledger(Path(":memory:")))
        self.now = 1_000_000
        self.accidents: tuple[FaultKind, ...] = ACCIDENTS
        self.accident_rate = 0.25
        self._chance = chance
        self._ids = itertools.count()

    async def create(self, amount: Money, metadata: Mapping[str, str], key: str) -> Intent:
        parameters = CreateIntent(
            amount=amount.minor_units, currency=amount.currency, metadata=dict(metadata)
        )
        return _intent(await self._ask(parameters, key=key))

    async def confirm(self, intent_id: str, payment_method: str, key: str) -> Intent:
        parameters = ConfirmIntent(payment_method=payment_method, off_session=True)
        return _intent(await self._ask(parameters, intent_id, key))

    async def retrieve(self, intent_id: str) -> Intent:
        return _intent(await self._ask(RetrieveIntent(), intent_id))

    async def cancel(self, intent_id: str) -> Intent:
        return _intent(await self._ask(CancelIntent(), intent_id))

    async def refunds(self, intent_id: str) -> list[Refund]:
        page = await self._ask(RefundPage(payment_intent=intent_id, limit=100))
        return [_refund(each) for each in page["data"]]

    async def refund(self, intent_id: str, key: str) -> Refund:
        return _refund(await self._ask(CreateRefund(payment_intent=intent_id), key=key))

    async def _ask(self, parameters: Parameters, target: str = "", key: str | None = None) -> Json:
        await Pause()
        fault = self._fault()
        if fault in {FaultKind.DROP_BEFORE, FaultKind.RATE_LIMIT}:
            raise Retry("LOST", "never arrived")
        moment = Moment(now=self.now, new_id=f"{next(self._ids)}", settle_seconds=30)
        request = Request(target=target, parameters=parameters, key=key)
        answer = self.operations.reply(request, moment, fault).answer
        await Pause()
        if fault is FaultKind.DROP_AFTER:
            raise Retry("LOST", "answer lost")
        return _read(answer)

    def _fault(self) -> FaultKind | None:
        happens = self._chance.random() < self.accident_rate
        return self._chance.choice(self.accidents) if happens else None


def _read(answer: Answer) -> Json:
    if answer.http_code == 200:
        return answer.body
    if answer.http_code == 500:
        raise ProviderBroken("PROVIDER_BROKEN", "500")
    code = answer.body["error"].get("code")
    if code in {"payment_intent_unexpected_state", "charge_already_refunded"}:
        raise Passed(code)
    assert answer.http_code == 402, answer
    raise Refused(str(code).upper())


def _intent(body: Json) -> Intent:
    state = {
        "processing": IntentState.PROCESSING,
        "succeeded": IntentState.SUCCEEDED,
        "canceled": IntentState.CANCELLED,
    }.get(body["status"], IntentState.OPEN)
    reason = "CARD_DECLINED" if body["last_payment_error"] else ""
    return Intent(
        id=body["id"], state=state, captured=body["amount_received"], decline_reason=reason
    )


def _refund(body: Json) -> Refund:
    return Refund(amount=body["amount"], state=RefundState(body["status"]))


@dataclass
class Row:
    """What the barrier stores."""

    state: str = ""
    note: Note = field(default_factory=dict)
    stage: int = 0
    outcome: Message | Rejected | None = None


class Record(StageRecord):
    """What one attempt has read of the row."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._state, self._note, self._stage = row.state, row.note, row.stage
        self.along: Along | None = None

    @property
    def note(self) -> Note:
        return self._note

    @property
    def response(self) -> Message | None:
        return self._row.outcome if isinstance(self._row.outcome, Message) else None

    async def advance(self, note: Note, along: Along | None = None) -> None:
        await Pause()
        row = self._row
        if (row.state, row.stage) != (self._state, self._stage):
            undone = self._state == "DOING" and row.state.startswith("COMPENSAT")
            raise already_compensated(CALL) if undone else busy(CALL)
        row.note, row.stage = note, row.stage + 1
        self._note, self._stage = note, row.stage
        write(along)
        await Pause()

    def with_response(self, along: Along) -> None:
        self.along = along

    def refuse_expired(self) -> None:
        pass


class Payments:
    """The table for readers, without a database."""

    def __init__(self) -> None:
        self.states: dict[str, PaymentState] = {}

    async def mark(self, charge: Charge, state: PaymentState, *, failure_reason: str = "") -> bool:
        await Pause()
        changed = self._write(charge, state)
        await Pause()
        return changed

    def marking(self, charge: Charge, state: PaymentState) -> Along:
        return cast("Along", partial(self._write, charge, state))

    def _write(self, charge: Charge, state: PaymentState) -> bool:
        stored = self.states.get(charge.payment_id)
        changed = stored is None or stored in SOURCES[state]
        if changed:
            self.states[charge.payment_id] = state
        return changed


def write(along: Along | None) -> None:
    """Do what goes along with a change of the row, in the same moment."""
    if along is not None:
        cast("Callable[[], bool]", along)()


class World:
    """One saga's charge, its barrier, its provider, and everybody who is at it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.provider = Provider(self.chance)
        self.payments = Payments()
        self.row = Row()
        ids = itertools.count()
        self._step = ChargePayment(
            self.provider,
            self.payments,  # type: ignore[arg-type] # the same verb, without a database
            new_id=lambda: f"payment-{next(ids)}",
        )
        self._request = payment_pb2.ChargePaymentRequest(
            order_id="order-1",
            amount=money_pb2.Money(currency_code="EUR", units=19, nanos=990_000_000),
            payment_method=self.chance.choice(CARDS),
        )

    async def do(self) -> Message:
        """One attempt of Do, as the barrier runs it."""
        await Pause()
        if not self.row.state:
            self.row.state = "DOING"
        await Pause()
        if self.row.state == "DOING":
            record = Record(self.row)
            try:
                outcome: Message | Rejected = await self._step.do(CALL, self._request, record)
            except Rejected as rejected:
                outcome = rejected
            await Pause()
            self._settle(outcome, record.along)
            await Pause()
        return self._answer()

    async def compensate(self) -> None:
        """One attempt of Compensate, as the barrier runs it."""
        await Pause()
        undoing = self.row.state in {"DOING", "DONE", "COMPENSATING"}
        self.row.state = "COMPENSATING" if undoing else "COMPENSATED"
        await Pause()
        if undoing:
            await self._step.compensate(CALL, self._request, Record(self.row))
            await Pause()
            self.row.state = "COMPENSATED"

    def _settle(self, outcome: Message | Rejected, along: Along | None) -> None:
        if self.row.state != "DOING":
            return
        self.row.outcome = outcome
        if isinstance(outcome, Rejected):
            self.row.state = "REJECTED"
        else:
            self.row.state = "DONE"
            write(along)

    def _answer(self) -> Message:
        if self.row.state.startswith("COMPENSAT"):
            raise already_compensated(CALL)
        if isinstance(self.row.outcome, Rejected):
            raise self.row.outcome
        assert self.row.outcome is not None
        return self.row.outcome

    def kept(self) -> int:
        """Captured minus refunded, over everything the saga has at the provider."""
        moment = Moment(now=self.provider.now, new_id="", settle_seconds=0)
        lines = self.provider.operations.books(moment)
        return sum(line["captured"] - line["refunded"] for line in lines)


Running = list[Coroutine[Any, Any, object]]


def advance(world: World, running: Running, which: int) -> None:
    """Let one go on to its next pause, or to its end."""
    try:
        running[which].send(None)
    except StopIteration:
        del running[which]
    except (MeshError, Conflict):
        del running[which]


def finish(attempt: Coroutine[Any, Any, object]) -> MeshError | None:
    """Let one go on to its end, alone; what it was refused with, or None."""
    try:
        while True:
            attempt.send(None)
    except StopIteration:
        return None
    except MeshError as refused:
        return refused

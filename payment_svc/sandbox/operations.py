"""Calls of the API in one transaction: each replays its saved answer, or is performed and saved.

The first answer of an idempotency key is what the key answers for 24 hours, whatever it was: a
decline, a refusal, a 500. Requests whose parameters do not parse and 429s never get here, so
nothing is saved for them. What is due is settled first, so every answer is up to date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from payment_svc.sandbox import rules
from payment_svc.sandbox.errors import Answer, ApiError, Json, internal, key_reused, missing
from payment_svc.sandbox.ledger import Ledger, SavedAnswer
from payment_svc.sandbox.objects import (
    CancelIntent,
    ConfirmIntent,
    CreateIntent,
    CreateRefund,
    Page,
    Parameters,
    PaymentIntent,
    Refund,
    RefundPage,
    RefundState,
    RetrieveIntent,
    RetrieveRefund,
)
from payment_svc.sandbox.rules import Moment
from payment_svc.sandbox.switches import FaultKind

KEY_SECONDS = 24 * 3600
"""How long an idempotency key means something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of the API, its parameters parsed."""

    target: str = ""
    """Id of the object in the path; empty when there is none."""
    parameters: Parameters
    key: str | None = None
    """The Idempotency-Key; None for reads."""

    @property
    def sha(self) -> bytes:
        """What has to be the same whenever the key is used."""
        parameters = self.parameters.model_dump(mode="json")
        said = [self.parameters.operation, self.target, parameters]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, when it is served, and what goes wrong with it."""

    request: Request
    moment: Moment
    fault: FaultKind | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and whether it was saved earlier."""

    answer: Answer
    replayed: bool


class Operations:
    """What the provider does, on its ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def reply(self, request: Request, moment: Moment, fault: FaultKind | None) -> Reply:
        """Answer one request; the answer is on disk when this returns.

        Raises:
            ApiError: the key belongs to another request.
        """
        (reply,) = self.replies([Asked(request, moment, fault)])
        if isinstance(reply, ApiError):
            raise reply
        return reply

    def replies(self, asked: Sequence[Asked]) -> list[Reply | ApiError]:
        """Answer requests, one after the other; all answers are on disk when this returns."""
        with self._ledger.transaction():
            return [self._reply(each) for each in asked]

    def _reply(self, asked: Asked) -> Reply | ApiError:
        request, moment, fault = asked.request, asked.moment, asked.fault
        self._settle(moment)
        if request.key is None:
            return Reply(self._answer(request, moment, fault), replayed=False)
        sha = request.sha
        saved = self._ledger.saved_answer(request.key, moment.now - KEY_SECONDS)
        if saved is None:
            answer = self._answer(request, moment, fault)
            self._ledger.save_answer(request.key, SavedAnswer(sha, answer), moment.now)
            return Reply(answer, replayed=False)
        return Reply(saved.answer, replayed=True) if saved.request_sha == sha else key_reused()

    def books(self, moment: Moment) -> list[Json]:
        """What was captured and refunded, per PaymentIntent, oldest first."""
        with self._ledger.transaction():
            self._settle(moment)
            return [_line(intent, refunds) for intent, refunds in self._ledger.everything()]

    def _settle(self, moment: Moment) -> None:
        for intent in self._ledger.due_intents(moment.now):
            self._ledger.put_intent(rules.settle(intent, moment))
        for refund in self._ledger.due_refunds(moment.now):
            self._ledger.put_refund(rules.settle_refund(refund))

    def _answer(self, request: Request, moment: Moment, fault: FaultKind | None) -> Answer:
        if fault is FaultKind.ERROR_BEFORE:
            return internal().answer
        try:
            answer = self._perform(request, moment, fault)
        except ApiError as refused:
            answer = refused.answer
        return internal().answer if fault is FaultKind.ERROR_AFTER else answer

    def _perform(self, request: Request, moment: Moment, fault: FaultKind | None) -> Answer:
        match request.parameters:
            case CreateIntent() as create:
                return self._create(create, moment)
            case ConfirmIntent() as confirm:
                return self._confirm(self._intent(request.target), confirm, moment)
            case CancelIntent():
                return self._cancel(self._intent(request.target), moment, fault)
            case CreateRefund() as wanted:
                return self._refund(wanted, moment, fault)
            case _:
                return self._read(request)

    def _read(self, request: Request) -> Answer:
        match request.parameters:
            case RetrieveIntent():
                return Answer(200, self._intent(request.target).shown())
            case RetrieveRefund():
                return self._retrieve_refund(request.target)
            case RefundPage() as page:
                return _page("/v1/refunds", self._ledger.refunds(page), page)
            case Page() as page:
                return _page("/v1/payment_intents", self._ledger.intents(page), page)
            case other:
                raise NotImplementedError(type(other).__name__)

    def _intent(self, intent_id: str, *, param: str = "intent") -> PaymentIntent:
        intent = self._ledger.intent(intent_id)
        if intent is None:
            raise missing("payment_intent", intent_id, param=param)
        return intent

    def _create(self, parameters: CreateIntent, moment: Moment) -> Answer:
        intent = rules.create(parameters, moment)
        if parameters.confirm:
            return self._confirm(intent, parameters, moment)
        return self._stored(intent)

    def _confirm(self, intent: PaymentIntent, parameters: ConfirmIntent, moment: Moment) -> Answer:
        confirmed = rules.confirm(intent, parameters, moment)
        stored = self._stored(confirmed)
        return (
            stored if confirmed.last_payment_error is None else rules.card_error(confirmed).answer
        )

    def _cancel(self, intent: PaymentIntent, moment: Moment, fault: FaultKind | None) -> Answer:
        if fault is FaultKind.LOSE_TO_CONFIRM and intent.status in rules.OPEN:
            quicker = ConfirmIntent(payment_method="pm_card_visa")
            intent = rules.confirm(intent, quicker, moment)
            self._stored(intent)
        return self._stored(rules.cancel(intent, moment))

    def _stored(self, intent: PaymentIntent) -> Answer:
        self._ledger.put_intent(intent)
        return Answer(200, intent.shown())

    def _refund(self, parameters: CreateRefund, moment: Moment, fault: FaultKind | None) -> Answer:
        intent = self._intent(parameters.payment_intent, param="payment_intent")
        earlier = self._ledger.refunds(RefundPage(payment_intent=intent.id, limit=100))
        refund = rules.refund(intent, earlier, parameters, moment)
        if fault is FaultKind.REFUND_FAILS:
            refund = rules.failed(refund)
        elif fault is FaultKind.REFUND_PENDING:
            refund = rules.pending(refund, moment)
        self._ledger.put_refund(refund)
        return Answer(200, refund.shown())

    def _retrieve_refund(self, refund_id: str) -> Answer:
        refund = self._ledger.refund(refund_id)
        if refund is None:
            raise missing("refund", refund_id)
        return Answer(200, refund.shown())


def _page(url: str, found: Sequence[PaymentIntent | Refund], page: Page) -> Answer:
    data = [each.shown() for each in found[: page.limit]]
    more = len(found) > page.limit
    return Answer(200, {"object": "list", "data": data, "has_more": more, "url": url})


def _line(intent: PaymentIntent, refunds: Sequence[Refund]) -> Json:
    returned = (each.amount for each in refunds if each.status is RefundState.SUCCEEDED)
    return {
        "payment_intent": intent.id,
        "saga_id": intent.metadata.get("saga_id", ""),
        "metadata": intent.metadata,
        "currency": intent.currency,
        "amount": intent.amount,
        "status": intent.status,
        "captured": intent.amount_received,
        "refunded": sum(returned),
        "refunds": [{"id": each.id, "status": each.status} for each in refunds],
    }

"""The sandbox's own promises, on random requests: a fake that loses money proves nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from payment_svc.sandbox.cards import CARDS
from payment_svc.sandbox.errors import ApiError, Json
from payment_svc.sandbox.ledger import Ledger
from payment_svc.sandbox.objects import (
    CancelIntent,
    ConfirmIntent,
    CreateIntent,
    CreateRefund,
    Parameters,
)
from payment_svc.sandbox.operations import KEY_SECONDS, Operations, Reply, Request
from payment_svc.sandbox.rules import Moment
from payment_svc.sandbox.switches import FaultKind

AMOUNT = 1000
CHANGES: st.SearchStrategy[Parameters] = st.one_of(
    st.builds(ConfirmIntent, payment_method=st.sampled_from(sorted(CARDS))),
    st.just(CancelIntent()),
    st.builds(
        CreateRefund,
        payment_intent=st.just("pi_0"),
        amount=st.none() | st.integers(1, AMOUNT + 1),
    ),
)


class Bank:
    """The operations at a moving time, with ids in order: the first intent is pi_0."""

    def __init__(self) -> None:
        self.operations = Operations(Ledger(Path(":memory:")))
        self.now = 0
        self.asked = 0

    def ask(
        self, parameters: Parameters, *, key: str | None = None, fault: FaultKind | None = None
    ) -> Reply:
        moment = Moment(now=self.now, new_id=str(self.asked), settle_seconds=30)
        self.asked += 1
        request = Request(target="pi_0", parameters=parameters, key=key)
        return self.operations.reply(request, moment, fault)

    def open(self) -> Reply:
        return self.ask(CreateIntent(amount=AMOUNT, currency="eur"), key="open")

    @property
    def line(self) -> Json:
        moment = Moment(now=self.now, new_id="", settle_seconds=0)
        (line,) = self.operations.books(moment)
        return line


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(CHANGES, st.sampled_from(["a", "b", None]), st.integers(0, 40)), max_size=12)
)
def test_an_intent_takes_its_amount_once_and_gives_back_no_more_and_final_states_stay(
    changes: list[tuple[Parameters, str | None, int]],
) -> None:
    bank = Bank()
    bank.open()
    final = ""
    for parameters, key, seconds in changes:
        bank.now += seconds
        with suppress(ApiError):  # the key was used for something else
            bank.ask(parameters, key=key)
        line = bank.line
        assert line["captured"] in {0, AMOUNT}
        assert (line["captured"] == AMOUNT) == (line["status"] == "succeeded")
        assert 0 <= line["refunded"] <= line["captured"]
        assert final in {"", line["status"]}
        final = line["status"] if line["status"] in {"succeeded", "canceled"} else ""


def test_a_key_answers_for_24_hours_and_then_means_nothing() -> None:
    bank = Bank()
    confirm = ConfirmIntent(payment_method="pm_card_visa")
    bank.open()
    first = bank.ask(confirm, key="k", fault=FaultKind.ERROR_BEFORE)
    bank.now = KEY_SECONDS - 1
    assert bank.ask(confirm, key="k") == Reply(first.answer, replayed=True)
    bank.now = KEY_SECONDS
    again = bank.ask(confirm, key="k")
    assert (again.replayed, again.answer.http_code) == (False, 200)


def test_an_error_after_the_effect_is_replayed_although_the_money_is_taken() -> None:
    bank = Bank()
    confirm = ConfirmIntent(payment_method="pm_card_visa")
    bank.open()
    assert bank.ask(confirm, key="k", fault=FaultKind.ERROR_AFTER).answer.http_code == 500
    assert bank.ask(confirm, key="k").answer.http_code == 500
    assert bank.line["captured"] == AMOUNT

"""Each promise can fail: one planted violation breaks exactly the promises that it should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.figures import report
from tests.chaos.invariants import PROMISES, violations
from tests.chaos.records import (
    Call,
    History,
    LedgerLine,
    Orphan,
    Reconciliation,
    Record,
    Run,
    StoredBarrier,
    StoredEvent,
    StoredOrder,
    StoredPlacement,
    StoredSaga,
    StoredShipment,
    StoredStock,
    Told,
    load,
    save,
)

STEPS = ("create_order", "charge_payment")

RUN = Run(seed=1, seconds=60, rate=5, stock={"coffee": 10})
STOCK = StoredStock(product="coffee", available=8, reserved=2, available_after=8, reserved_after=0)


def told(number: int, **but: object) -> Told:
    fields: dict[str, Any] = {
        "name": f"n-{number}",
        "saga_id": f"s-{number}",
        "order_id": f"o-{number}",
        "total": 2500,
        "cart": {"coffee": 2},
        "accepted_cancel": False,
        "watched": [1, 2, 3],
        "seen_state": "",
    }
    return Told(**{**fields, **but})


def event(number: int, revision: int, kind: str, step: str, *next_calls: str) -> StoredEvent:
    direction = "COMPENSATE" if kind in ("STEP_REJECTED", "STEP_COMPENSATED") else "DO"
    return StoredEvent(
        saga_id=f"s-{number}",
        revision=revision,
        kind=kind,
        step=step,
        attempt=1 if step else 0,
        reason="",
        commands=[(each, direction, 1) for each in next_calls],
    )


COMPLETED: list[Record] = [
    told(1, seen_state="COMPLETED"),
    StoredSaga(saga_id="s-1", state="COMPLETED", order_id="o-1"),
    event(1, 1, "STARTED", "", "create_order"),
    event(1, 2, "STEP_DONE", "create_order", "charge_payment"),
    event(1, 3, "STEP_DONE", "charge_payment"),
    StoredPlacement(order_id="o-1", saga_id="s-1"),
    StoredOrder(order_id="o-1", saga_id="s-1", state="CONFIRMED", total=2500, cart={"coffee": 2}),
    StoredShipment(order_id="o-1", saga_id="s-1", state="REQUESTED"),
    LedgerLine(saga_id="s-1", captured=2500, refunded=0),
    *(StoredBarrier(participant="shop", saga_id="s-1", step=step, state="DONE") for step in STEPS),
]
COMPENSATED: list[Record] = [
    told(2, accepted_cancel=True),
    StoredSaga(saga_id="s-2", state="COMPENSATED", order_id="o-2"),
    event(2, 1, "STARTED", "", "create_order"),
    event(2, 2, "STEP_DONE", "create_order", "charge_payment"),
    event(2, 3, "STEP_REJECTED", "charge_payment", "create_order"),
    event(2, 4, "STEP_COMPENSATED", "create_order"),
    StoredOrder(order_id="o-2", saga_id="s-2", state="CANCELLED", total=2500, cart={"coffee": 2}),
    StoredShipment(order_id="o-2", saga_id="s-2", state="CANCELLED"),
    LedgerLine(saga_id="s-2", captured=2500, refunded=2500),
    StoredBarrier(participant="shop", saga_id="s-2", step=STEPS[0], state="COMPENSATED"),
    StoredBarrier(participant="shop", saga_id="s-2", step=STEPS[1], state="REJECTED"),
]
CALL = Call(
    method="PlaceOrder",
    to="order",
    name="n-1",
    at=1.0,
    seconds=0.1,
    code="INTERNAL",
    reason="INTERNAL",
)
RECONCILED = Reconciliation(effects=4, orphans=0, unreachable=[])
GOOD = History((RUN, STOCK, RECONCILED, *COMPLETED, *COMPENSATED))


remade: Callable[..., Record] = replace
"""`replace`, for records whose kind is not known."""


def without(*gone: Record) -> History:
    assert set(map(id, gone)) <= set(map(id, GOOD.records))
    return History(tuple(each for each in GOOD.records if all(each is not one for one in gone)))


def changed(old: Record, **values: object) -> History:
    assert any(each is old for each in GOOD.records)
    return History(tuple(remade(each, **values) if each is old else each for each in GOOD.records))


def added(*new: Record) -> History:
    return History((*GOOD.records, *new))


def first(records: list[Record], kind: type[Record]) -> Record:
    return next(each for each in records if isinstance(each, kind))


def broken(history: History) -> set[str]:
    return {line.partition(":")[0] for line in violations(history)}


def test_a_good_history_keeps_every_promise() -> None:
    assert violations(GOOD) == []


PLANTED = [
    (
        "every_saga_that_a_client_was_told_of_exists",
        added(told(3)),
    ),
    (
        "every_promised_order_has_its_saga",
        added(StoredPlacement(order_id="o-3", saga_id="s-3")),
    ),
    (
        "every_saga_ends_all_done_or_all_undone",
        added(StoredSaga(saga_id="s-3", state="STUCK", order_id="o-3")),
    ),
    (
        "what_a_client_was_told_stays_true",
        changed(first(COMPLETED, Told), accepted_cancel=True),
    ),
    (
        "what_a_client_was_told_stays_true",
        changed(first(COMPENSATED, Told), seen_state="COMPLETED"),
    ),
    (
        "what_a_client_was_told_stays_true",
        changed(first(COMPLETED, Told), watched=[1, 3]),
    ),
    (
        "stock_is_what_was_there_less_what_was_sold",
        changed(STOCK, available=7),
    ),
    (
        "stock_is_what_was_there_less_what_was_sold",
        changed(STOCK, reserved=4),
    ),
    (
        "stock_is_what_was_there_less_what_was_sold",
        changed(STOCK, reserved_after=2),
    ),
    (
        "money_is_kept_exactly_for_completed_orders",
        without(first(COMPLETED, LedgerLine)),
    ),
    (
        "money_is_kept_exactly_for_completed_orders",
        changed(first(COMPENSATED, LedgerLine), refunded=0),
    ),
    (
        "money_is_kept_exactly_for_completed_orders",
        added(LedgerLine(saga_id="nobody", captured=5, refunded=0)),
    ),
    (
        "money_is_kept_exactly_for_completed_orders",
        added(LedgerLine(saga_id="nobody", captured=5, refunded=10)),
    ),
    (
        "every_customer_pays_once",
        added(LedgerLine(saga_id="s-1", captured=2500, refunded=2500)),
    ),
    (
        "shipments_are_exactly_for_completed_orders",
        without(first(COMPLETED, StoredShipment)),
    ),
    (
        "shipments_are_exactly_for_completed_orders",
        changed(first(COMPENSATED, StoredShipment), state="REQUESTED"),
    ),
    (
        "orders_are_what_their_sagas_made_of_them",
        changed(first(COMPLETED, StoredOrder), state="PENDING"),
    ),
    (
        "orders_are_what_their_sagas_made_of_them",
        changed(first(COMPENSATED, StoredOrder), state="CONFIRMED"),
    ),
    (
        "orders_are_what_their_sagas_made_of_them",
        added(StoredOrder(order_id="o-3", saga_id="none", state="CANCELLED", total=1, cart={})),
    ),
    (
        "orders_are_what_was_asked_for",
        changed(first(COMPENSATED, StoredOrder), total=1),
    ),
    (
        "orders_are_what_was_asked_for",
        changed(first(COMPENSATED, StoredOrder), cart={"mug": 2}),
    ),
    (
        "revisions_have_no_gap",
        added(event(2, 6, "ABORTED", "")),
    ),
    (
        "revisions_have_no_gap",
        changed(first(COMPLETED, StoredEvent), kind="ABORTED"),
    ),
    (
        "every_outcome_was_asked_for",
        added(event(2, 5, "STEP_COMPENSATED", "ship")),
    ),
    (
        "every_outcome_was_asked_for",
        added(event(2, 5, "STEP_COMPENSATED", "create_order")),
    ),
    (
        "participants_know_no_call_that_the_journal_does_not",
        added(StoredBarrier(participant="shop", saga_id="s-1", step="gift", state="REJECTED")),
    ),
    (
        "participants_hold_what_the_saga_says",
        changed(first(COMPENSATED, StoredBarrier), state="DONE"),
    ),
    (
        "participants_hold_what_the_saga_says",
        changed(first(COMPLETED, StoredBarrier), state="COMPENSATED"),
    ),
    (
        "what_is_away_is_never_an_internal_error",
        changed(first(COMPENSATED, StoredEvent), reason="INTERNAL"),
    ),
    (
        "what_is_away_is_never_an_internal_error",
        added(CALL),
    ),
    (
        "reconciliation_finds_no_orphan",
        without(RECONCILED),
    ),
    (
        "reconciliation_finds_no_orphan",
        changed(RECONCILED, unreachable=["payment"]),
    ),
    (
        "reconciliation_finds_no_orphan",
        added(Orphan(participant="shop", saga_id="s-9", step="x", kind="UNKNOWN_SAGA")),
    ),
]


@pytest.mark.parametrize(("promise", "history"), PLANTED)
def test_a_planted_violation_breaks_its_promise_and_no_other(
    promise: str, history: History
) -> None:
    assert broken(history) == {promise}


def test_every_promise_has_a_planted_violation() -> None:
    assert {promise.__name__ for promise in PROMISES} == {promise for promise, _ in PLANTED}


def test_an_order_of_a_completed_saga_that_is_missing_is_found() -> None:
    assert "orders_are_what_their_sagas_made_of_them" in broken(
        without(first(COMPLETED, StoredOrder))
    )


def test_a_saved_history_is_checked_again_as_it_was(tmp_path: Path) -> None:
    history = PLANTED[-1][1]
    save(tmp_path, history)
    assert load(tmp_path) == history
    assert violations(load(tmp_path)) == violations(history)


def test_the_report_names_every_violation() -> None:
    assert "promises  all held" in list(report(GOOD))
    assert "promises  1 violations" in list(report(PLANTED[0][1]))

"""The promises, checked in a history. Each function yields what breaks its promise, in a sentence.

Nothing here trusts a service: sagas, orders, stock, shipments, barriers and money are those of the
databases and of the provider's ledger after the run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from tests.chaos.records import (
    Call,
    History,
    LedgerLine,
    Orphan,
    Reconciliation,
    StoredBarrier,
    StoredEvent,
    StoredOrder,
    StoredPlacement,
    StoredSaga,
    StoredShipment,
    StoredStock,
    Told,
)

_ENDED = ("COMPLETED", "COMPENSATED")
Promise = Callable[[History], Iterator[str]]


def violations(history: History) -> list[str]:
    """Everything that breaks a promise, with the name of the promise before it."""
    return [f"{promise.__name__}: {broken}" for promise in PROMISES for broken in promise(history)]


def every_saga_that_a_client_was_told_of_exists(history: History) -> Iterator[str]:
    """StartSaga and PlaceOrder answer only for what survives."""
    stored = {saga.saga_id for saga in history.all(StoredSaga)}
    for told in history.all(Told):
        if told.saga_id and told.saga_id not in stored:
            yield f"saga {told.saga_id} of {told.name} is lost"


def every_promised_order_has_its_saga(history: History) -> Iterator[str]:
    """Also where PlaceOrder could not answer: what it wrote down is started."""
    stored = {saga.saga_id for saga in history.all(StoredSaga)}
    for placement in history.all(StoredPlacement):
        if placement.saga_id not in stored:
            yield f"order {placement.order_id} waits for saga {placement.saga_id}"


def every_saga_ends_all_done_or_all_undone(history: History) -> Iterator[str]:
    """No saga waits, is stuck, or was given up."""
    for saga in history.all(StoredSaga):
        if saga.state not in _ENDED:
            yield f"saga {saga.saga_id} is {saga.state}"


def what_a_client_was_told_stays_true(history: History) -> Iterator[str]:
    """An accepted cancel undoes; a final state that was shown is the one in the end."""
    states = {saga.saga_id: saga.state for saga in history.all(StoredSaga)}
    for told in history.all(Told):
        state = states.get(told.saga_id, "")
        if told.accepted_cancel and state == "COMPLETED":
            yield f"saga {told.saga_id} is COMPLETED although its cancel was accepted"
        if told.seen_state and told.seen_state != state:
            yield f"saga {told.saga_id} was shown as {told.seen_state} and is {state}"
        if told.watched != list(range(1, len(told.watched) + 1)):
            yield f"whoever watched saga {told.saga_id} saw revisions {told.watched}"


def stock_is_what_was_there_less_what_was_sold(history: History) -> Iterator[str]:
    """Held exactly for completed orders, and gone from the shelves once these are shipped."""
    sold = _sold(history)
    for stock in history.all(StoredStock):
        first, gone = history.run.stock[stock.product], sold[stock.product]
        if (stock.available, stock.reserved) != (first - gone, gone):
            yield (
                f"{stock.product}: {first} at first, {gone} sold, but {stock.available} available"
                f" and {stock.reserved} reserved"
            )
        if (stock.available_after, stock.reserved_after) != (first - gone, 0):
            yield (
                f"{stock.product} after shipping: {stock.available_after} available and"
                f" {stock.reserved_after} reserved instead of {first - gone} and none"
            )


def money_is_kept_exactly_for_completed_orders(history: History) -> Iterator[str]:
    """Captured less refunded at the provider is the total of the order, or nothing."""
    totals = {order.saga_id: order.total for order in history.all(StoredOrder)}
    kept: Counter[str] = Counter()
    for line in history.all(LedgerLine):
        kept[line.saga_id] += line.captured - line.refunded
        if line.captured and not 0 <= line.refunded <= line.captured:
            yield f"saga {line.saga_id}: {line.refunded} of {line.captured} refunded"
    states = {saga.saga_id: saga.state for saga in history.all(StoredSaga)}
    for saga_id in kept.keys() | states.keys():
        due = totals.get(saga_id, 0) if states.get(saga_id) == "COMPLETED" else 0
        if kept[saga_id] != due:
            yield f"saga {saga_id} ({states.get(saga_id)}): {kept[saga_id]} kept instead of {due}"


def every_customer_pays_once(history: History) -> Iterator[str]:
    """No saga has captured twice, even if one of the two was given back."""
    captures = Counter(line.saga_id for line in history.all(LedgerLine) if line.captured)
    for saga_id, count in captures.items():
        if count > 1:
            yield f"saga {saga_id} captured {count} times"


def shipments_are_exactly_for_completed_orders(history: History) -> Iterator[str]:
    """One live shipment for each, and none for others."""
    live = Counter(
        shipment.saga_id
        for shipment in history.all(StoredShipment)
        if shipment.state != "CANCELLED"
    )
    states = {saga.saga_id: saga.state for saga in history.all(StoredSaga)}
    for saga_id in live.keys() | states.keys():
        due = 1 if states.get(saga_id) == "COMPLETED" else 0
        if live[saga_id] != due:
            yield f"saga {saga_id} ({states.get(saga_id)}): {live[saga_id]} shipments, not {due}"


def orders_are_what_their_sagas_made_of_them(history: History) -> Iterator[str]:
    """CONFIRMED where the saga is COMPLETED, CANCELLED where it is undone; none without a saga."""
    states = {saga.saga_id: saga.state for saga in history.all(StoredSaga)}
    due = {"COMPLETED": "CONFIRMED", "COMPENSATED": "CANCELLED"}
    confirmed = Counter(
        order.saga_id for order in history.all(StoredOrder) if order.state == "CONFIRMED"
    )
    for order in history.all(StoredOrder):
        state = states.get(order.saga_id)
        if state is None:
            yield f"order {order.order_id} is {order.state} without a saga"
        elif order.state != due.get(state):
            yield f"order {order.order_id} is {order.state} although its saga is {state}"
    for saga_id, state in states.items():
        if state == "COMPLETED" and confirmed[saga_id] != 1:
            yield f"saga {saga_id} is COMPLETED with {confirmed[saga_id]} confirmed orders"


def orders_are_what_was_asked_for(history: History) -> Iterator[str]:
    """The items and the total that are stored are those of the customer."""
    orders = {order.saga_id: order for order in history.all(StoredOrder)}
    for told in history.all(Told):
        order = orders.get(told.saga_id)
        if order and (order.total, order.cart) != (told.total, told.cart):
            yield f"{told.name} is {order.cart} for {order.total}, not {told.cart}, {told.total}"


def revisions_have_no_gap(history: History) -> Iterator[str]:
    """Each saga's events are numbered from 1 on, begin with its start, and none follows its end."""
    for saga_id, events in _events(history).items():
        if [event.revision for event in events] != list(range(1, len(events) + 1)):
            yield f"saga {saga_id} has revisions {[event.revision for event in events]}"
        if events[0].kind != "STARTED":
            yield f"saga {saga_id} begins with {events[0].kind}"


def every_outcome_was_asked_for(history: History) -> Iterator[str]:
    """Answers belong to calls that were decided before, and each end of a step is taken once."""
    answers = ("STEP_DONE", "STEP_REJECTED", "STEP_COMPENSATED", "ATTEMPT_FAILED")
    for saga_id, events in _events(history).items():
        decided: set[tuple[str, int]] = set()
        outcomes: Counter[tuple[str, str]] = Counter()
        for event in events:
            if event.kind in answers and (event.step, event.attempt) not in decided:
                yield f"saga {saga_id}: {event.kind} of {event.step} was never asked for"
            if event.kind in ("STEP_DONE", "STEP_COMPENSATED"):
                outcomes[event.step, event.kind] += 1
            decided |= {(step, attempt) for step, _, attempt in event.commands}
        for (step, kind), count in outcomes.items():
            if count > 1:
                yield f"saga {saga_id}: {count} times {kind} of {step}"


def participants_know_no_call_that_the_journal_does_not(history: History) -> Iterator[str]:
    """Nothing is sent that is not on disk."""
    decided = {
        (event.saga_id, step) for event in history.all(StoredEvent) for step, _, _ in event.commands
    }
    for barrier in history.all(StoredBarrier):
        if (barrier.saga_id, barrier.step) not in decided:
            yield f"{barrier.participant} was called for {barrier.saga_id} {barrier.step}"


def participants_hold_what_the_saga_says(history: History) -> Iterator[str]:
    """Every step that was done for a completed saga, none of them for one that was undone."""
    states = {saga.saga_id: saga.state for saga in history.all(StoredSaga)}
    held: set[tuple[str, str]] = set()
    for barrier in history.all(StoredBarrier):
        state = states.get(barrier.saga_id)
        if state == "COMPENSATED" and barrier.state not in ("COMPENSATED", "REJECTED"):
            yield f"{barrier.participant}: {barrier.step} of {barrier.saga_id} is {barrier.state}"
        if barrier.state == "DONE":
            held.add((barrier.saga_id, barrier.step))
    for event in history.all(StoredEvent):
        done = event.kind == "STEP_DONE" and states.get(event.saga_id) == "COMPLETED"
        if done and (event.saga_id, event.step) not in held:
            yield f"nobody holds {event.step} of {event.saga_id}, which is COMPLETED"


def what_is_away_is_never_an_internal_error(history: History) -> Iterator[str]:
    """Whoever is asked while something is away says so, to clients and to the coordinator."""
    for call in history.all(Call):
        if call.reason == "INTERNAL":
            yield f"{call.method} of {call.name} at {call.at:.1f} s"
    for event in history.all(StoredEvent):
        if event.reason == "INTERNAL":
            yield f"attempt {event.attempt} at {event.step} of {event.saga_id}"


def reconciliation_finds_no_orphan(history: History) -> Iterator[str]:
    """The last word: everything was compared, and nothing is where it should not be."""
    compared = sum(not end.unreachable for end in history.all(Reconciliation))
    if compared != 1:
        yield "not everything was compared"
    for orphan in history.all(Orphan):
        yield f"{orphan.kind} {orphan.step} of {orphan.saga_id} at {orphan.participant}"


PROMISES: tuple[Promise, ...] = (
    every_saga_that_a_client_was_told_of_exists,
    every_promised_order_has_its_saga,
    every_saga_ends_all_done_or_all_undone,
    what_a_client_was_told_stays_true,
    stock_is_what_was_there_less_what_was_sold,
    money_is_kept_exactly_for_completed_orders,
    every_customer_pays_once,
    shipments_are_exactly_for_completed_orders,
    orders_are_what_their_sagas_made_of_them,
    orders_are_what_was_asked_for,
    revisions_have_no_gap,
    every_outcome_was_asked_for,
    participants_know_no_call_that_the_journal_does_not,
    participants_hold_what_the_saga_says,
    what_is_away_is_never_an_internal_error,
    reconciliation_finds_no_orphan,
)


def _sold(history: History) -> Counter[str]:
    """How many of each product belong to completed sagas."""
    completed = {saga.saga_id for saga in history.all(StoredSaga) if saga.state == "COMPLETED"}
    sold: Counter[str] = Counter()
    for order in history.all(StoredOrder):
        if order.saga_id in completed:
            sold.update(order.cart)
    return sold


def _events(history: History) -> dict[str, list[StoredEvent]]:
    events: defaultdict[str, list[StoredEvent]] = defaultdict(list)
    for event in history.all(StoredEvent):
        events[event.saga_id].append(event)
    return {saga_id: sorted(of, key=lambda event: event.revision) for saga_id, of in events.items()}

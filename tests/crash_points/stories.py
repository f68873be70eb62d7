"""The stories of a saga, moment by moment: what its coordinator writes and sends, in order.

A moment is *before* an act (an event on its way to PostgreSQL, a call on its way to a participant)
or *after* it: the event is committed, the call is answered, and the coordinator has not heard. The
lists are literal, so that a change of what is written or sent, or when, is seen here.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.type import money_pb2

from coordinator.core.model import SagaState
from local.scenarios import DECLINED, VISA
from local.shop import CATALOGUE, CURRENCY
from protos.order.v1 import order_pb2

PRODUCT = "coffee"
QUANTITY = 2
PRICE = QUANTITY * CATALOGUE[PRODUCT]
MORE_THAN_THERE_IS = 1_000_000

Moments = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Story:
    """One order, what befalls it, and every moment until its saga ends."""

    name: str
    moments: Moments
    ends: SagaState = SagaState.COMPENSATED
    definition: str = "place-order"
    quantity: int = QUANTITY
    card: str = VISA
    spoiled: str = ""
    """A step whose request loses its content on the way, so that its participant rejects it."""
    unanswered: str = ""
    """A step whose Do is served, and whose answers are all lost."""
    cancelled: str = ""
    """A step whose Do is answered only after somebody has cancelled the saga."""
    slow: bool = False
    """It is walked by `make crash-points` alone."""

    def order(self, order_id: str) -> order_pb2.PlaceOrderInput:
        """What the saga is started with."""
        units, cents = divmod(CATALOGUE[PRODUCT], 100)
        price = money_pb2.Money(currency_code=CURRENCY, units=units, nanos=cents * 10_000_000)
        item = order_pb2.OrderItem(product_id=PRODUCT, quantity=self.quantity, unit_price=price)
        return order_pb2.PlaceOrderInput(
            order_id=order_id, customer_id="ada", items=[item], payment_method=self.card
        )


def each(*acts: str) -> Moments:
    """Before and after each act."""
    return tuple(f"{side} {act}" for act in acts for side in ("before", "after"))


def done(*steps: str) -> Moments:
    """Steps that are done."""
    return each(*(act for step in steps for act in (f"DO {step}", f"STEP_DONE {step}")))


def undone(*steps: str) -> Moments:
    """Steps that are undone."""
    return each(
        *(act for step in steps for act in (f"COMPENSATE {step}", f"STEP_COMPENSATED {step}"))
    )


def rejected(step: str) -> Moments:
    """A step whose participant says no."""
    return each(f"DO {step}", f"STEP_REJECTED {step}")


def unheard(step: str, attempts: int) -> Moments:
    """A step whose answers are lost until its budget is spent."""
    tries = [step, *(f"{step} #{number}" for number in range(2, attempts + 1))]
    return each(*(act for tried in tries for act in (f"DO {tried}", f"ATTEMPT_FAILED {tried}")))


STARTED = each("STARTED")

ALL_DONE = Story(
    name="all done",
    ends=SagaState.COMPLETED,
    moments=(
        *STARTED,
        *done(
            "create_order", "reserve_stock", "charge_payment", "request_shipment", "confirm_order"
        ),
    ),
)
CARD_DECLINED = Story(
    name="the card is declined",
    card=DECLINED,
    moments=(
        *STARTED,
        *done("create_order", "reserve_stock"),
        *rejected("charge_payment"),
        *undone("reserve_stock", "create_order"),
    ),
)
CANCELLED = Story(
    name="cancelled while the card is charged",
    cancelled="charge_payment",
    moments=(
        *STARTED,
        *done("create_order", "reserve_stock"),
        "before DO charge_payment",
        *each("ABORTED"),
        "after DO charge_payment",
        *each("STEP_DONE charge_payment"),
        *undone("charge_payment", "reserve_stock", "create_order"),
    ),
)
UNKNOWN = Story(
    name="no answer about the shipment",
    unanswered="request_shipment",
    moments=(
        *STARTED,
        *done("create_order", "reserve_stock", "charge_payment"),
        *unheard("request_shipment", 5),
        *undone("request_shipment", "charge_payment", "reserve_stock", "create_order"),
    ),
    slow=True,
)

STORIES = (
    ALL_DONE,
    CARD_DECLINED,
    CANCELLED,
    UNKNOWN,
    Story(
        name="the order is rejected",
        spoiled="create_order",
        moments=(*STARTED, *rejected("create_order")),
        slow=True,
    ),
    Story(
        name="out of stock",
        quantity=MORE_THAN_THERE_IS,
        moments=(
            *STARTED,
            *done("create_order"),
            *rejected("reserve_stock"),
            *undone("create_order"),
        ),
        slow=True,
    ),
    Story(
        name="the shipment is rejected",
        spoiled="request_shipment",
        moments=(
            *STARTED,
            *done("create_order", "reserve_stock", "charge_payment"),
            *rejected("request_shipment"),
            *undone("charge_payment", "reserve_stock", "create_order"),
        ),
        slow=True,
    ),
    Story(
        name="the confirmation is rejected",
        spoiled="confirm_order",
        moments=(
            *STARTED,
            *done("create_order", "reserve_stock", "charge_payment", "request_shipment"),
            *rejected("confirm_order"),
            *undone("request_shipment", "charge_payment", "reserve_stock", "create_order"),
        ),
        slow=True,
    ),
)

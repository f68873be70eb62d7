"""What customers want and when: a pure function of the seed.

Most orders would go through; some cards are declined, some are slow, some products are short, some
orders are cancelled on the way. A third of the sagas is started directly at a coordinator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from local.scenarios import DECLINED, VISA

FIRST_STOCK = {"coffee": 1_000_000, "filter": 1_000_000, "mug": 60, "grinder": 0}
"""How many there are; mugs run short after a while, grinders from the first."""

_CARDS = (VISA, "pm_card_processing", DECLINED, "pm_card_processingThenDeclined")
_CARD_WEIGHTS = (80, 6, 10, 4)
_WATCHED = 0.3
_LONGEST_BEFORE_CANCEL_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One order that a customer wants."""

    name: str
    """Request id, or saga id where the saga is started directly."""
    at: float
    """Seconds from the beginning."""
    start_at: str
    """`order`, or the coordinator where the saga is started directly."""
    cart: Mapping[str, int]
    card: str
    cancel_after: float | None
    """Seconds after the start was answered; None for never."""
    watches: bool
    """Whether the customer watches the saga to its end, unless it is to be cancelled."""
    ask_at: str
    """The coordinator that is asked about the saga later."""


def plans(seed: int, rate: float, *, run: str, coordinators: tuple[str, ...]) -> Iterator[Plan]:
    """Orders without end, `rate` of them in a second, named after the `run`."""
    chance = random.Random(f"orders {seed}")
    at, number = 0.0, 0
    while True:
        at += chance.expovariate(rate)
        number += 1
        (start_at,) = chance.choices(["order", chance.choice(coordinators)], weights=(2, 1))
        (card,) = chance.choices(_CARDS, weights=_CARD_WEIGHTS)
        yield Plan(
            name=f"{run}-{number}",
            at=at,
            start_at=start_at,
            cart=_cart(chance),
            card=card,
            cancel_after=_cancel_after(chance),
            watches=chance.random() < _WATCHED,
            ask_at=chance.choice(coordinators),
        )


def _cart(chance: random.Random) -> dict[str, int]:
    cart = {product: chance.randint(1, 3) for product in ("coffee", "filter")}
    if chance.random() < 0.3:
        cart["mug"] = chance.randint(1, 2)
    if chance.random() < 0.05:
        cart["grinder"] = 1
    return cart


def _cancel_after(chance: random.Random) -> float | None:
    cancelled = chance.random() < 0.1
    return chance.uniform(0, _LONGEST_BEFORE_CANCEL_SECONDS) if cancelled else None

"""What was promised about an order, and what the books say."""

from __future__ import annotations

from dataclasses import dataclass

from local.books import Books, Stock
from local.shop import CURRENCY, Cart, total


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise: what was found, and whether that keeps it."""

    text: str
    holds: bool


def ended(saga_state: str, reason: str, expected_reason: str) -> Finding:
    """The saga has ended as it should, and the customer is told why."""
    expected = "COMPENSATED" if expected_reason else "COMPLETED"
    told = f", the customer is told {reason}" if reason else ""
    return Finding(f"saga {saga_state}{told}", (saga_state, reason) == (expected, expected_reason))


def all_done(cart: Cart, before: dict[str, Stock], after: Books) -> list[Finding]:
    """Every effect is there, and each of them once."""
    price = total(cart)
    held = before | {
        product: Stock(before[product].available - quantity, before[product].reserved + quantity)
        for product, quantity in cart.items()
    }
    return [
        Finding(f"orders (PostgreSQL): {_order(after)}", after.order == ("CONFIRMED", price)),
        Finding(f"inventory (MongoDB): {_moved(before, after)}", after.stock == held),
        Finding(
            f"provider's ledger: {_charges(after)}",
            [(charge.captured, charge.refunded) for charge in after.charges] == [(price, 0)],
        ),
        Finding(
            f"fulfillment (PostgreSQL): {_shipments(after)}", after.shipments == ("REQUESTED",)
        ),
    ]


def all_undone(before: dict[str, Stock], after: Books) -> list[Finding]:
    """No effect is left."""
    kept = sum(charge.captured - charge.refunded for charge in after.charges)
    cancelled = after.order is not None and after.order[0] == "CANCELLED"
    return [
        Finding(f"orders (PostgreSQL): {_order(after)}", cancelled),
        Finding(f"inventory (MongoDB): {_moved(before, after)}", after.stock == before),
        Finding(f"provider's ledger: {_charges(after)}", kept == 0),
        Finding(
            f"fulfillment (PostgreSQL): {_shipments(after)}",
            all(state == "CANCELLED" for state in after.shipments),
        ),
    ]


def _order(books: Books) -> str:
    if books.order is None:
        return "no such order"
    state, minor = books.order
    return f"{state}, total {_money(minor)}"


def _moved(before: dict[str, Stock], after: Books) -> str:
    moves = [
        f"{now.reserved - before[product].reserved:+d} {product} reserved"
        for product, now in after.stock.items()
        if now != before[product]
    ]
    return ", ".join(moves) or "every product as before"


def _charges(books: Books) -> str:
    taken = [charge for charge in books.charges if charge.captured]
    if not taken:
        return "nothing was charged"
    return ", ".join(
        f"charged {_money(charge.captured)}, refunded {_money(charge.refunded)}" for charge in taken
    )


def _shipments(books: Books) -> str:
    return f"shipment {', '.join(books.shipments)}" if books.shipments else "no shipment"


def _money(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02d} {CURRENCY}"

"""What the participants' own stores and the provider say about all orders at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

import httpx
import psycopg

from local.mesh import Mesh
from tests.crash_points.stories import PRICE


@dataclass(slots=True)
class Effects:
    """What is there of one order."""

    order: str = ""
    """Its state; empty when there is none."""
    charges: list[tuple[int, int]] = field(default_factory=list)
    """What each payment that took money has captured and refunded."""
    shipments: list[str] = field(default_factory=list)
    """The state of each."""

    @property
    def all_there(self) -> bool:
        """Every effect, each once."""
        return self == Effects("CONFIRMED", [(PRICE, 0)], ["REQUESTED"])

    @property
    def all_gone(self) -> bool:
        """No effect is left, and none was there twice."""
        return (
            self.order in {"", "CANCELLED"}
            and self.charges in ([], [(PRICE, PRICE)])
            and self.shipments in ([], ["CANCELLED"])
        )


async def read_effects(mesh: Mesh) -> Mapping[str, Effects]:
    """The effects of every order, by its id, which is its saga's too."""
    found: defaultdict[str, Effects] = defaultdict(Effects)
    orders = "select order_id::text, state from orders"
    for order_id, state in await _rows(mesh.dsn("order"), orders):
        found[order_id].order = state
    shipments = "select order_id::text, state from shipment"
    for order_id, state in await _rows(mesh.dsn("fulfillment"), shipments):
        found[order_id].shipments.append(state)
    async with httpx.AsyncClient() as client:
        ledger = (await client.get(f"{mesh.sandbox_url}/_sandbox/ledger")).json()
    for payment in ledger["payments"]:
        if payment["captured"]:
            taken = (payment["captured"], payment["refunded"])
            found[payment["saga_id"]].charges.append(taken)
    return found


async def read_states(mesh: Mesh) -> Mapping[str, str]:
    """The state of every saga, by its id."""
    rows = await _rows(mesh.dsn("coordinator"), "select saga_id, state from saga.saga")
    return dict(rows)


async def _rows(dsn: str, query: LiteralString) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        return await (await connection.execute(query)).fetchall()

"""A participant killed with SIGKILL at every one of its store operations, and asked again.

Every death has products of its own, so that what it left behind can be told apart.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from tests.integration.inventory.dying import Deed, DoomedAttempt, Moment
from tests.integration.inventory.warehouse import Items, Warehouse
from tests.refusals import refused

MOMENTS = pytest.mark.parametrize("moment", ["before", "after"])

Deaths = Callable[[Deed, Moment, int], AsyncIterator["Order"]]


@dataclass(frozen=True)
class Order:
    """A saga of three products, whose participant died in the middle."""

    saga_id: str
    warehouse: Warehouse

    @property
    def order_id(self) -> str:
        return f"order of {self.saga_id}"

    @property
    def items(self) -> Items:
        return [(f"{name} of {self.saga_id}", n) for n, name in enumerate(("a", "b", "c"), start=1)]

    async def fill(self, *stock: int) -> None:
        """Make so many of the last products available."""
        names = [name for name, _ in self.items[-len(stock) :]]
        await self.warehouse.fill(dict(zip(names, stock, strict=True)))

    async def do(self) -> None:
        await self.warehouse.do(self.saga_id, self.items, self.order_id)

    async def compensate(self) -> None:
        await self.warehouse.compensate(self.saga_id, self.items)

    async def reserved(self) -> list[int]:
        stock = await self.warehouse.stock()
        assert all(sum(stock[name]) == 10 for name, _ in self.items), "goods appeared or vanished"
        return [stock[name][1] for name, _ in self.items]


@pytest.fixture
def deaths(warehouse: Warehouse, mongodb_uri: str) -> Deaths:
    """Attempts that die, each one operation later than the last, until one lives to its end."""

    async def die(deed: Deed, moment: Moment, third: int) -> AsyncIterator[Order]:
        for operation in itertools.count(1):
            order = Order(f"saga-{operation}", warehouse)
            await order.fill(10, 10, third)
            if deed != "do":
                await order.do()
            doomed = DoomedAttempt(
                deed=deed,
                uri=mongodb_uri,
                database=warehouse.database.name,
                saga_id=order.saga_id,
                order_id=order.order_id,
                items=order.items,
                moment=moment,
                operation=operation,
            )
            if not await doomed.dies():
                return
            yield order

    return die


@MOMENTS
async def test_a_do_killed_anywhere_is_finished_by_the_next_one(
    deaths: Deaths, moment: Moment
) -> None:
    operations = 0
    async for order in deaths("do", moment, 10):
        operations += 1
        await order.do()
        assert await order.reserved() == [1, 2, 3]
    assert operations == 5


@MOMENTS
async def test_a_do_killed_anywhere_is_compensated_for_good(deaths: Deaths, moment: Moment) -> None:
    operations = 0
    async for order in deaths("do", moment, 10):
        operations += 1
        await order.compensate()
        async with refused() as refusal:
            await order.do()
        assert refusal.reason == "STEP_ALREADY_COMPENSATED"
        assert await order.reserved() == [0, 0, 0]
    assert operations == 5


@pytest.mark.parametrize(("moment", "undecided"), [("before", 6), ("after", 5)])
async def test_a_do_killed_while_it_rejects_has_decided_or_not_and_never_half(
    deaths: Deaths, moment: Moment, undecided: int
) -> None:
    outcomes = []
    async for order in deaths("do", moment, 2):
        await order.fill(10)
        outcomes.append(await order.warehouse.outcome(order.saga_id, order.items, order.order_id))
        held = [1, 2, 3] if outcomes[-1] == "done" else [0, 0, 0]
        assert await order.reserved() == held
    assert outcomes == ["done"] * undecided + ["rejected"] * (11 - undecided)


@MOMENTS
async def test_a_compensate_killed_anywhere_is_finished_by_the_next_one(
    deaths: Deaths, moment: Moment
) -> None:
    operations = 0
    async for order in deaths("compensate", moment, 10):
        operations += 1
        await order.compensate()
        assert await order.reserved() == [0, 0, 0]
    assert operations == 7


@MOMENTS
async def test_a_shipment_killed_anywhere_is_finished_by_the_next_one(
    deaths: Deaths, moment: Moment
) -> None:
    operations = 0
    async for order in deaths("ship", moment, 10):
        operations += 1
        await order.warehouse.ship(order.order_id)
        stock = await order.warehouse.stock()
        assert [stock[name] for name, _ in order.items] == [(9, 0), (8, 0), (7, 0)]
    assert operations == 9

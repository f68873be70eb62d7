"""The algorithm, one call after the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.barrier.mongo_algorithm import Algorithm
from mesh.barrier.mongo_operations import STOCK, Script, T
from mesh.errors import Conflict, NotNow
from tests.unit.mongo_barrier.documents import Database, perform
from tests.unit.mongo_barrier.explorer import set_stock
from tests.unit.mongo_barrier.promises import CALL, SERVICE, demand


class Store:
    """A database in memory, and scripts run on it one after the other."""

    def __init__(self, **available: int) -> None:
        self.database: Database = {}
        for product, number in available.items():
            self.database = set_stock(self.database, product, number)

    def run(self, script: Script[T]) -> T:
        result = None
        while True:
            try:
                operation = script.send(result)
            except StopIteration as end:
                returned: T = end.value
                return returned
            self.database, result = perform(self.database, operation)

    def reserved(self) -> dict[str, int]:
        return {id_: it["reserved"] for (name, id_), it in self.database.items() if name == STOCK}


def test_a_key_that_another_step_service_has_used_is_refused() -> None:
    store = Store(apple=5)
    store.run(Algorithm(SERVICE, lambda: 0).do(demand({"apple": 1})))
    other = Algorithm("inventory.v1.Other", lambda: 0)

    with pytest.raises(Conflict, match="asked before with another request"):
        store.run(other.do(demand({"apple": 1})))
    with pytest.raises(Conflict, match="asked before with another request"):
        store.run(other.compensate(CALL, answered=True))


def test_a_do_that_expires_between_two_products_holds_no_more_and_can_be_given_back() -> None:
    store = Store(apple=5, pear=5)
    clock = iter([0, 0, 0, 0, 11])
    timed = replace(demand({"apple": 1, "pear": 1}), call=replace(CALL, not_after_ms=10))

    with pytest.raises(NotNow, match="expired at 10 ms"):
        store.run(Algorithm(SERVICE, lambda: next(clock)).do(timed))
    assert store.reserved() == {"apple": 1, "pear": 0}

    store.run(Algorithm(SERVICE, lambda: 0).compensate(CALL, answered=False))
    assert store.reserved() == {"apple": 0, "pear": 0}


@pytest.mark.parametrize("quantity", [0, -1])
def test_a_step_that_asks_for_less_than_one_is_a_bug_and_gives_nothing_away(quantity: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        demand({"apple": quantity})

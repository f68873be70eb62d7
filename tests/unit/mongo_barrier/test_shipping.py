"""Shipping beside everything else that can happen to a reservation, in every interleaving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from mesh.barrier import mongo_shipping
from mesh.barrier.mongo_algorithm import Algorithm
from mesh.barrier.mongo_operations import Update
from mesh.barrier.mongo_purge import tidy_product
from mesh.barrier.mongo_shipping import ship
from tests.unit.mongo_barrier import mutants
from tests.unit.mongo_barrier.explorer import Guilty, World, explore
from tests.unit.mongo_barrier.promises import ORDER_ID, SERVICE, broken_promise, world
from tests.unit.mongo_barrier.test_every_interleaving import words

ORDER = {"apple": 1, "pear": 2}
PLENTY = {"apple": 2, "pear": 4}
ALGORITHM = Algorithm(SERVICE, lambda: 0)


def shipped(*, ships: int = 1, dos: int = 1, compensates: int = 1) -> World:
    """A reservation that is made, shipped and called off, all at once."""
    responses = [b"one"] * dos
    made = world(ALGORITHM, items=ORDER, stock=PLENTY, responses=responses, compensates=compensates)
    script = partial(ship, ORDER_ID, lambda: 0)
    return replace(made, actors={**made.actors, **{f"ship {n}": script for n in range(ships)}})


def test_what_is_shipped_is_never_given_back_and_what_is_given_back_never_shipped() -> None:
    seen = explore(shipped(dos=2))

    assert seen.states > 10_000
    assert words(seen) >= {
        ("DONE", "DONE", "STOCK_ALREADY_SHIPPED", "SHIPPED"),
        ("DONE", "DONE", "OK", "STOCK_NOT_RESERVED"),
        ("STEP_ALREADY_COMPENSATED", "STEP_ALREADY_COMPENSATED", "OK", "RESERVATION_NOT_FOUND"),
    }


def test_two_who_ship_one_reservation_ship_it_once() -> None:
    seen = explore(shipped(ships=2))

    assert seen.states > 1_000
    assert ("DONE", "STOCK_ALREADY_SHIPPED", "SHIPPED", "SHIPPED") in words(seen)


def test_a_sweep_beside_a_shipment_gives_nothing_back() -> None:
    alone = shipped(compensates=0)
    sweep = {f"sweep {id_}": partial(tidy_product, id_, 0) for id_ in ORDER}
    seen = explore(replace(alone, actors={**alone.actors, **sweep}))

    assert seen.states > 500


@pytest.mark.parametrize(
    ("part", "mutant"),
    [
        ("take_out", mutants.takes_out_without_a_tombstone),
        ("_move", mutants.ships_without_comparing),
    ],
)
def test_a_shorter_shipment_is_found_guilty(
    part: str, mutant: Callable[..., Update], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_shipping, part, mutant)
    told_only = replace(
        shipped(dos=2), fault=partial(broken_promise, ORDER), conserved=lambda _: None
    )

    with pytest.raises(Guilty, match=r"but something is held|shipped and given back"):
        explore(told_only)


def test_goods_that_are_taken_out_twice_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_shipping, "take_out", mutants.takes_out_whatever_is_there)

    with pytest.raises(Guilty, match="does not conserve the stock"):
        explore(shipped(ships=2))

"""The worlds that the barrier's algorithm is explored in, and what must be true in every state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from mesh.barrier.mongo_algorithm import Algorithm, Demand, Shortage, State
from mesh.barrier.mongo_operations import BARRIER, STOCK, Document, KeyState
from mesh.barrier.rules import freeze
from mesh.errors import Rejected
from mesh.step import StepCall, StepTypes
from protos.inventory.v1 import inventory_pb2
from tests.unit.mongo_barrier.documents import Database
from tests.unit.mongo_barrier.explorer import World
from tests.unit.mongo_barrier.unrolled import Answer, MakeScript

CALL = StepCall(saga_id="s", step="r")
ORDER_ID = "order-1"
EXPECTED = {
    "DONE",
    "REJECTED",
    "OK",
    "STEP_ALREADY_COMPENSATED",
    "Tidied",
    "SHIPPED",
    "STOCK_NOT_RESERVED",
    "RESERVATION_NOT_FOUND",
    "STOCK_ALREADY_SHIPPED",
}
_GONE = {State.SHIPPING, State.SHIPPED}

SERVICE = inventory_pb2.DESCRIPTOR.services_by_name["ReserveStock"].full_name
_TYPES = StepTypes.of(SERVICE)


def _frozen(shortage: Shortage) -> bytes:
    return freeze(Rejected("OUT_OF_STOCK", shortage.product), _TYPES)


def demand(items: Mapping[str, int], *, response: bytes = b"held") -> Demand:
    return Demand(
        call=CALL,
        items=items,
        held_for=ORDER_ID,
        request_sha256=b"sha",
        response=response,
        rejection=_frozen,
    )


def world(
    algorithm: Algorithm,
    *,
    items: Mapping[str, int],
    stock: Mapping[str, int],
    responses: Sequence[bytes] = (b"one", b"two"),
    compensates: int = 1,
    levels: Sequence[tuple[str, int]] = (),
) -> World:
    """A Do for each response, Compensates of it, and a stock that may change."""
    do = {it: partial(algorithm.do, demand(items, response=it)) for it in responses}
    actors: dict[str, MakeScript] = {f"do {n}": do[it] for n, it in enumerate(responses)}
    compensate = partial(algorithm.compensate, CALL, answered=False)
    actors |= {f"compensate {number}": compensate for number in range(compensates)}
    return World(
        actors=actors,
        database={(STOCK, product): _stock(product, n) for product, n in stock.items()},
        levels=levels,
        fault=lambda database, answers: (
            broken_promise(items, database, answers) or lie(items, database)
        ),
        conserved=conserved,
    )


def _stock(product: str, available: int) -> Document:
    return {"_id": product, "available": available, "reserved": 0, "reservations": {}}


def conserved(database: Database) -> object:
    """Available, reserved and shipped together, by product; nothing counts as none."""
    shipped = _state(database) in _GONE
    return {
        id_: stock.get("available", 0) + stock["reserved"] + (_released(stock) if shipped else 0)
        for (name, id_), stock in database.items()
        if name == STOCK and ("available" in stock or stock["reserved"])
    }


def _released(stock: Document) -> int:
    """What keys of this product held once, and hold no more."""
    keys = stock["reservations"].values()
    return sum(key["quantity"] for key in keys if key["state"] == KeyState.RELEASED)


def broken_promise(items: Mapping[str, int], database: Database, answers: Sequence[Answer]) -> str:
    """What a client was told that is not so; empty when nothing."""
    held, state = _held(database), _state(database)
    words = {answer.word for answer in answers}
    outcomes = {answer for answer in answers if answer.word in {"DONE", "REJECTED"}}
    faults = {
        f"unexpected answers {words - EXPECTED}": words - EXPECTED,
        "twins were answered differently": len(outcomes) > 1,
        "stock is oversold": any(_available(database, product) < 0 for product in items),
        "DONE was answered, but not everything is held": "DONE" in words
        and held != items
        and state not in {State.COMPENSATING, State.COMPENSATED, *_GONE},
        "REJECTED was answered, but something is held": "REJECTED" in words and held,
        "OK was answered, but something is held": "OK" in words and held,
        "SHIPPED was answered, but something is held": "SHIPPED" in words and held,
        "goods were shipped and given back": "OK" in words
        and words & {"SHIPPED", "STOCK_ALREADY_SHIPPED"},
    }
    return "; ".join(text for text, found in faults.items() if found)


def lie(items: Mapping[str, int], database: Database) -> str:
    """What is stored that is not so; empty when nothing."""
    held, state = _held(database), _state(database)
    nothing_held = state in {State.REJECTED, State.COMPENSATED, State.SHIPPED}
    faults = {
        "reserved is not what the keys hold": _reserved(database) != held,
        "the record says DONE, but not everything is held": state == State.DONE and held != items,
        f"the record says {state}, but something is held": nothing_held and held,
    }
    return "; ".join(text for text, found in faults.items() if found)


def _state(database: Database) -> State | None:
    record = database.get((BARRIER, CALL.key))
    return State(record["state"]) if record else None


def _held(database: Database) -> dict[str, int]:
    held: dict[str, int] = {}
    for (name, id_), stock in database.items():
        for reservation in stock["reservations"].values() if name == STOCK else ():
            if reservation["state"] == KeyState.HELD:
                held[id_] = held.get(id_, 0) + reservation["quantity"]
    return held


def _reserved(database: Database) -> dict[str, int]:
    return {
        id_: stock["reserved"]
        for (name, id_), stock in database.items()
        if name == STOCK and stock["reserved"]
    }


def _available(database: Database, product: str) -> int:
    stock = database.get((STOCK, product), {})
    return int(stock.get("available", 0))

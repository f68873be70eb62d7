"""What is held leaves the house: reserved goes down, available stays, and nothing gives it back.

B decides here too (see `mongo_algorithm.py`). From the moment it reads SHIPPING, what it holds is
shipped: a Compensate that comes later is refused, one that came before has won. Then every product
is taken out of the books, by a change that only its HELD key allows and that leaves a tombstone; so
it is taken out once, whoever is killed in between and asked again, and a paused Do cannot hold it
anew. Until everything is out, nobody says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mesh.barrier.mongo import Database, MongoStore
from mesh.barrier.mongo_algorithm import State
from mesh.barrier.mongo_operations import (
    BARRIER,
    Document,
    Find,
    FindHeldFor,
    Script,
    Update,
    take_out,
)
from mesh.clock import Clock, wall_clock_ms
from mesh.errors import NotFound, NotNow


class Shipping:
    """Ships what the reservations in `database` hold."""

    def __init__(self, database: Database, *, clock: Clock = wall_clock_ms) -> None:
        self._store = MongoStore(database)
        self._clock = clock

    async def ship(self, held_for: str) -> Mapping[str, int]:
        """Ship everything held for this; the quantity of each product, the same when asked again.

        Raises:
            NotFound: `RESERVATION_NOT_FOUND`, nothing was ever reserved for it.
            NotNow: `STOCK_NOT_RESERVED`, not yet, or it was given back or never to be had.
            Retry: the database is away; asking again goes on with it.
        """
        return await self._store.run(ship(held_for, self._clock))


def ship(held_for: str, clock: Clock) -> Script[Mapping[str, int]]:
    """See `Shipping.ship`."""
    shipped: Counter[str] = Counter()
    unshipped = []
    for key in (yield FindHeldFor(held_for)):
        record = yield from _ship_one(key, clock)
        if record is not None and record["state"] == State.SHIPPED:
            shipped.update({item["product"]: item["quantity"] for item in record["items"]})
        elif record is not None:
            unshipped.append(State(record["state"]))
    if shipped:
        return shipped
    raise _not_reserved(held_for, unshipped[-1]) if unshipped else _unknown(held_for)


def _ship_one(key: str, clock: Clock) -> Script[Document | None]:
    """Ship one reservation if it holds anything; its record as it is then."""
    record: Document | None
    while (record := (yield Find(BARRIER, key))) is not None:
        if record["state"] == State.DONE:
            yield _move(key, State.DONE, State.SHIPPING)
        elif record["state"] == State.SHIPPING:
            for item in record["items"]:
                yield take_out(key, item["product"], item["quantity"], clock())
            yield _move(key, State.SHIPPING, State.SHIPPED)
        else:
            break
    return record


def _move(key: str, source: State, target: State) -> Update:
    """Without a new time: to its saga, what was held is held since its Do, shipped or not."""
    return Update(BARRIER, {"_id": key, "state": source}, {"$set": {"state": target}})


def _not_reserved(held_for: str, state: State) -> NotNow:
    return NotNow(
        "STOCK_NOT_RESERVED",
        f"the reservation for {held_for} is {state}: there is nothing to ship",
        state=state,
        allowed=[State.DONE],
    )


def _unknown(held_for: str) -> NotFound:
    return NotFound(
        "RESERVATION_NOT_FOUND",
        f"nothing was reserved for {held_for}",
        resource_type="inventory.v1.ReserveStock",
        name=held_for,
    )

"""What keeps the MongoDB barrier small, and puts right what its purge makes possible.

A stock document carries a key for every reservation that ever asked for it; 20,000 of them make it
0.9 MB and slow. So tombstones (RELEASED) go after an hour, which is longer than any Do is paused,
and barrier records last, when they are too old to matter:

    REJECTED, COMPENSATED           after 30 days, with whatever tombstones they still have
    DONE, SHIPPED                   after the retention time; what is still held then is shipped
    DOING, REJECTING,
    COMPENSATING, SHIPPING          never: they are somebody's open business

A Do that was paused for more than that hour may still hold stock that nobody gives back. The sweep
finds such a key by its record, which is missing, REJECTED, COMPENSATED or SHIPPED, and gives it
back: none of these ever becomes DONE again, so it cannot hit a reservation that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

import structlog
from pymongo.errors import PyMongoError

from mesh.barrier.mongo import Database, MongoStore, database_errors
from mesh.barrier.mongo_algorithm import State
from mesh.barrier.mongo_operations import (
    BARRIER,
    STOCK,
    Delete,
    Document,
    Find,
    FindStates,
    KeyState,
    Script,
    forget,
    give_back,
    remove_empty_room,
    take_out,
)
from mesh.clock import Clock, wall_clock_ms
from mesh.errors import Retry

TOMBSTONE_RETENTION = timedelta(hours=1)
SETTLED_RETENTION = timedelta(days=30)
_BATCH = 100
_HOLDS_NOTHING = (None, State.REJECTED, State.COMPENSATED, State.SHIPPED)
_log = structlog.stdlib.get_logger()


@dataclass(slots=True)
class Tidied:
    """What one pass did."""

    swept: int = 0
    """Keys whose stock was given back because their record does not count."""
    tombstones: int = 0
    records: int = 0


def tidy_product(product: str, now_ms: int) -> Script[Tidied]:
    """Sweep one product, then remove its old tombstones."""
    tidied = Tidied()
    stock: Document | None = yield Find(STOCK, product)
    if stock is None:
        return tidied
    for keys in _batches(_keys(stock, KeyState.HELD)):
        states = yield FindStates(keys)
        for key in keys:
            if states.get(key) in _HOLDS_NOTHING:
                quantity = stock["reservations"][key]["quantity"]
                tidied.swept += yield give_back(key, product, quantity, now_ms)
    old_ms = now_ms - _ms(TOMBSTONE_RETENTION)
    for keys in _batches(_keys(stock, KeyState.RELEASED, before_ms=old_ms)):
        if (yield forget(keys, product)):
            tidied.tombstones += len(keys)
    if "available" not in stock:
        yield remove_empty_room(product)
    return tidied


def purge_record(record: Document, now_ms: int) -> Script[bool]:
    """Remove the keys of an old record from the stock, then the record itself."""
    key = record["_id"]
    for item in record["items"]:
        product, quantity = item["product"], item["quantity"]
        release = take_out if record["state"] == State.DONE else give_back
        yield release(key, product, quantity, now_ms)
        yield forget([key], product)
    unchanged = {"_id": key, "state": record["state"], "time_ms": record["time_ms"]}
    deleted: bool = yield Delete(BARRIER, unchanged)
    return deleted


@asynccontextmanager
async def purging(
    database: Database, *, done_retention: timedelta, every: timedelta = timedelta(minutes=10)
) -> AsyncIterator[None]:
    """Tidy in the background while the block runs."""
    ended = asyncio.Event()
    purge = MongoPurge(database, done_retention)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_run_regularly(purge, every, ended))
        yield
        # Both: before Python 3.12 a cancellation that meets the end of a send gets lost in pymongo.
        ended.set()
        task.cancel()


async def _run_regularly(purge: MongoPurge, every: timedelta, ended: asyncio.Event) -> None:
    while not ended.is_set():
        try:
            await purge.run()
        except (Retry, PyMongoError) as error:
            _log.warning("barrier.purge_failed", error=type(error).__name__)
        with suppress(TimeoutError):
            async with asyncio.timeout(every.total_seconds()):
                await ended.wait()


class MongoPurge:
    """Tidies the barrier and the stock in `database`; any number of them may run at once.

    `done_retention` must exceed the longest time that a saga can still compensate.
    """

    def __init__(
        self, database: Database, done_retention: timedelta, *, clock: Clock = wall_clock_ms
    ) -> None:
        self._store = MongoStore(database)
        self._barrier = self._store.database[BARRIER]
        self._stock = self._store.database[STOCK]
        self._clock = clock
        self._retention = {
            State.REJECTED: SETTLED_RETENTION,
            State.COMPENSATED: SETTLED_RETENTION,
            State.DONE: done_retention,
            State.SHIPPED: done_retention,
        }

    async def run(self) -> Tidied:
        """One pass over everything: stock first, records last.

        Raises:
            Retry: the database is away; the next pass goes on.
        """
        with database_errors():
            await self._barrier.create_index([("state", 1), ("time_ms", 1)])
            await self._barrier.create_index("held_for")
            total = Tidied()
            async for product in self._products():
                tidied = await self._store.run(tidy_product(product, self._clock()))
                total.swept += tidied.swept
                total.tombstones += tidied.tombstones
            async for record in self._old_records():
                total.records += await self._store.run(purge_record(record, self._clock()))
        if total != Tidied():
            _log.info("barrier.tidied", **asdict(total))
        return total

    async def _products(self) -> AsyncIterator[str]:
        page = [""]
        while page:
            found = self._stock.find({"_id": {"$gt": page[-1]}}, {"_id": 1}).sort("_id", 1)
            page = [stock["_id"] async for stock in found.limit(_BATCH)]
            for product in page:
                yield product

    async def _old_records(self) -> AsyncIterator[Document]:
        for state, retention in self._retention.items():
            old = {"state": state, "time_ms": {"$lt": self._clock() - _ms(retention)}}
            async for record in self._barrier.find(old, {"response": 0}):
                yield record


def _keys(stock: Document, state: KeyState, *, before_ms: int | None = None) -> list[str]:
    return [
        key
        for key, reservation in stock["reservations"].items()
        if reservation["state"] == state
        and (before_ms is None or reservation["time_ms"] < before_ms)
    ]


def _ms(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[i : i + _BATCH] for i in range(0, len(keys), _BATCH))

"""Writes of many calls travel in one command: a command costs client and server several times what
one more write in it does, and the disk syncs for many as for one.

One command of a kind is in flight at a time; what comes meanwhile is the next. With little to do a
command has one write, and is sent at once. A server performs each write of a command by itself, in
whatever order: none is lost or undone for another's sake.

Of inserts MongoDB says which have failed. Of updates it says how many have matched: when that is
not all of several, each of them is told that it matched nothing. This proves nothing to the
algorithm anyway, and it looks (`mongo_operations.Update`). A command without an answer, or one that
the majority has not confirmed, is unknown to all who are in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Generic, TypeVar

from pymongo import InsertOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    WriteConcernError,
    WriteError,
)

from mesh.barrier.mongo_operations import Insert, Update

LARGEST = 500
"""Writes of one command."""

_DUPLICATE_KEY = 11000

WriteT = TypeVar("WriteT", Insert, Update)
Collection = AsyncCollection[dict[str, Any]]
Outcome = bool | Exception
Send = Callable[[Sequence[WriteT]], Awaitable[Sequence[Outcome]]]


class Batches(Generic[WriteT]):
    """Writes of one kind, on their way to one collection."""

    def __init__(self, send: Send[WriteT]) -> None:
        self._send: Send[WriteT] = send
        self._waiting: list[tuple[WriteT, asyncio.Future[bool]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def perform(self, write: WriteT) -> bool:
        """What came of this write; see `Insert` and `Update`.

        Raises:
            pymongo.errors.PyMongoError: it was refused, or is unknown as all of its command.
        """
        heard: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, heard))
        if self._sending is None or self._sending.done():
            # In nobody's context: it sends for whoever comes, and none of them is its parent.
            self._sending = asyncio.create_task(self._send_all(), context=Context())
        return await heard

    async def _send_all(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            taken = [(write, heard) for write, heard in taken if not heard.cancelled()]
            outcomes = await self._outcomes([write for write, _ in taken])
            for (_, heard), outcome in zip(taken, outcomes, strict=True):
                _tell(heard, outcome)

    async def _outcomes(self, writes: Sequence[WriteT]) -> Sequence[Outcome]:
        try:
            return await self._send(writes) if writes else []
        except Exception as failed:  # noqa: BLE001 - whoever waits is told
            return [failed] * len(writes)


def _tell(heard: asyncio.Future[bool], outcome: Outcome) -> None:
    if heard.cancelled():
        return
    if isinstance(outcome, Exception):
        heard.set_exception(outcome)
    else:
        heard.set_result(outcome)


def inserting(collection: Collection) -> Send[Insert]:
    """Insert documents; False for one whose _id is taken."""

    async def send(writes: Sequence[Insert]) -> Sequence[Outcome]:
        if len(writes) == 1:
            return [await _insert(collection, writes[0])]
        wanted = [InsertOne(dict(write.document)) for write in writes]
        inserted, failed = await _together(collection, wanted)
        if inserted + len(failed) != len(writes):
            raise AutoReconnect("what became of some inserts was not told")
        return [failed.get(place, True) for place in range(len(writes))]

    return send


def updating(collection: Collection) -> Send[Update]:
    """Update documents; False for all, unless all have matched."""

    async def send(writes: Sequence[Update]) -> Sequence[Outcome]:
        if len(writes) == 1:
            done = await collection.update_one(writes[0].where, writes[0].change)
            return [done.matched_count == 1]
        wanted = [UpdateOne(write.where, write.change) for write in writes]
        matched, failed = await _together(collection, wanted)
        return [
            failed.get(place, matched + len(failed) == len(writes)) for place in range(len(writes))
        ]

    return send


async def _insert(collection: Collection, write: Insert) -> bool:
    try:
        await collection.insert_one(dict(write.document))
    except DuplicateKeyError:
        return False
    return True


async def _together(
    collection: Collection, wanted: Sequence[InsertOne[dict[str, Any]] | UpdateOne]
) -> tuple[int, Mapping[int, Outcome]]:
    """How many were inserted or matched, and what came of those that failed, by their places."""
    try:
        done = await collection.bulk_write(wanted, ordered=False)
    except BulkWriteError as error:
        told = error.details  # with what was to be written: it must not come along
    else:
        return done.inserted_count + done.matched_count, {}
    if told["writeConcernErrors"]:
        raise WriteConcernError(str(told["writeConcernErrors"][-1]["code"]))
    failed = {refused["index"]: _failed(refused) for refused in told["writeErrors"]}
    return told["nInserted"] + told["nMatched"], failed


def _failed(refused: Mapping[str, Any]) -> Outcome:
    code = refused["code"]
    return False if code == _DUPLICATE_KEY else WriteError("a write was refused", code)

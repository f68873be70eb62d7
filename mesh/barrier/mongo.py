"""Reservations of stock in MongoDB, all or none, at most once. How: see `mongo_algorithm.py`.

    class ReserveStock(Reservation[ReserveStockRequest, ReserveStockResponse]):
        service = "inventory.v1.ReserveStock"

        def quantities(self, request):
            return {"apple": 3}
        def held_for(self, request):
            return request.order_id
        def response(self, call, request):
            return ReserveStockResponse(reservation_id=call.key)
        def rejection(self, shortage):
            return Rejected("OUT_OF_STOCK", ...)

    server.add_step(MongoBarrier(database).guard(ReserveStock()))

The client of `database` should be made with retryWrites=false: the algorithm reads again by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, assert_never

from google.protobuf.message import Message
from pymongo import ReadPreference
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure, ExecutionTimeout, WriteConcernError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mesh.barrier.mongo_algorithm import Algorithm, Demand, Shortage
from mesh.barrier.mongo_batches import Batches, inserting, updating
from mesh.barrier.mongo_operations import (
    BARRIER,
    STOCK,
    Delete,
    Find,
    FindHeldFor,
    FindStates,
    Insert,
    Operation,
    Script,
    T,
    Update,
)
from mesh.barrier.rules import (
    canonical,
    check_response,
    fingerprint,
    freeze,
    refuse_large_request,
)
from mesh.clock import Clock, wall_clock_ms
from mesh.errors import Rejected, Retry
from mesh.step import GuardedStep, RequestT, ResponseT, StepCall, StepTypes

Database = AsyncDatabase[dict[str, Any]]


class Reservation(ABC, Generic[RequestT, ResponseT]):
    """A step that holds quantities of products. Its methods compute; the barrier stores."""

    service: ClassVar[str]
    """Full name of the step service, such as inventory.v1.ReserveStock."""

    @abstractmethod
    def quantities(self, request: RequestT) -> Mapping[str, int]:
        """How many of each product to hold, above 0; lines of one product added up.

        Raises:
            InvalidRequest: there is no sense in it; nothing is stored.
        """

    @abstractmethod
    def held_for(self, request: RequestT) -> str:
        """Whatever it is held for, such as an order: `Shipping.ship` finds it by this."""

    @abstractmethod
    def response(self, call: StepCall, request: RequestT) -> ResponseT:
        """What Do answers once everything is held."""

    @abstractmethod
    def rejection(self, shortage: Shortage) -> Rejected:
        """What Do answers when a product is short or unknown."""


def durable(database: Database) -> Database:
    """The database, read and written so that a failover takes back nothing that was seen.

    Writes are acknowledged by the majority and its journals, which a standalone server takes as its
    own; reads see only such writes.
    """
    return database.with_options(
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern("majority", j=True),
        read_concern=ReadConcern("majority"),
    )


@contextmanager
def database_errors() -> Iterator[None]:
    """Raises Retry `DATABASE_UNAVAILABLE` for whatever means that the database is away.

    What it did meanwhile is unknown.
    """
    try:
        yield
    except (ConnectionFailure, ExecutionTimeout, WriteConcernError) as error:
        raise Retry("DATABASE_UNAVAILABLE", "the database is away; ask again") from error


class MongoStore:
    """Performs the operations of scripts on a database."""

    def __init__(self, database: Database) -> None:
        self.database = durable(database)
        self._collections = {name: self.database[name] for name in (BARRIER, STOCK)}
        each = self._collections.items()
        self._inserts = {name: Batches(inserting(collection)) for name, collection in each}
        self._updates = {name: Batches(updating(collection)) for name, collection in each}

    async def run(self, script: Script[T]) -> T:
        """Run a script to its end.

        Raises:
            Retry: the database is away; the script has stopped where it was.
        """
        result = None
        while True:
            try:
                operation = script.send(result)
            except StopIteration as end:
                returned: T = end.value
                return returned
            with database_errors():
                result = await self._perform(operation)

    async def _perform(self, operation: Operation) -> Any:  # noqa: ANN401 - by operation
        match operation:
            case Insert() as insert:
                return await self._inserts[insert.collection].perform(insert)
            case Update() as update:
                return await self._updates[update.collection].perform(update)
            case Find(collection, id_):
                return await self._collections[collection].find_one({"_id": id_})
            case FindStates(ids):
                found = self._collections[BARRIER].find({"_id": {"$in": list(ids)}}, {"state": 1})
                return {record["_id"]: record["state"] async for record in found}
            case FindHeldFor(held_for):
                cursor = self._collections[BARRIER].find({"held_for": held_for}, {"_id": 1})
                return [record["_id"] async for record in cursor.sort("_id", 1)]
            case Delete(collection, where):
                return (await self._collections[collection].delete_one(where)).deleted_count == 1
            case unknown:
                assert_never(unknown)


class MongoBarrier:
    """Guards reservations whose stock is in `database`."""

    def __init__(self, database: Database, *, clock: Clock = wall_clock_ms) -> None:
        self._store = MongoStore(database)
        self._clock = clock

    def guard(self, step: Reservation[RequestT, ResponseT]) -> GuardedStep:
        """The step behind this barrier, ready for `Server.add_step`."""
        return _GuardedReservation(step, self._store, self._clock)


class _GuardedReservation:
    def __init__(self, step: Reservation[Any, Any], store: MongoStore, clock: Clock) -> None:
        self.types = StepTypes.of(step.service)
        self._step = step
        self._store = store
        self._algorithm = Algorithm(step.service, clock)

    async def do(self, call: StepCall, request: Message) -> Message:
        demand = self._demand(call, request)
        stored = await self._store.run(self._algorithm.do(demand))
        return self.types.response.FromString(stored)

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        answered = compensation.HasField("response")
        await self._store.run(self._algorithm.compensate(call, answered=answered))
        return self.types.compensated()

    def _demand(self, call: StepCall, request: Message) -> Demand:
        refuse_large_request(request)
        items = self._step.quantities(request)
        response = check_response(self.types, self._step.response(call, request))
        return Demand(
            call=call,
            items=items,
            held_for=self._step.held_for(request),
            request_sha256=fingerprint(request),
            response=canonical(response),
            rejection=lambda shortage: freeze(self._step.rejection(shortage), self.types),
        )

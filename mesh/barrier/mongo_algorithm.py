"""The barrier on MongoDB: all or none of several products, at most once, without transactions.

A Do touches one barrier document B and one stock document for each product, one after the other.
It may stop for ever between any two of them, a twin of it may run beside it, and a Compensate too.
Four rules make that safe:

1. B decides, and only by compare-and-swap on its state. Stock documents never decide anything.
2. Nobody owns a Do: whoever finds B in DOING does what is left to do. Nobody ever waits.
3. Decide first, give back after: from the moment B reads REJECTING or COMPENSATING the answer is
   settled, and whoever comes by helps to give everything back. Until that is done, nobody says so.
4. Giving back leaves a tombstone, the key RELEASED, also where nothing was held and also where the
   product does not exist: a Do that was paused before B changed can no longer hold anything there.

    Do          nothing -> DOING -> DONE
                           DOING -> REJECTING -> REJECTED              (give back in between)
    Compensate  nothing -> COMPENSATED
                DOING | DONE | REJECTING -> COMPENSATING -> COMPENSATED  (give back in between)
                REJECTED -> COMPENSATED
    Ship        DONE -> SHIPPING -> SHIPPED    (take out in between; see `mongo_shipping.py`)

An update that matched nothing proves nothing, as the answer to an earlier one may be lost: a
read follows it. A network error ends the attempt where it is, as a crash would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from mesh.barrier.mongo_operations import (
    BARRIER,
    STOCK,
    Document,
    Find,
    Insert,
    KeyState,
    Script,
    Update,
    give_back,
    hold,
    refuse_in_advance,
    room_for_tombstones,
)
from mesh.barrier.rules import (
    already_compensated,
    record_missing,
    refuse_changed_request,
    refuse_expired,
    request_changed,
    thaw,
)
from mesh.clock import Clock
from mesh.errors import NotNow
from mesh.step import StepCall


class State(StrEnum):
    """Where B is: the states of every barrier, and those that only stock in many places needs."""

    DOING = "DOING"
    DONE = "DONE"
    REJECTING = "REJECTING"
    """Rejected, but not everything is given back yet."""
    REJECTED = "REJECTED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    SHIPPING = "SHIPPING"
    """Shipped for good, but not everything is out of the books yet."""
    SHIPPED = "SHIPPED"


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a Do cannot have one of its products."""

    product: str
    quantity: int
    """How many it asked for."""
    available: int | None
    """How many there were; None when there is no such product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one Do asks for, and its answers, made before anything is written."""

    call: StepCall
    items: Mapping[str, int]
    """Quantity by product, all of them above 0."""
    held_for: str
    request_sha256: bytes
    response: bytes
    rejection: Callable[[Shortage], bytes]
    """A rejection as it is stored."""

    def __post_init__(self) -> None:
        if any(quantity < 1 for quantity in self.items.values()):
            raise ValueError("a reservation holds at least one of each of its products")


class Algorithm:
    """Do and Compensate of one step service as scripts of single-document operations."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    def do(self, demand: Demand) -> Script[bytes]:
        """The response that is stored.

        Raises:
            Rejected: the stored rejection; nothing is held and nothing ever will be.
            NotNow: `STEP_ALREADY_COMPENSATED`, or `STEP_EXPIRED` with the outcome open.
            Conflict: `STEP_REQUEST_CHANGED`.
        """
        call = demand.call
        refuse_expired(call, self._clock())
        record: Document = yield from self._open(call, _doing(demand))
        stored = record.get("request_sha256")
        refuse_changed_request(call, stored=stored, arrived=demand.request_sha256)
        while True:
            match State(record["state"]):
                case State.DOING:
                    record = yield from self._decide(demand, record)
                case State.REJECTING:
                    yield from self._give_all_back(record)
                    record = yield from self._move(call, record, State.REJECTED)
                case State.DONE | State.SHIPPING | State.SHIPPED:
                    return bytes(record["response"])
                case State.REJECTED:
                    raise thaw(record["rejection"])
                case State.COMPENSATING | State.COMPENSATED:
                    raise already_compensated(call)
                case unknown:
                    assert_never(unknown)

    def compensate(self, call: StepCall, *, answered: bool) -> Script[None]:
        """Give back whatever was taken, and refuse every later Do.

        Raises:
            RecordMissing: the Do was `answered`, but there is no record of it.
            NotNow: `STOCK_ALREADY_SHIPPED`; nothing can be given back any more.
        """
        tombstone = {"_id": call.key, "state": State.COMPENSATED, "items": []}
        record = yield from self._read(call) if answered else self._open(call, tombstone)
        while True:
            match State(record["state"]):
                case State.DOING | State.DONE | State.REJECTING:
                    record = yield from self._move(call, record, State.COMPENSATING)
                case State.COMPENSATING:
                    yield from self._give_all_back(record)
                    record = yield from self._move(call, record, State.COMPENSATED)
                case State.REJECTED:
                    record = yield from self._move(call, record, State.COMPENSATED)
                case State.COMPENSATED:
                    return
                case State.SHIPPING | State.SHIPPED:
                    raise already_shipped(call)
                case unknown:
                    assert_never(unknown)

    def _decide(self, demand: Demand, record: Document) -> Script[Document]:
        """Hold every product, then say DONE; or say at the first shortage that it is rejected."""
        call = demand.call
        for item in record["items"]:
            held = yield from self._hold(call, item["product"], item["quantity"])
            if held is KeyState.RELEASED:
                return (yield from self._read(call))
            if isinstance(held, Shortage):
                rejection = demand.rejection(held)
                return (yield from self._move(call, record, State.REJECTING, rejection=rejection))
        return (yield from self._move(call, record, State.DONE, response=demand.response))

    def _hold(self, call: StepCall, product: str, quantity: int) -> Script[KeyState | Shortage]:
        """HELD by this key now or before; RELEASED when somebody gives back; or what is short."""
        while True:
            refuse_expired(call, self._clock())
            if (yield hold(call.key, product, quantity, self._clock())):
                return KeyState.HELD
            stock = yield Find(STOCK, product)
            state = _key_state(stock, call.key)
            if state is not None:
                return state
            available = stock.get("available") if stock else None
            if available is None or available < quantity:
                return Shortage(product, quantity, available)

    def _give_all_back(self, record: Document) -> Script[None]:
        """Until every product of the record reads RELEASED under its key."""
        for item in record["items"]:
            yield from self._release(record["_id"], item["product"], item["quantity"])

    def _release(self, key: str, product: str, quantity: int) -> Script[None]:
        while True:
            if (yield give_back(key, product, quantity, self._clock())):
                return
            if (yield refuse_in_advance(key, product, self._clock())):
                return
            stock = yield Find(STOCK, product)
            if stock is None:
                yield room_for_tombstones(product)
            elif _key_state(stock, key) is KeyState.RELEASED:
                return

    def _open(self, call: StepCall, record: Document) -> Script[Document]:
        """Store the record, or read the one that is there."""
        record = {**record, "service": self._service, "time_ms": self._clock()}
        if (yield Insert(BARRIER, record)):
            return record
        return (yield from self._read(call))

    def _read(self, call: StepCall) -> Script[Document]:
        record: Document | None = yield Find(BARRIER, call.key)
        if record is None:
            raise record_missing(call)
        if record["service"] != self._service:
            raise request_changed(call)
        return record

    def _move(
        self, call: StepCall, record: Document, state: State, **outcome: bytes
    ) -> Script[Document]:
        """Move the record on unless somebody else has; the record as it is then."""
        change = {"state": state, "time_ms": self._clock(), **outcome}
        where = {"_id": call.key, "state": record["state"]}
        if (yield Update(BARRIER, where, {"$set": change})):
            return {**record, **change}
        return (yield from self._read(call))


def _doing(demand: Demand) -> Document:
    return {
        "_id": demand.call.key,
        "state": State.DOING,
        "items": [{"product": name, "quantity": n} for name, n in sorted(demand.items.items())],
        "held_for": demand.held_for,
        "request_sha256": demand.request_sha256,
    }


def already_shipped(call: StepCall) -> NotNow:
    """The refusal to give back what has left."""
    return NotNow(
        "STOCK_ALREADY_SHIPPED",
        f"what step {call.key} held has been shipped and cannot be given back",
        state=State.SHIPPED,
        allowed=[State.DOING, State.DONE, State.REJECTED, State.COMPENSATED],
    )


def _key_state(stock: Document | None, key: str) -> KeyState | None:
    reservation = stock["reservations"].get(key) if stock else None
    return None if reservation is None else KeyState(reservation["state"])

"""What the MongoDB barrier stores, and the few operations it does so with.

    barrier  {_id: "<saga_id>:<step>", service, state, time_ms, items: [{product, quantity}],
              held_for, request_sha256, response | rejection}
    stock    {_id: "<product>", available, reserved,
              reservations: {"<saga_id>:<step>": {state, quantity, time_ms}}}

A stock document without `available` is no product: it only keeps the tombstones of reservations
that asked for it. Times are int64 milliseconds since the epoch, of the last change that a Do or a
Compensate made.

Every operation reads or writes one document, which MongoDB does atomically on any topology. They
are values: one interpreter performs them on a database (`mongo.py`), another on a model in memory
that explores every interleaving (`tests/unit/mongo_barrier`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

BARRIER = "barrier"
STOCK = "stock"

Document: TypeAlias = Mapping[str, Any]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Insert:
    """Store a new document; True unless its _id is taken."""

    collection: str
    document: Document


@dataclass(frozen=True, slots=True)
class Update:
    """Change the one document that `where` describes; True if there was one.

    False proves nothing, not even that: it is also told of updates that travelled together, when
    one of them matched nothing. Read before concluding.
    """

    collection: str
    where: Document
    change: Document


@dataclass(frozen=True, slots=True)
class Find:
    """The document with this _id, or None."""

    collection: str
    id: str


@dataclass(frozen=True, slots=True)
class FindStates:
    """The `state` of each barrier document that exists, by _id; read one after another."""

    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class FindHeldFor:
    """The _id of each barrier document with this `held_for`, in their order."""

    held_for: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the one document that `where` describes; True if there was one."""

    collection: str
    where: Document


Operation: TypeAlias = Insert | Update | Find | FindStates | FindHeldFor | Delete

Script: TypeAlias = Generator[Operation, Any, T]
"""A procedure that yields one operation at a time, is sent its result, and returns a T."""


class KeyState(StrEnum):
    """What a reservation's key in a stock document says."""

    HELD = "HELD"
    RELEASED = "RELEASED"
    """Given back, shipped, or refused in advance: no Do can hold this product any more."""


def hold(key: str, product: str, quantity: int, now_ms: int) -> Update:
    """Take the quantity, if there is enough and this key has never been here."""
    path = f"reservations.{key}"
    return Update(
        STOCK,
        {"_id": product, "available": {"$gte": quantity}, path: {"$exists": False}},
        {
            "$inc": {"available": -quantity, "reserved": quantity},
            "$set": {path: {"state": KeyState.HELD, "quantity": quantity, "time_ms": now_ms}},
        },
    )


def give_back(key: str, product: str, quantity: int, now_ms: int) -> Update:
    """Return the quantity, if this key holds it."""
    path = f"reservations.{key}"
    return Update(
        STOCK,
        {"_id": product, f"{path}.state": KeyState.HELD},
        {
            "$inc": {"available": quantity, "reserved": -quantity},
            "$set": {f"{path}.state": KeyState.RELEASED, f"{path}.time_ms": now_ms},
        },
    )


def refuse_in_advance(key: str, product: str, now_ms: int) -> Update:
    """Write the tombstone that stops a late Do, if this key has never been here."""
    path = f"reservations.{key}"
    return Update(
        STOCK,
        {"_id": product, path: {"$exists": False}},
        {"$set": {path: {"state": KeyState.RELEASED, "quantity": 0, "time_ms": now_ms}}},
    )


def take_out(key: str, product: str, quantity: int, now_ms: int) -> Update:
    """Take the quantity out of the books, if this key holds it; it is never available again."""
    path = f"reservations.{key}"
    return Update(
        STOCK,
        {"_id": product, f"{path}.state": KeyState.HELD},
        {
            "$inc": {"reserved": -quantity},
            "$set": {f"{path}.state": KeyState.RELEASED, f"{path}.time_ms": now_ms},
        },
    )


def forget(keys: Sequence[str], product: str) -> Update:
    """Remove the tombstones of these keys, if all of them are RELEASED."""
    where = {f"reservations.{key}.state": KeyState.RELEASED for key in keys}
    unset = {f"reservations.{key}": "" for key in keys}
    return Update(STOCK, {"_id": product, **where}, {"$unset": unset})


def room_for_tombstones(product: str) -> Insert:
    """A stock document that is no product yet."""
    return Insert(STOCK, {"_id": product, "reserved": 0, "reservations": {}})


def remove_empty_room(product: str) -> Delete:
    """Undo `room_for_tombstones` once there are none left and it became no product."""
    empty = {"$eq": ["$reservations", {}]}  # not {"reservations": {}}: nx-27017 takes it for any
    return Delete(STOCK, {"_id": product, "available": {"$exists": False}, "$expr": empty})

"""MongoDB as far as the barrier uses it: documents by collection and _id, changed one at a time.

Databases are values: an operation gives its result and the database after it. That the real store
answers alike is tested in `tests/integration/inventory/test_model_fidelity.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, assert_never

from mesh.barrier.mongo_operations import (
    BARRIER,
    Delete,
    Document,
    Find,
    FindHeldFor,
    FindStates,
    Insert,
    Operation,
    Update,
)

Database = Mapping[tuple[str, str], Document]


def perform(database: Database, operation: Operation) -> tuple[Database, Any]:
    """The database after the operation, and the operation's result."""
    match operation:
        case Find(collection, id_):
            return database, database.get((collection, id_))
        case FindStates(ids):
            found = {id_: database.get((BARRIER, id_)) for id_ in ids}
            return database, {id_: record["state"] for id_, record in found.items() if record}
        case FindHeldFor(held_for):
            records = (r for (name, _), r in database.items() if name == BARRIER)
            return database, sorted(r["_id"] for r in records if r.get("held_for") == held_for)
        case Insert() | Update() | Delete():
            after = _written(database, operation)
            return (database, False) if after is None else (after, True)
        case unknown:
            assert_never(unknown)


def _written(database: Database, operation: Insert | Update | Delete) -> Database | None:
    """The database after the write; None when it matches nothing, or the _id is taken."""
    match operation:
        case Insert(collection, document):
            key = (collection, document["_id"])
            return None if key in database else {**database, key: document}
        case Update(collection, where, change):
            key, found = (collection, where["_id"]), _one(database, collection, where)
            return None if found is None else {**database, key: changed(found, change)}
        case Delete(collection, where):
            key, found = (collection, where["_id"]), _one(database, collection, where)
            return None if found is None else {k: v for k, v in database.items() if k != key}
        case unknown:
            assert_never(unknown)


def changed(document: Document, change: Document) -> Document:
    """The document after $inc, $set and $unset of dotted paths."""
    result = copy.deepcopy(dict(document))
    for path, amount in change.get("$inc", {}).items():
        before = _get(result, path)
        assert isinstance(before, int)
        _put(result, path, before + amount)
    for path, value in change.get("$set", {}).items():
        _put(result, path, copy.deepcopy(value))
    for path in change.get("$unset", {}):
        parent, last = _parent(result, path)
        parent.pop(last, None)
    return result


def _one(database: Database, collection: str, where: Document) -> Document | None:
    found = database.get((collection, where["_id"]))
    if found is None:
        return None
    return found if all(_matches(found, *condition) for condition in where.items()) else None


def _matches(document: Document, path: str, condition: object) -> bool:
    if path == "$expr":
        assert condition == {"$eq": ["$reservations", {}]}
        return not document["reservations"]
    return _holds(_get(document, path), condition)


def _holds(value: object, condition: object) -> bool:
    match condition:
        case {"$exists": expected}:
            return (value is not None) is expected
        case {"$gte": int(least)}:
            return isinstance(value, int) and value >= least
        case _:
            return value == condition


def _get(document: Document, path: str) -> object:
    value: object = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _put(document: dict[str, Any], path: str, value: object) -> None:
    parent, last = _parent(document, path)
    parent[last] = value


def _parent(document: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *parents, last = path.split(".")
    for name in parents:
        document = document.setdefault(name, {})
    return document, last

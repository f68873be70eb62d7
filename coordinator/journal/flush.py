"""One group commit as one statement: one round trip, one transaction, all of it or nothing.

The lease is checked by the statement itself, so no client can freeze between check and commit. Its
row is locked FOR KEY SHARE: renewing changes no key and never waits, ending the lease does.

An event is inserted only if it follows the newest one on disk, which settles conflicts, repetitions
and gaps by one look into the index; everything else in the statement builds on what was inserted,
or would have been: a saga that is being deleted while another starts under its id has events still.
Two coordinators that start the same saga at the same moment meet at the primary key: the statement
of the later one fails with a unique violation and finds the saga when it is run again.

Its plan is kept, and may have been made while the tables were empty, when every index costs the
same. So it is worded to leave one good choice: each part looks up, by a key, what the group names.
Hence arrays and sub-queries where a join might read every saga, suspect or verb, and "not decided"
instead of "PENDING", of which there is an index. What is left to choose is chosen anew now and
then (`replan`): tables grow from nothing to millions before anybody analyses them. Arrays are
unnested in a SELECT list, all of them in step: in a FROM each would first be stored as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from msgspec import Struct, json
from psycopg import AsyncConnection

from coordinator.journal.base import Append, Lease
from coordinator.journal.codec import Row, clean_keys
from coordinator.journal.packing import (
    BYTES,
    INTEGER,
    JSONB,
    NULL,
    TEXT,
    TIME,
    Element,
    pack_bytes,
    pack_integer,
    pack_jsonb,
    pack_name,
    pack_text,
    pack_time,
)
from coordinator.journal.prepared import Statement

SETTINGS = {
    "synchronous_commit": "on",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "2s",
    # A plan made while the tables are small must stay good: index look-ups, nothing else.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""Of the session that runs these statements."""

_WRITE = """
WITH lease AS MATERIALIZED (
  SELECT FROM saga.instance
  WHERE instance_id = %(instance_id)s AND epoch = %(epoch)s AND expire_time > clock_timestamp()
  FOR KEY SHARE
), written AS (
  INSERT INTO saga.saga_event
    (saga_id, revision, time, kind, step, attempt, payload, commands, state)
  SELECT new.*
  FROM lease, (
    SELECT unnest(%(saga_ids)s) AS saga_id, unnest(%(revisions)s) AS revision,
           unnest(%(times)s), unnest(%(kinds)s), unnest(%(steps)s), unnest(%(attempts)s),
           unnest(%(payloads)s), unnest(%(commands)s), unnest(%(states)s)
  ) AS new
  WHERE new.revision - 1 = coalesce((
    SELECT newest.revision FROM saga.saga_event AS newest
    WHERE newest.saga_id = new.saga_id ORDER BY newest.revision DESC LIMIT 1
  ), 0)
  RETURNING saga_id, revision, time, state
), started AS (
  INSERT INTO saga.saga
    (saga_id, definition, definition_hash, keys, state, create_time, update_time, owner, epoch)
  SELECT new.*, new.create_time, %(instance_id)s, %(epoch)s
  FROM lease, (
    SELECT unnest(%(started_ids)s) AS saga_id, unnest(%(definitions)s),
           unnest(%(definition_hashes)s), unnest(%(keys)s), unnest(%(started_states)s),
           unnest(%(create_times)s) AS create_time
  ) AS new
  WHERE (SELECT 1 FROM saga.saga_event AS old WHERE old.saga_id = new.saga_id LIMIT 1) IS NULL
  ON CONFLICT (saga_id) DO NOTHING
), acquitted AS (
  UPDATE saga.saga SET claims = 0
  WHERE saga_id = ANY (ARRAY(SELECT saga_id FROM written WHERE state IS NULL)) AND claims > 0
), moving AS MATERIALIZED (
  SELECT saga_id, state, time FROM written WHERE revision > 1 AND state IS NOT NULL
), moved AS (
  UPDATE saga.saga
  SET state = moving.state, update_time = moving.time, claims = 0, finish_time = CASE
    WHEN moving.state IN ('COMPLETED', 'COMPENSATED', 'ABANDONED') THEN moving.time
  END
  FROM moving
  WHERE saga.saga_id = moving.saga_id AND saga.saga_id = ANY (ARRAY(SELECT saga_id FROM moving))
), accepted AS (
  UPDATE saga.saga_inbox
  SET state = 'ACCEPTED', decide_time = clock_timestamp()
  WHERE decide_time IS NULL AND request_id = ANY (ARRAY(
    SELECT verb.request_id
    FROM written JOIN unnest(%(accepting_ids)s, %(verb_ids)s) AS verb (saga_id, request_id)
      USING (saga_id)
  ))
)
SELECT CASE WHEN EXISTS (SELECT FROM lease) THEN (SELECT count(*) FROM written) END
"""

_COMPARE = """
SELECT coalesce(
  (kept.time, kept.kind, kept.step, kept.attempt, kept.payload, kept.commands)
  = (told.time, told.kind, told.step, told.attempt, told.payload, told.commands)
  AND (told.revision > 1 OR saga.epoch = %(epoch)s), false)
FROM unnest(
  %(saga_ids)s, %(revisions)s, %(times)s, %(kinds)s, %(steps)s, %(attempts)s, %(payloads)s,
  %(commands)s
) WITH ORDINALITY
  AS told (saga_id, revision, time, kind, step, attempt, payload, commands, place)
LEFT JOIN saga.saga_event AS kept USING (saga_id, revision)
LEFT JOIN saga.saga ON saga.saga_id = kept.saga_id
ORDER BY told.place
"""

_AWAIT_LOST_WRITES = "SELECT FROM saga.instance WHERE instance_id = %s FOR UPDATE"
_TRUE = b"\x01"

_EVENT = {
    "saga_ids": TEXT,
    "revisions": INTEGER,
    "times": TIME,
    "kinds": TEXT,
    "steps": TEXT,
    "attempts": INTEGER,
    "payloads": BYTES,
    "commands": BYTES,
    "states": TEXT,
}
_START = {
    "started_ids": TEXT,
    "definitions": TEXT,
    "definition_hashes": TEXT,
    "keys": JSONB,
    "started_states": TEXT,
    "create_times": TIME,
}
_VERB = {"accepting_ids": TEXT, "verb_ids": TEXT}


def _statement(name: str, text: str, *arrays: Mapping[str, Element]) -> Statement:
    types = {"instance_id": "text", "epoch": "bigint"}
    for elements in arrays:
        types |= {parameter: f"{element.name}[]" for parameter, element in elements.items()}
    return Statement(name, text, types)


WRITE = _statement("write_group", _WRITE, _EVENT, _START, _VERB)
COMPARE = _statement("compare_group", _COMPARE, _EVENT)


class Packed(Struct, frozen=True, kw_only=True, gc=False):
    """One append, ready to be a place in each of the statement's arrays."""

    saga_id: str
    event: tuple[bytes, ...]
    start: tuple[bytes, ...] | None
    """Of its first event only."""
    verb: tuple[bytes, ...] | None
    size: int
    """Bytes, roughly."""


def pack(append: Append, row: Row) -> Packed:
    """Pack an append.

    Raises:
        struct.error, ValueError: PostgreSQL has no place for it.
    """
    saga_id = pack_text(row.saga_id)
    state = pack_name(append.saga.state.value) if append.state_changed else NULL
    event = (
        saga_id,
        pack_integer(row.revision),
        pack_time(row.time_ms),
        pack_name(row.kind),
        pack_name(row.step),
        pack_integer(row.attempt),
        pack_bytes(row.payload),
        pack_bytes(row.commands),
        state,
    )
    return Packed(
        saga_id=row.saga_id,
        event=event,
        start=_pack_start(append, event) if row.revision == 1 else None,
        verb=(saga_id, pack_text(append.verb_id)) if append.verb_id else None,
        size=len(row.payload) + len(row.commands) + 200,
    )


def _pack_start(append: Append, event: tuple[bytes, ...]) -> tuple[bytes, ...]:
    saga_id, _, time, *_ = event
    definition = append.saga.definition
    return (
        saga_id,
        pack_name(definition.name),
        pack_name(definition.hash),
        pack_jsonb(json.encode(clean_keys(append.saga.keys))),
        pack_name(append.saga.state.value),
        time,
    )


async def prepare(connection: AsyncConnection) -> None:
    """Prepare a session to write groups and to compare them.

    Raises:
        psycopg.Error: it is of no use.
    """
    await WRITE.prepare(connection)
    await COMPARE.prepare(connection)


async def replan(connection: AsyncConnection) -> None:
    """Have the next group written by a plan for the tables as they are by now.

    Raises:
        psycopg.Error: it was not answered.
    """
    await connection.execute("DISCARD PLANS")


async def write(connection: AsyncConnection, lease: Lease, group: Sequence[Packed]) -> int | None:
    """Write a group, all or nothing, if the lease is held; None if it is not.

    Returns how many of the events were new and followed their sagas' newest.

    Raises:
        psycopg.Error: nothing was written, or it was not answered.
    """
    # Sorted, so that two coordinators that start the same sagas cannot block each other.
    group = sorted(group, key=attrgetter("saga_id"))
    parameters = [
        *_lease(lease),
        *_arrays(_EVENT, [packed.event for packed in group]),
        *_arrays(_START, [packed.start for packed in group if packed.start]),
        *_arrays(_VERB, [packed.verb for packed in group if packed.verb]),
    ]
    ((events,),) = await WRITE.ask(connection, parameters)
    return None if events is None else int.from_bytes(events)


async def compare(
    connection: AsyncConnection, lease: Lease, group: Sequence[Packed]
) -> Sequence[bool]:
    """Say of each event of a group whether it is on disk, a first one in a saga of this lease.

    Raises:
        psycopg.Error: it was not answered.
    """
    parameters = [*_lease(lease), *_arrays(_EVENT, [packed.event for packed in group])]
    return [same == _TRUE for (same,) in await COMPARE.ask(connection, parameters)]


async def await_lost_writes(connection: AsyncConnection, lease: Lease) -> None:
    """Return once no statement under this lease is in progress whose answer was lost."""
    await connection.execute(_AWAIT_LOST_WRITES, [lease.instance_id])


def _lease(lease: Lease) -> tuple[bytes, bytes]:
    return lease.instance_id.encode(), lease.epoch.to_bytes(8)


def _arrays(
    elements: Mapping[str, Element], places: Sequence[tuple[bytes, ...]]
) -> Iterator[bytes]:
    columns = zip(*places, strict=True) if places else ((),) * len(elements)
    return (
        element.array(column) for element, column in zip(elements.values(), columns, strict=True)
    )

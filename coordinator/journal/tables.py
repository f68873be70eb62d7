"""The journal's tables as queries see them; constraints and indexes are in `migrations/`.

instance    who holds a lease now: one row for each; a lease that ended has none
saga        what is asked of a saga as a whole; changes when its state does, or its owner
saga_event  what happened to it; only ever added to
saga_inbox  what clients and operators ask of sagas' owners
definition  every registered version

A saga is owned by the lease whose `epoch` it carries. Epochs come from one sequence and are never
used twice, so an epoch without a row in `instance` is dead for ever and its sagas may be claimed.
Two epochs are no lease's: `NOBODY`, of a saga to be claimed at once, and `PARKED`.
Times are milliseconds since the epoch in Python and `timestamptz` on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    any_,
    literal,
)
from sqlalchemy import Sequence as DatabaseSequence
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

NOBODY = 0
"""The epoch of a saga that was given back."""
PARKED = -1
"""The epoch of a saga that nobody may claim before its `wake_time`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Milliseconds(TypeDecorator[int]):
    """A `timestamptz` as integer milliseconds since the epoch; exact, unlike a float of seconds."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        return None if value is None else _EPOCH + value * _MILLISECOND

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> int | None:
        """From the database."""
        return None if value is None else (value - _EPOCH) // _MILLISECOND


metadata = MetaData(schema="saga")

epoch_sequence = DatabaseSequence("epoch", metadata=metadata)

instance = Table(
    "instance",
    metadata,
    Column("instance_id", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("expire_time", Milliseconds, nullable=False),
)

saga = Table(
    "saga",
    metadata,
    Column("saga_id", Text, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("definition_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("keys", JSONB, nullable=False),
    Column("owner", Text, nullable=False, comment="instance_id of the lease, for people"),
    Column("epoch", BigInteger, nullable=False, comment="of the lease that owns it"),
    Column("claims", Integer, nullable=False, comment="since its newest event, or acquittal"),
    Column("claim_revision", Integer, nullable=False, comment="of an older version; not used"),
    Column("create_time", Milliseconds, nullable=False),
    Column("update_time", Milliseconds, nullable=False, comment="when its state changed last"),
    Column("finish_time", Milliseconds, comment="null until its state is final"),
    Column("wake_time", Milliseconds, comment="until when it is parked; of no meaning otherwise"),
)

saga_event = Table(
    "saga_event",
    metadata,
    Column("saga_id", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("time", Milliseconds, nullable=False),
    Column("kind", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", Text, comment="of the saga from here on; null when it did not change"),
    Column("payload", LargeBinary, nullable=False, comment="a journal.v1.Event"),
    Column("commands", LargeBinary, nullable=False, comment="a journal.v1.Commands"),
)

saga_inbox = Table(
    "saga_inbox",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("saga_id", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("explanation", Text, nullable=False),
    Column("create_time", Milliseconds, nullable=False),
    Column("decide_time", Milliseconds),
    Column("revision", Integer, nullable=False, comment="that it is bound to; 0 for any"),
)

definition = Table(
    "definition",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("descriptors", LargeBinary, nullable=False),
    Column("create_time", Milliseconds, nullable=False),
    Column("registered", BigInteger, nullable=False, comment="grows with every registration"),
)


def one_of(column: ColumnElement[str], values: Sequence[str]) -> ColumnElement[bool]:
    """Whether a text is among these, as one parameter however many they are."""
    return column == any_(literal(list(values), ARRAY(Text)))

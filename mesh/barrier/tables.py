"""The `barrier` table: one row per saga and step, which refuses every impossible state.

state         request  response  rejection
DOING         yes      -         -
DONE          yes      yes       -
REJECTED      yes      -         yes
COMPENSATING  yes      perhaps   -
COMPENSATED   perhaps  perhaps   perhaps      (no request: Compensate came first)

What is possible is said by one function, of which PostgreSQL keeps what it has read. The expression
of a CHECK it reads anew in every statement that writes: these cost more than the write itself. So
does a bound in a regular expression, whose length is therefore asked for by itself.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    inspect,
)
from sqlalchemy.dialects.postgresql import JSONB

from mesh.barrier.rules import BarrierState
from mesh.step import MAX_MESSAGE_BYTES

_STATES = ", ".join(f"'{state}'" for state in BarrierState)

_POSSIBLE = f"""
    state IN ({_STATES})
    AND length(saga_id) <= 64 AND saga_id ~ '^[A-Za-z0-9][A-Za-z0-9_-]*$'
    AND length(step) <= 48 AND step ~ '^[a-z][a-z0-9_]*$'
    AND (request IS NULL) = (request_sha256 IS NULL)
    AND coalesce(octet_length(request_sha256) = 32, true)
    AND coalesce(octet_length(request) <= {MAX_MESSAGE_BYTES}, true)
    AND coalesce(octet_length(response) <= {MAX_MESSAGE_BYTES}, true)
    AND (request IS NOT NULL OR state = 'COMPENSATED' AND response IS NULL AND rejection IS NULL)
    AND CASE state
            WHEN 'DOING' THEN response IS NULL AND rejection IS NULL
            WHEN 'DONE' THEN response IS NOT NULL AND rejection IS NULL
            WHEN 'REJECTED' THEN response IS NULL AND rejection IS NOT NULL
            WHEN 'COMPENSATING' THEN rejection IS NULL
            ELSE response IS NULL OR rejection IS NULL
        END
    AND stage >= 0
"""
_CREATE_FUNCTION = f"""
    CREATE OR REPLACE FUNCTION barrier_is_possible(
        saga_id text, step text, state text, request bytea, request_sha256 bytea, response bytea,
        rejection bytea, stage integer
    ) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        BEGIN RETURN {_POSSIBLE}; END
    $$
"""
_DROP_FUNCTION = "DROP FUNCTION IF EXISTS barrier_is_possible"
_IS_POSSIBLE = """
    barrier_is_possible(
        saga_id, step, state, request, request_sha256, response, rejection, stage
    )
"""

_EARLIER_CHECKS = (
    "state",
    "saga_id",
    "step",
    "request_sha256",
    "sha256_length",
    "request_size",
    "response_size",
    "has_request",
    "has_outcome",
    "stage",
)

barrier = Table(
    "barrier",
    MetaData(),
    Column("saga_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("service", Text, nullable=False, comment="full name of the step service"),
    Column("state", Text, nullable=False),
    Column("request", LargeBinary, comment="what Do was sent"),
    Column("request_sha256", LargeBinary),
    Column("response", LargeBinary, comment="what Do answered"),
    Column("rejection", LargeBinary, comment="a google.rpc.Status"),
    Column("note", JSONB, nullable=False, server_default="{}", comment="how far the stages are"),
    Column("stage", Integer, nullable=False, server_default="0", comment="how often note changed"),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("update_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint(_IS_POSSIBLE, "barrier_possible"),
    Index("barrier_purge", "state", "update_time"),
)


def create_barrier(bind: Connection) -> None:
    """Create the table, in a service's Alembic migration: `create_barrier(op.get_bind())`."""
    bind.exec_driver_sql(_CREATE_FUNCTION)
    barrier.create(bind)


def renew_barrier(bind: Connection) -> None:
    """Bring a table of any earlier release up to date, in a migration; harmless where it is.

    What is there has been checked by the constraints that this takes the place of.
    """
    bind.exec_driver_sql(_CREATE_FUNCTION)
    checks = {check["name"] for check in inspect(bind).get_check_constraints(barrier.name)}
    if "barrier_possible" not in checks:
        add = f"ADD CONSTRAINT barrier_possible CHECK ({_IS_POSSIBLE}) NOT VALID"
        drops = (f"DROP CONSTRAINT IF EXISTS barrier_{name}" for name in _EARLIER_CHECKS)
        bind.exec_driver_sql(f"ALTER TABLE barrier {', '.join([add, *drops])}")


def drop_barrier(bind: Connection) -> None:
    """Undo `create_barrier`."""
    barrier.drop(bind)
    bind.exec_driver_sql(_DROP_FUNCTION)

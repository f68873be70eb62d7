"""The `barrier` table: one row per saga and step, which refuses every impossible state.

state         request  response  rejection
DOING         yes      -         -
DONE          yes      yes       -
REJECTED      yes      -         yes
COMPENSATING  yes      perhaps   -
COMPENSATED   perhaps  perhaps   perhaps      (no request: Compensate came first)
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
)
from sqlalchemy.dialects.postgresql import JSONB

from mesh.barrier.rules import BarrierState
from mesh.step import MAX_MESSAGE_BYTES, SAGA_ID_PATTERN, SAGA_STEP_PATTERN

_STATES = ", ".join(f"'{state}'" for state in BarrierState)

_HAS_REQUEST = """
    request IS NOT NULL OR (state = 'COMPENSATED' AND response IS NULL AND rejection IS NULL)
"""
_HAS_OUTCOME = """
    CASE state
        WHEN 'DOING' THEN response IS NULL AND rejection IS NULL
        WHEN 'DONE' THEN response IS NOT NULL AND rejection IS NULL
        WHEN 'REJECTED' THEN response IS NULL AND rejection IS NOT NULL
        WHEN 'COMPENSATING' THEN rejection IS NULL
        ELSE response IS NULL OR rejection IS NULL
    END
"""

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
    CheckConstraint(f"state IN ({_STATES})", "barrier_state"),
    CheckConstraint(f"saga_id ~ '^{SAGA_ID_PATTERN.pattern}$'", "barrier_saga_id"),
    CheckConstraint(f"step ~ '^{SAGA_STEP_PATTERN.pattern}$'", "barrier_step"),
    CheckConstraint("(request IS NULL) = (request_sha256 IS NULL)", "barrier_request_sha256"),
    CheckConstraint("octet_length(request_sha256) = 32", "barrier_sha256_length"),
    CheckConstraint(f"octet_length(request) <= {MAX_MESSAGE_BYTES}", "barrier_request_size"),
    CheckConstraint(f"octet_length(response) <= {MAX_MESSAGE_BYTES}", "barrier_response_size"),
    CheckConstraint(_HAS_REQUEST, "barrier_has_request"),
    CheckConstraint(_HAS_OUTCOME, "barrier_has_outcome"),
    CheckConstraint("stage >= 0", "barrier_stage"),
    Index("barrier_purge", "state", "update_time"),
)


def create_barrier(bind: Connection) -> None:
    """Create the table, in a service's Alembic migration: `create_barrier(op.get_bind())`."""
    barrier.create(bind)


def drop_barrier(bind: Connection) -> None:
    """Undo `create_barrier`."""
    barrier.drop(bind)

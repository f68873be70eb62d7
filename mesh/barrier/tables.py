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
    CheckConstraint("state = 'COMPENSATED' OR request IS NOT NULL", "barrier_has_request"),
    CheckConstraint("state <> 'DOING' OR response IS NULL", "barrier_doing"),
    CheckConstraint("state <> 'DONE' OR response IS NOT NULL", "barrier_done"),
    CheckConstraint(
        "(state = 'REJECTED') = (rejection IS NOT NULL)"
        " OR (state = 'COMPENSATED' AND rejection IS NOT NULL)",
        "barrier_rejected",
    ),
    CheckConstraint("response IS NULL OR rejection IS NULL", "barrier_one_outcome"),
    CheckConstraint("request IS NOT NULL OR response IS NULL", "barrier_response_has_request"),
    CheckConstraint("stage >= 0", "barrier_stage"),
    Index("barrier_purge", "state", "update_time"),
)


def create_barrier(bind: Connection) -> None:
    """Create the table, in a service's Alembic migration: `create_barrier(op.get_bind())`."""
    barrier.create(bind)


def drop_barrier(bind: Connection) -> None:
    """Undo `create_barrier`."""
    barrier.drop(bind)

"""What the coordinator reads from its environment."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, field_validator

from coordinator.participants.addresses import parse_participants
from mesh.settings import ServiceSettings

SHIPPED_DEFINITIONS = Path(__file__).parent / "definitions"


class Settings(ServiceSettings):
    """Environment variables of the coordinator; `python -m coordinator --help` lists them."""

    grpc_port: int = Field(
        default=50051, ge=0, le=65535, description="port of the gRPC server; 0 for any"
    )
    console_port: int = Field(
        default=8080, ge=0, le=65535, description="port of the console with /metrics; 0 for any"
    )
    postgres_dsn: str = Field(
        pattern=r"^postgres(ql)?://",
        description="the journal's database, postgresql://user@host:port/name",
    )
    participants: str = Field(
        description="where steps are served: host:port or name=host:port, separated by commas"
    )
    definitions_dir: Path = Field(
        default=SHIPPED_DEFINITIONS,
        description="folder of definitions (*.yaml) that are registered at start",
    )
    instance_id: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$",
        description="name of this instance, the same after a restart, unlike any other's",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes that share GRPC_PORT, also --workers N: each with a lease of its own"
        " (INSTANCE_ID-1 and so on) and a console of its own (CONSOLE_PORT and those after it)",
    )
    worker: bool = Field(
        default=False, description="whether this is one of several; set by --workers for each"
    )
    lease_seconds: float = Field(
        default=3,
        ge=0.5,
        le=60,
        description="how long after its last heartbeat a dead instance keeps its sagas",
    )
    max_sagas: int = Field(
        default=50_000, ge=1, description="sagas in memory above which no new one is started"
    )
    max_calls_per_participant: int = Field(
        default=512,
        ge=1,
        le=65_536,
        description="calls in flight to one participant above which further ones wait",
    )
    step_streams: bool = Field(
        default=True,
        description="whether calls travel together to participants that serve mesh.v1.StepStream",
    )
    retention_days: float = Field(
        default=30,
        ge=1,
        le=36_500,
        description="how long a finished saga is kept, and its id refused to another",
    )

    reconcile_minutes: float = Field(
        default=60,
        ge=0,
        le=10_080,
        description="how often what participants hold is compared with the journal; 0 for never",
    )

    @field_validator("participants")
    @classmethod
    def _readable(cls, value: str) -> str:
        parse_participants(value)
        return value

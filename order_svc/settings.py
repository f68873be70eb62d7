"""Settings of the order service."""

from __future__ import annotations

from pydantic import Field

from mesh.settings import PostgresSettings


class Settings(PostgresSettings):
    """What the order service reads from its environment."""

    grpc_port: int = Field(
        default=50052, ge=0, le=65535, description="port of the gRPC server; 0 for any"
    )
    coordinator_address: str = Field(
        default="localhost:50051",
        min_length=1,
        description="coordinator that runs the sagas, host:port, or ipv4:IP:port,IP:port",
    )

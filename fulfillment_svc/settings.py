"""Settings of the fulfillment service."""

from __future__ import annotations

from pydantic import Field

from mesh.settings import PostgresSettings


class Settings(PostgresSettings):
    """What the fulfillment service reads from its environment."""

    grpc_port: int = Field(
        default=50055, ge=0, le=65535, description="port of the gRPC server; 0 for any"
    )

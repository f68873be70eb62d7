"""Settings of the inventory service."""

from __future__ import annotations

from pydantic import Field

from mesh.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the inventory service reads from its environment."""

    grpc_port: int = Field(
        default=50053, ge=0, le=65535, description="port of the gRPC server; 0 for any"
    )
    mongodb_uri: str = Field(
        pattern=r"^mongodb(\+srv)?://", description="MongoDB server, mongodb://host:port"
    )
    mongodb_database: str = Field(
        default="inventory", pattern=r"^[A-Za-z0-9_-]{1,63}$", description="database of the stock"
    )
    barrier_retention_days: int = Field(
        default=400,
        ge=31,
        description="how long the record of a done step is kept for its compensation",
    )

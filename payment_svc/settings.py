"""Settings of the payment service."""

from __future__ import annotations

from pydantic import Field, SecretStr

from mesh.settings import PostgresSettings


class Settings(PostgresSettings):
    """What the payment service reads from its environment."""

    grpc_port: int = Field(
        default=50054, ge=0, le=65535, description="port of the gRPC server; 0 for any"
    )
    stripe_api_key: SecretStr = Field(
        default=SecretStr("sk_test_sandbox"), description="secret key at the payment provider"
    )
    stripe_api_base: str = Field(
        default="http://127.0.0.1:12111",
        pattern=r"^https?://",
        description="the payment provider: the sandbox, or https://api.stripe.com",
    )
    stripe_log: None = Field(
        default=None, description="must stay unset: the SDK would print card tokens to stderr"
    )

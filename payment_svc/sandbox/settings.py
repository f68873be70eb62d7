"""Settings of the sandbox: flags, or environment variables of the same names with SANDBOX_."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from payment_svc.sandbox.switches import Fault, Switches


class SandboxSettings(BaseSettings):
    """A Stripe-shaped payment provider for one machine.

    Every flag is an environment variable too: --latency_ms is SANDBOX_LATENCY_MS.
    """

    model_config = SettingsConfigDict(
        env_prefix="SANDBOX_", frozen=True, cli_prog_name="python -m payment_svc.sandbox"
    )

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=12111, ge=0, le=65535, description="port to listen on; 0 for any")
    ledger: Path = Field(
        default=Path("data/payment-sandbox.sqlite3"),
        description="SQLite file of the ledger; made when missing",
    )
    latency_ms: int = Field(
        default=0, ge=0, description="wait of every request before it has any effect, in ms"
    )
    settle_seconds: int = Field(
        default=2, ge=0, description="how long payments are processing and refunds pending"
    )
    faults: tuple[Fault, ...] = Field(
        default=(), description='what goes wrong, as JSON: [{"kind": "drop_after", "rate": 0.01}]'
    )
    seed: int | None = Field(default=None, description="makes faults with a rate repeatable")

    @property
    def switches(self) -> Switches:
        """The switches at start."""
        return Switches(
            latency_ms=self.latency_ms, settle_seconds=self.settle_seconds, faults=self.faults
        )

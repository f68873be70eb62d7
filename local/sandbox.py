"""The switches and the ledger of the payment sandbox, over its own HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from local.until import until


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One payment as the provider has it, in minor units."""

    saga_id: str
    captured: int
    refunded: int


class Sandbox:
    """A running sandbox at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def charges(self, saga_id: str = "") -> list[Charge]:
        """What was taken and given back for a saga, or for all, by the provider's own ledger."""
        books = await self._get(f"ledger?saga_id={saga_id}" if saga_id else "ledger")
        return [
            Charge(saga_id=line["saga_id"], captured=line["captured"], refunded=line["refunded"])
            for line in books["payments"]
        ]

    async def slow_down(self, latency_ms: int) -> None:
        """Let every request wait so long before it has any effect; 0 for no wait."""
        await self.switch({"latency_ms": latency_ms})

    async def switch(self, switches: Mapping[str, object]) -> None:
        """Set its switches as its `/_sandbox/switches` takes them; what is left out is off."""
        async with httpx.AsyncClient() as client:
            answer = await client.put(f"{self._url}/_sandbox/switches", json=switches)
            answer.raise_for_status()

    async def until_charging(self) -> bool:
        """Wait until a charge is in progress; False when none comes in time."""

        async def charging() -> bool:
            requests = (await self._get("in-progress"))["in_progress"]
            return any(request["operation"] == "confirm" for request in requests)

        return await until(charging, seconds=30)

    async def _get(self, path: str) -> dict[str, list[dict[str, Any]]]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{self._url}/_sandbox/{path}")
            answer.raise_for_status()
            found: dict[str, list[dict[str, Any]]] = answer.json()
            return found

"""Keeps the routing table fresh: which participant serves which step.

Participants are asked by reflection at start, and again every few seconds, so that one that comes
up late, or comes back with a new step, is found without a restart of the coordinator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from coordinator.participants.base import Contract, Contracts, ParticipantUnreachable

log = structlog.get_logger(__name__)

Route = Callable[[Iterable[Contract]], None]


class Routing:
    """Asks the participants and hands on what they serve."""

    def __init__(self, contracts: Contracts, route: Route, *, every_seconds: float = 5) -> None:
        self._contracts = contracts
        self._route = route
        self._every_seconds = every_seconds
        self._unreachable: frozenset[str] = frozenset()

    async def refresh(self) -> None:
        """Ask every participant once."""
        heard = list(await self._contracts.fetch())
        self._route([answer for answer in heard if isinstance(answer, Contract)])
        self._tell(frozenset(str(e) for e in heard if isinstance(e, ParticipantUnreachable)))

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._every_seconds)

    def _tell(self, unreachable: frozenset[str]) -> None:
        for words in unreachable - self._unreachable:
            log.warning("participant.unreachable", why=words)
        if self._unreachable and not unreachable:
            log.info("participants.all_reachable")
        self._unreachable = unreachable

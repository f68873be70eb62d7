"""Keeps the routing table fresh: which participant serves which step.

Participants are asked by reflection at start, and again every few seconds, so that one that comes
up late, or comes back with a new step, is found without a restart of the coordinator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from coordinator.participants.base import Contract, Contracts, ParticipantUnreachable
from coordinator.participants.reflection import ServedTwice, check_served_once

log = structlog.get_logger(__name__)

Route = Callable[[Iterable[Contract]], None]


class Routing:
    """Asks the participants and hands on what they serve."""

    def __init__(
        self,
        contracts: Contracts,
        route: Route,
        *,
        every_seconds: float = 5,
        while_away_seconds: float = 0.5,
    ) -> None:
        """`while_away_seconds` is how often is asked as long as somebody does not answer."""
        self._contracts = contracts
        self._route = route
        self._every_seconds = every_seconds
        self._while_away_seconds = while_away_seconds
        self._unreachable: frozenset[str] = frozenset()
        self._conflict = ""

    async def refresh(self) -> None:
        """Ask every participant once.

        Raises:
            ServedTwice: it is not clear whom to call for a step; the routes stay as they were.
        """
        heard = list(await self._contracts.fetch())
        contracts = [answer for answer in heard if isinstance(answer, Contract)]
        check_served_once(contracts)
        self._route(contracts)
        self._tell(frozenset(str(e) for e in heard if isinstance(e, ParticipantUnreachable)))

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            away = bool(self._unreachable)
            await asyncio.sleep(self._while_away_seconds if away else self._every_seconds)
            try:
                await self.refresh()
                self._conflict = ""
            except ServedTwice as conflict:
                self._tell_conflict(str(conflict))

    def _tell_conflict(self, why: str) -> None:
        if why != self._conflict:
            log.error("participants.served_twice", why=why)
        self._conflict = why

    def _tell(self, unreachable: frozenset[str]) -> None:
        for words in unreachable - self._unreachable:
            log.warning("participant.unreachable", why=words)
        if self._unreachable and not unreachable:
            log.info("participants.all_reachable")
        self._unreachable = unreachable

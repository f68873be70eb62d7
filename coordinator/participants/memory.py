"""The participants without a network: a test, or a simulation, plays them.

sent = await participants.next()          # the oldest attempt that nobody has taken
sent.answer(Done(b"..."))
participants.away.add("payment")         # its health service does not say SERVING
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from coordinator.participants.base import Answer, Attempt


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt on its way."""

    attempt: Attempt
    answered: Callable[[Answer], None]

    def answer(self, answer: Answer) -> None:
        """Answer it, soon."""
        asyncio.get_running_loop().call_soon(self.answered, answer)


class MemoryParticipants:
    """Keeps every attempt until somebody takes and answers it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Sent] = asyncio.Queue()
        self.away: set[str] = set()
        """Names of participants whose health service does not say SERVING."""
        self.unheard: set[str] = set()
        """Services that nobody is known to serve, as long as not everybody was heard."""
        self.asked: list[str] = []
        """Names of the participants whose health was asked, in order."""

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        """See `Participants.call`."""
        self._waiting.put_nowait(Sent(attempt, answered))

    def whose(self, service: str) -> str:
        """The first word of its package, as payment for payment.v1.ChargePayment."""
        return service if service in self.unheard else service.split(".", maxsplit=1)[0]

    async def serving(self, participant: str) -> bool:
        """See `Participants.serving`."""
        self.asked.append(participant)
        return participant not in self.away | self.unheard

    async def next(self) -> Sent:
        """The oldest attempt that was not taken yet, as soon as there is one."""
        return await self._waiting.get()

    @property
    def waiting(self) -> int:
        """How many attempts nobody has taken."""
        return self._waiting.qsize()

"""The participants without a network: a test, or a simulation, plays them.

sent = await participants.next()          # the oldest attempt that nobody has taken
sent.answer(Done(b"..."))
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

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        """See `Participants.call`."""
        self._waiting.put_nowait(Sent(attempt, answered))

    async def next(self) -> Sent:
        """The oldest attempt that was not taken yet, as soon as there is one."""
        return await self._waiting.get()

    @property
    def waiting(self) -> int:
        """How many attempts nobody has taken."""
        return self._waiting.qsize()

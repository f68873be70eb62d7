"""One question to the store for all who ask it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

AnswerT = TypeVar("AnswerT")


class Sharing(Generic[AnswerT]):
    """Asks `ask(key)`, one question for each key at a time; who comes meanwhile shares the next.

    Nobody shares a question that was asked before they came, so an answer is never older than the
    call that gets it.
    """

    def __init__(self, ask: Callable[[str], Awaitable[AnswerT]]) -> None:
        self._ask = ask
        self._asked: dict[str, asyncio.Task[AnswerT]] = {}
        self._next: dict[str, asyncio.Task[AnswerT]] = {}

    async def __call__(self, key: str) -> AnswerT:
        """The answer; raises what `ask` raises."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._after(self._asked.get(key), key))
        # One who gives up must not take the answer from the others.
        return await asyncio.shield(task)

    async def _after(self, before: asyncio.Task[AnswerT] | None, key: str) -> AnswerT:
        if before is not None:
            await asyncio.wait([before])
        self._asked[key] = self._next.pop(key)
        try:
            return await self._ask(key)
        finally:
            del self._asked[key]

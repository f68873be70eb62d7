"""Telling many at once, some of them in each turn of the event loop, whatever one of them raises.

A callback of the loop for each would cost more than what most of them do. All of them in one turn
would make everything else wait, and not only that: what the first have made ready could be on its
way meanwhile. Told in turns, half of the sagas that march in step are written or called while the
other half is decided: the database and the participants work at the same time as we do. Turns of
many are larger, for what a turn has made ready travels together, and that is cheaper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

_LEAST_TURN, _MOST_TURNS = 32, 8

NewsT = TypeVar("NewsT")


def tell_all(
    loop: asyncio.AbstractEventLoop, news: Sequence[tuple[Callable[[NewsT], object], NewsT]]
) -> None:
    """Call each with its news, from the loop's next turn on; what is added before that, too."""
    loop.call_soon(_tell, loop, news, 0)


def _tell(
    loop: asyncio.AbstractEventLoop,
    news: Sequence[tuple[Callable[[NewsT], object], NewsT]],
    told: int,
) -> None:
    """When one raises, the loop hears of it and tells the others later."""
    turn = max(_LEAST_TURN, len(news) // _MOST_TURNS)
    try:
        for hear, what in news[told : told + turn]:
            told += 1
            hear(what)
    finally:
        if told < len(news):
            loop.call_soon(_tell, loop, news, told)

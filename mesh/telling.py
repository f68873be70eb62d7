"""Telling many at once, some of them in each turn of the event loop, whatever one of them raises.

A callback of the loop for each would cost more than what most of them do. All of them in one turn
would make everything else wait, and not only that: what the first have made ready could be on its
way meanwhile. Told in turns, half of the sagas that march in step are written or called while the
other half is decided: the database and the participants work at the same time as we do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

TURN = 32

NewsT = TypeVar("NewsT")


def tell_all(
    loop: asyncio.AbstractEventLoop, news: Iterable[tuple[Callable[[NewsT], object], NewsT]]
) -> None:
    """Call each with its news, from the loop's next turn on."""
    loop.call_soon(_tell, loop, iter(news))


def _tell(
    loop: asyncio.AbstractEventLoop, news: Iterator[tuple[Callable[[NewsT], object], NewsT]]
) -> None:
    """When one raises, the loop hears of it and tells the others later."""
    told, begun = 0, True
    try:
        for hear, what in islice(news, TURN):
            hear(what)
            told += 1
        begun = told == TURN
    finally:
        if begun:
            loop.call_soon(_tell, loop, news)

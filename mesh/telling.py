"""Telling many at once: one turn of the event loop for all, whatever one of them raises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

NewsT = TypeVar("NewsT")


def tell_all(
    loop: asyncio.AbstractEventLoop, news: Iterable[tuple[Callable[[NewsT], object], NewsT]]
) -> None:
    """Call each with its news, in the loop's next turn.

    A callback of the loop for each of them would cost more than what most of them do.
    """
    loop.call_soon(_tell, loop, iter(news))


def _tell(
    loop: asyncio.AbstractEventLoop, news: Iterator[tuple[Callable[[NewsT], object], NewsT]]
) -> None:
    """When one raises, the loop hears of it and tells the others later."""
    left = True
    try:
        for hear, what in news:
            hear(what)
        left = False
    finally:
        if left:
            loop.call_soon(_tell, loop, news)

"""A closed loop: so many callers, each of which places one order after the other."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import msgspec

from bench.two_phase.orders import Order

_WARM_SECONDS = 0.5


class Caller(Protocol):
    """Whoever places orders, one at a time."""

    async def place(self, order: Order) -> None:
        """Return when both databases have it."""
        ...


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What callers got done."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def measure(
    callers: Sequence[AbstractAsyncContextManager[Caller]], orders: Iterator[Order], seconds: float
) -> Throughput:
    """Let all of them place orders for so long, after half a second to get going."""
    async with AsyncExitStack() as stack:
        connected = [await stack.enter_async_context(caller) for caller in callers]
        begin = time.perf_counter() + _WARM_SECONDS
        took: list[float] = []
        await asyncio.gather(
            *(_place(caller, orders, begin, begin + seconds, took) for caller in connected)
        )
    percentiles = statistics.quantiles(took, n=100)
    return Throughput(
        per_second=len(took) / seconds, p50_ms=percentiles[49] * 1e3, p99_ms=percentiles[98] * 1e3
    )


async def _place(
    caller: Caller, orders: Iterator[Order], begin: float, end: float, took: list[float]
) -> None:
    while (before := time.perf_counter()) < end:
        await caller.place(next(orders))
        if begin < (now := time.perf_counter()) < end:
            took.append(now - before)

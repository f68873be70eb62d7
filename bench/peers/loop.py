"""The closed loop of `go/load.go` for peers that are Python libraries: same flags, same output.

It runs in the venv of the peers, so it knows nothing of the rest of this repository.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Saga = Callable[[], Awaitable[None]]


def options(description: str | None) -> argparse.Namespace:
    """What a load is told: where its peer is, how many sagas, for how long."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--peer", required=True, help="a DSN or an address")
    flags.add_argument("--participant", required=True)
    flags.add_argument("--steps", required=True, type=lambda text: text.split(","))
    flags.add_argument("--in-flight", type=int, required=True)
    flags.add_argument("--warm", type=float, required=True, help="seconds")
    flags.add_argument("--for", dest="seconds", type=float, required=True)
    return flags.parse_args()


@dataclass
class Loop:
    """Sagas in flight, each followed by another, and what became of them."""

    saga: Saga
    begin: float
    end: float
    latencies: list[float] = field(default_factory=list)
    finished: int = 0
    failures: list[str] = field(default_factory=list)
    cpu: float = 0

    async def work(self) -> None:
        """Run one saga after the other until time is up."""
        while (started := time.monotonic()) < self.end:
            try:
                await self.saga()
            except Exception as failed:  # noqa: BLE001 - whatever a library raises is reported
                self.failures.append(repr(failed))
                continue
            self.finished += 1
            if self.begin < (now := time.monotonic()) < self.end:
                self.latencies.append(now - started)

    async def tell(self) -> None:
        """Say when the window begins and ends."""
        await asyncio.sleep(self.begin - time.monotonic())
        before = time.process_time()
        _say("begin")
        await asyncio.sleep(self.end - time.monotonic())
        self.cpu = time.process_time() - before
        _say("end")

    def report(self) -> dict[str, float | str]:
        """See `bench.window.Report`."""
        ordered, seconds = sorted(self.latencies) or [0.0], self.end - self.begin
        return {
            "seconds": seconds,
            "count": len(self.latencies),
            "per_second": len(self.latencies) / seconds,
            "p50_ms": ordered[len(ordered) // 2] * 1e3,
            "p99_ms": ordered[len(ordered) * 99 // 100] * 1e3,
            "finished": self.finished,
            "wrong": len(self.failures),
            "cpu_s": self.cpu,
            "example": self.failures[-1] if self.failures else "",
        }


async def run(saga: Saga, told: argparse.Namespace) -> None:
    """Keep sagas in flight, and print what was found."""
    begin = time.monotonic() + told.warm
    loop = Loop(saga, begin, begin + told.seconds)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(loop.tell())
        for _ in range(told.in_flight):
            tasks.create_task(loop.work())
    _say(json.dumps(loop.report()))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - who runs it reads this

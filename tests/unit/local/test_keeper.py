"""What `make up` does about a process that has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typing_extensions import override

from local.keeper import keep
from local.processes import Process, StartFailed


class Killed(Process):
    """A process that was killed, and does not start the first time."""

    def __init__(self) -> None:
        super().__init__("payment", [], log=Path("payment.log"), ready=self._answers)
        self.starts = 0

    @property
    @override
    def pid(self) -> int | None:
        return 4711 if self.starts > 1 else None

    @override
    async def start(self) -> None:
        self.starts += 1
        if self.pid is None:
            raise StartFailed("payment ended at start")

    async def _answers(self) -> bool:
        return True


async def test_what_has_ended_is_started_again_until_it_runs_and_all_of_it_is_said() -> None:
    said: list[str] = []
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 4:
            raise asyncio.CancelledError

    killed = Killed()
    with pytest.raises(asyncio.CancelledError):
        await keep(killed, said.append, sleep=sleep)

    ended = "payment has ended, and is started again in 10 s"
    assert said == [ended, "payment ended at start", ended, "payment is back, process 4711"]
    assert slept[:2] == [10, 10]
    assert killed.starts == 2

"""Walks through a story: at every moment one coordinator dies, and the next one goes on.

Each life finishes what the one before has left, as after any restart, and then dies in a saga of
its own; so a walk through n moments takes n + 1 processes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from uuid_utils import uuid7

from local.mesh import PARTICIPANTS, Mesh
from tests.crash_points.dying import Life, run
from tests.crash_points.stories import Story
from tests.forks import forkserver

LONGEST_SECONDS = 30
COORDINATOR = "coordinator-1"
"""As the mesh calls its own, whose place is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How one life ended."""

    exit_code: int | None
    moments: list[str]
    """All that it came to, in order."""


class Walk:
    """One story on a mesh whose own coordinator does not run."""

    def __init__(self, mesh: Mesh, story: Story) -> None:
        self._mesh = mesh
        self._story = story

    async def record(self) -> tuple[str, ...]:
        """Every moment of the saga when nothing dies."""
        order_id = str(uuid7())
        end = await self._live(order_id=order_id)
        assert end.exit_code == 0
        ours = (moment.removeprefix(f"{order_id} ") for moment in end.moments if order_id in moment)
        return tuple(ours)

    async def die_at(self, moments: Iterable[str]) -> dict[str, str]:
        """Die at each moment in turn; returns the order of each, all sagas having ended."""
        orders: dict[str, str] = {}
        left: tuple[str, ...] = ()
        for moment in moments:
            order_id = orders[moment] = str(uuid7())
            await self._die(f"{order_id} {moment}", order_id=order_id, left=left)
            left = (order_id,)
        await self.finish(left)
        return orders

    async def die_taking_over(self, last: str, moments: Iterable[str]) -> dict[str, str]:
        """Die at a moment of a saga, then again at each moment of taking it over."""
        orders: dict[str, str] = {}
        for moment in moments:
            order_id = orders[moment] = str(uuid7())
            await self._die(f"{order_id} {last}", order_id=order_id)
            await self._die(moment, left=(order_id,))
            await self.finish((order_id,))
        return orders

    async def finish(self, left: tuple[str, ...]) -> None:
        """Let a coordinator bring sagas to their end."""
        assert (await self._live(left=left)).exit_code == 0

    async def _die(self, moment: str, *, order_id: str = "", left: tuple[str, ...] = ()) -> None:
        end = await self._live(order_id=order_id, left=left, dies=moment)
        assert end.exit_code == -signal.SIGKILL, (moment, end)
        assert end.moments[-1] == moment

    async def _live(self, *, order_id: str = "", left: tuple[str, ...] = (), dies: str = "") -> End:
        life = Life(
            dsn=self._mesh.dsn("coordinator"),
            targets={name: self._mesh.address(name) for name in PARTICIPANTS},
            instance_id=COORDINATOR,
            story=self._story,
            left=left,
            order_id=order_id,
            dies=dies,
        )
        return await asyncio.to_thread(_process, life)


def _process(life: Life) -> End:
    heard, told = forkserver.Pipe(duplex=False)
    process = forkserver.Process(target=run, args=(life, told))
    process.start()
    told.close()
    moments: list[str] = []
    try:
        while heard.poll(LONGEST_SECONDS):
            moments.append(heard.recv())
        process.kill()  # it hangs
    except EOFError:
        pass  # it is gone
    process.join()
    return End(exit_code=process.exitcode, moments=moments)

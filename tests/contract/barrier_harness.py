"""What the one suite of barrier behaviour needs to know about a barrier: very little.

Each barrier has a harness: a step behind it whose effects can be counted. The suite calls the step
as the coordinator would, and asks the store (never the barrier) what is held.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from google.protobuf.message import Message

from mesh.clock import Clock
from mesh.effects import Effects
from mesh.step import GuardedStep


class Pause:
    """A place in the effect of a Do where the first one to come by waits; later ones pass."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._resumed = asyncio.Event()

    async def pass_by(self) -> None:
        """To be awaited by the step's own code, in the middle of its effect."""
        if not self._reached.is_set():
            self._reached.set()
            await self._resumed.wait()

    async def reached(self) -> None:
        """Returns when a Do waits."""
        await self._reached.wait()

    def resume(self) -> None:
        """Let it go on."""
        self._resumed.set()


class BarrierHarness(ABC):
    """One barrier on its real store, fresh for one test."""

    @abstractmethod
    def guarded(self, clock: Clock | None = None) -> GuardedStep:
        """A step behind the barrier, as one participant process would build it.

        Called several times it gives several processes' views of the same store. Without a clock
        the barrier takes its default, the wall clock.
        """

    @abstractmethod
    def effects(self) -> Effects:
        """What the barrier tells of its records."""

    @abstractmethod
    def request(self, variant: int = 0) -> Message:
        """A Do request that succeeds; another variant is another request."""

    @abstractmethod
    def large_request(self) -> Message:
        """A request of more than 1 MiB."""

    @abstractmethod
    async def make_it_reject(self) -> None:
        """From now on the business refuses `request()` for good, with reason OUT_OF_STOCK."""

    @abstractmethod
    async def make_it_accept(self) -> None:
        """Take `make_it_reject` back."""

    @abstractmethod
    async def effects_held(self, saga_id: str) -> int:
        """How many effects of this saga exist in the store now; never more than 1 is right."""

    @abstractmethod
    async def forget(self, saga_id: str) -> None:
        """Delete the barrier's record of this saga, as a purge long after would."""

    @abstractmethod
    def pause(self) -> Pause:
        """The next Do stops in the middle of its effect until the pause is resumed."""

    async def underway(self, call: asyncio.Task[Message]) -> None:
        """Returns once `call` can go no further beside a paused Do: it is over, or waits for it.

        A barrier whose calls wait for each other in the store looks there.
        """
        await asyncio.wait({call})

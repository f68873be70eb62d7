"""What the one suite of barrier behaviour needs to know about a barrier: very little.

Each barrier has a harness: a step behind it whose effect can be counted. The suite calls the step
as the coordinator would, and asks the store (never the barrier) what is held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

from google.protobuf.message import Message

from mesh.clock import Clock
from mesh.step import GuardedStep


class BarrierHarness(ABC):
    """One barrier on its real store, fresh for one test."""

    @abstractmethod
    def guarded(self, clock: Clock | None = None) -> GuardedStep:
        """A step behind the barrier, as one participant process would build it.

        Called several times it gives several processes' views of the same store. Without a clock
        the barrier takes its default, the wall clock.
        """

    @abstractmethod
    def request(self, variant: int = 0) -> Message:
        """A Do request that succeeds; another variant is another request."""

    @abstractmethod
    async def make_it_reject(self) -> None:
        """From now on the business refuses `request()` for good, with reason OUT_OF_STOCK."""

    @abstractmethod
    async def make_it_accept(self) -> None:
        """Take `make_it_reject` back."""

    @abstractmethod
    async def effects_held(self, saga_id: str) -> int:
        """How many effects of this saga exist in the store now: 0 or 1, more is a failure."""

    @abstractmethod
    def paused(self) -> AbstractAsyncContextManager[Pause]:
        """Within it, a Do that has begun its effect waits there, uncommitted, until resumed."""

    @abstractmethod
    async def forget(self, saga_id: str) -> None:
        """Delete the barrier's records of this saga, as a purge long after would."""


class Pause(ABC):
    """A Do that was stopped halfway."""

    @abstractmethod
    async def reached(self) -> None:
        """Returns when a Do waits."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on, and later ones pass."""

"""The journal and the calls of a coordinator, watched where the engine meets them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection

from msgspec.structs import replace

from coordinator.core.events import AttemptFailed, Event, StepCompensated, StepDone, StepRejected
from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.engine.clock import LoopClock, Timer
from coordinator.journal.base import Append, AppendError, Claimed, Lease
from coordinator.journal.codec import KINDS
from coordinator.journal.postgres import PostgresJournal
from coordinator.journal.verbs import Verb, VerbKind
from coordinator.participants.base import Answer, Attempt, Failed
from coordinator.participants.grpc import GrpcParticipants
from tests.crash_points.stories import Story

NO_ANSWER = Failed(Failure(kind=FailureKind.UNKNOWN, code="DEADLINE_EXCEEDED", reason="NO_ANSWER"))


class Moments:
    """Tells of every moment as it comes, and dies at the chosen one."""

    def __init__(self, told: Connection, chosen: str) -> None:
        self._told = told
        self._chosen = chosen

    def reach(self, saga_id: str, moment: str) -> None:
        """Die if this is the moment; `saga_id` is empty for what concerns the whole instance."""
        what = f"{saga_id} {moment}".lstrip()
        self._told.send(what)
        if what == self._chosen:
            os.kill(os.getpid(), signal.SIGKILL)


class WatchedJournal(PostgresJournal):
    """PostgreSQL, with a moment before each write reaches it and one before its end is heard of."""

    def __init__(self, dsn: str, moments: Moments) -> None:
        super().__init__(dsn)
        self._moments = moments
        self.aborted: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def append(self, append: Append, done: Callable[[AppendError | None], None]) -> None:
        saga_id, act = append.saga.saga_id, event_act(append.event)

        def written(error: AppendError | None) -> None:
            self._moments.reach(saga_id, f"after {act}")
            if act == "ABORTED":
                self.aborted[saga_id].set()
            done(error)

        self._moments.reach(saga_id, f"before {act}")
        super().append(append, written)

    async def acquire_lease(
        self, instance_id: str, length_ms: int, *, after: Lease | None = None
    ) -> Lease:
        self._moments.reach("", "before LEASE")
        lease = await super().acquire_lease(instance_id, length_ms, after=after)
        self._moments.reach("", "after LEASE")
        return lease

    async def claim(
        self, lease: Lease, limit: int, *, passing_over: frozenset[str] = frozenset()
    ) -> Claimed:
        self._moments.reach("", "before CLAIM")
        claimed = await super().claim(lease, limit, passing_over=passing_over)
        self._moments.reach("", "after CLAIM")
        return claimed


class WatchedParticipants(GrpcParticipants):
    """The real calls, with a moment before each is sent and one before its answer is heard.

    What befalls the saga in its story befalls it here: `cancel` asks for its abort.
    """

    def __init__(
        self,
        targets: dict[str, str],
        moments: Moments,
        story: Story,
        *,
        cancel: Callable[[str], asyncio.Future[None]],
    ) -> None:
        super().__init__(targets)
        self._moments = moments
        self._story = story
        self._cancel = cancel

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        doing = attempt.step if attempt.direction is Direction.DO else ""
        act = call_act(attempt)

        def hear(answer: Answer) -> None:
            self._moments.reach(attempt.saga_id, f"after {act}")
            answered(NO_ANSWER if doing and doing == self._story.unanswered else answer)

        def hear_when_aborted(answer: Answer) -> None:
            self._cancel(attempt.saga_id).add_done_callback(lambda _: hear(answer))

        self._moments.reach(attempt.saga_id, f"before {act}")
        if doing and doing == self._story.spoiled:
            attempt = replace(attempt, request=b"")
        super().call(
            attempt, hear_when_aborted if doing and doing == self._story.cancelled else hear
        )


class HurriedClock(LoopClock):
    """Retries come at once; leases and the time of day are as they are."""

    def call_at(self, due_ms: int, callback: Callable[[], None]) -> Timer:
        soon = due_ms - self.now_ms() < 60_000
        return super().call_at(self.now_ms() if soon else due_ms, callback)


def cancel_of(saga_id: str) -> Verb:
    """The same request from every client that asks for it."""
    return Verb(
        request_id=f"cancel-{saga_id}",
        saga_id=saga_id,
        kind=VerbKind.CANCEL,
        actor="ann",
        reason="changed her mind",
    )


def event_act(event: Event) -> str:
    """An event's name in the stories."""
    kind = KINDS[type(event)]
    if isinstance(event, StepDone | StepRejected | StepCompensated | AttemptFailed):
        return f"{kind} {_tried(event.step, event.attempt)}"
    return kind


def call_act(attempt: Attempt) -> str:
    """A call's name in the stories."""
    return f"{attempt.direction.value} {_tried(attempt.step, attempt.attempt)}"


def _tried(step: str, attempt: int) -> str:
    return step if attempt <= 1 else f"{step} #{attempt}"

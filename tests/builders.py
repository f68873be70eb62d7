"""Given, when, then for the core: sagas told as stories, without a database or a participant.

saga = given("a", "b").done("a").rejected("b")
assert saga.calls == ["COMPENSATE a 1"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from coordinator.core.commands import Call
from coordinator.core.decide import Decision, decide, start
from coordinator.core.events import (
    Abandoned,
    Aborted,
    AttemptFailed,
    Event,
    Retried,
    Started,
    StepCompensated,
    StepDone,
    StepRejected,
    StepSkipped,
    Stuck,
)
from coordinator.core.evolve import replay
from coordinator.core.model import (
    Definition,
    Direction,
    Failure,
    FailureKind,
    RequestNotBuildable,
    RetryPolicy,
    SagaState,
    Step,
)
from coordinator.core.saga import Saga, progress_of

POLICY = RetryPolicy(max_attempts=3)
UNDO_POLICY = RetryPolicy(max_attempts=4)


@dataclass(frozen=True)
class Echo:
    """Builds a request that says what it was built from; fails for the steps named."""

    step: str
    broken: bool = False

    def __call__(self, input_bytes: bytes, responses: Mapping[str, bytes], /) -> bytes:
        if self.broken:
            raise RequestNotBuildable(f"{self.step} cannot be built")
        seen = ",".join(f"{name}={value.decode()}" for name, value in responses.items())
        given = input_bytes.decode(errors="replace")
        return f"{self.step}({given};{seen})".encode()


def definition(*steps: str, broken: frozenset[str] = frozenset()) -> Definition:
    return Definition(
        name="story",
        hash="story-1",
        steps=tuple(
            Step(
                name=name,
                service=f"test.v1.{name.title()}",
                build=Echo(name, name in broken),
                retry=POLICY,
                compensation_retry=UNDO_POLICY,
            )
            for name in steps
        ),
    )


def failure(kind: FailureKind = FailureKind.UNKNOWN, reason: str = "NO_ANSWER") -> Failure:
    return Failure(kind=kind, code="UNAVAILABLE", reason=reason, message="told")


@dataclass
class Story:
    """One saga with its history; every verb appends one event and keeps the clock going."""

    saga: Saga
    commands: tuple[Call, ...]
    history: list[tuple[Event, tuple[Call, ...]]] = field(default_factory=list)

    @property
    def state(self) -> SagaState:
        return self.saga.state

    @property
    def calls(self) -> list[str]:
        """The calls decided by the newest event, as words."""
        return [f"{c.direction.value} {c.step} {c.attempt}" for c in self.commands]

    def steps(self) -> str:
        return " ".join(progress.state.value for progress in self.saga.steps)

    def happens(self, event: Event) -> Story:
        decision = decide(self.saga, event)
        self._take(event, decision)
        if decision.then is not None:
            self.happens(decision.then)
        return self

    def _take(self, event: Event, decision: Decision) -> None:
        self.saga, self.commands = decision.saga, decision.commands
        self.history.append((event, decision.commands))

    def replayed(self) -> Saga:
        return replay(self.saga.saga_id, self.saga.definition, self.history)

    def _now(self) -> int:
        return self.saga.updated_ms + 1

    def attempt(self, step: str) -> int:
        return progress_of(self.saga, step).attempt

    def done(self, step: str) -> Story:
        response = f"{step}-ok".encode()
        return self.happens(
            StepDone(time_ms=self._now(), step=step, attempt=self.attempt(step), response=response)
        )

    def rejected(self, step: str, *, kind: FailureKind = FailureKind.REJECTED) -> Story:
        told = replace(failure(kind, "OUT_OF_STOCK"), step=step)
        return self.happens(
            StepRejected(time_ms=self._now(), step=step, attempt=self.attempt(step), failure=told)
        )

    def failed(self, step: str, *, kind: FailureKind = FailureKind.UNKNOWN) -> Story:
        call = progress_of(self.saga, step).call
        direction = call.direction if call else Direction.DO
        return self.happens(
            AttemptFailed(
                time_ms=self._now(),
                step=step,
                direction=direction,
                attempt=self.attempt(step),
                failure=replace(failure(kind), step=step),
                retry_at_ms=self._now() + 1_000,
            )
        )

    def compensated(self, step: str) -> Story:
        return self.happens(
            StepCompensated(time_ms=self._now(), step=step, attempt=self.attempt(step))
        )

    def cancelled(self, *, awaited: str = "") -> Story:
        told = failure(FailureKind.REFUSED, "SAGA_CANCELLED")
        waiting = frozenset(awaited.split())
        return self.happens(Aborted(time_ms=self._now(), failure=told, awaited=waiting))

    def stuck(self) -> Story:
        return self.happens(Stuck(time_ms=self._now(), failure=failure(reason="POISON")))

    def retried(self) -> Story:
        return self.happens(Retried(time_ms=self._now(), actor="ann", note="mended"))

    def skipped(self, step: str) -> Story:
        return self.happens(
            StepSkipped(time_ms=self._now(), step=step, actor="ann", note="by hand")
        )

    def abandoned(self) -> Story:
        return self.happens(Abandoned(time_ms=self._now(), actor="ann", note="written off"))


def given(*steps: str, broken: frozenset[str] = frozenset()) -> Story:
    event = Started(time_ms=1_000, input_bytes=b"in")
    decision = start("saga-1", definition(*steps, broken=broken), event)
    return Story(decision.saga, decision.commands, [(event, decision.commands)])

"""The port to the participants: send one attempt, hear one answer.

Contract, for every implementation:

- `call` sends the bytes as they are, with the saga's metadata, and returns at once.
- `answered` is called exactly once per call, on the event loop, never before `call` has returned.
  No answer by the attempt's timeout is an answer too: UNKNOWN with DEADLINE_EXCEEDED.
- An answer is Done only for OK. What every other code means is the table of `outcome.py`.
- `call` never raises for reasons of the wire or the participant; these are answers.
- `whose` names the participant that serves a step service. While nobody is known to serve it, it
  has a name of its own, under which its calls wait together: that of the service.
- `serving` asks the participant's health service, within a second or so, and never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec import Struct

from coordinator.core.model import Direction, Failure


class Attempt(Struct, frozen=True, kw_only=True, gc=False):
    """One try of a command."""

    saga_id: str
    step: str
    service: str
    """Full name of the step service."""
    direction: Direction
    attempt: int
    request: bytes
    timeout_ms: int
    not_after_ms: int | None = None
    """A participant refuses a Do that arrives later; None for Compensate."""
    non_retryable_reasons: frozenset[str] = frozenset()
    traceparent: str = ""
    """Trace context of the saga, parent of this attempt's span; empty when it is not traced."""
    link_span_id: str = ""
    """Span of the Do that this Compensate undoes; empty when there is none."""


class Done(Struct, frozen=True, gc=False):
    """The participant answered OK."""

    response: bytes
    span_id: str = ""


class Failed(Struct, frozen=True, gc=False):
    """The participant answered something else, or nothing."""

    failure: Failure
    """Its `step` is set by the engine."""
    retry_after_ms: int | None = None
    """From RetryInfo."""
    span_id: str = ""


Answer = Done | Failed


class Participants(Protocol):
    """Where steps are served."""

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        """Send one attempt; `answered` hears what came of it."""
        ...

    def whose(self, service: str) -> str:
        """Name of the participant that serves a step service; the service itself if nobody does."""
        ...

    async def serving(self, participant: str) -> bool:
        """Whether a participant says that calls may be sent to it.

        One without a health service is, when it answers at all. A service that nobody is known to
        serve is once every participant was heard: then its calls can be answered, with the reason.
        """
        ...


class Ways(Struct, frozen=True, kw_only=True, gc=False):
    """How calls to a participant travel, and how many have by now."""

    participant: str
    streams: int
    """Step streams that take calls now."""
    streamed: int
    alone: int
    """Called by themselves."""


class ParticipantUnreachable(Exception):
    """A participant did not answer reflection; says which and why."""


class Contract(Struct, frozen=True, kw_only=True, gc=False):
    """What one running participant serves."""

    participant: str
    """Its name in the settings, such as inventory."""
    services: frozenset[str]
    """Full names of its services."""
    files: tuple[bytes, ...]
    """Serialised FileDescriptorProtos of these services with everything they import."""


class Contracts(Protocol):
    """What the running participants serve, asked of them by reflection."""

    async def fetch(self) -> Iterable[Contract | ParticipantUnreachable]:
        """Ask every participant; one that does not answer is in the result as an exception."""
        ...

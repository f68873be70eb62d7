"""The engine as the API sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from coordinator.core.model import Definition
from coordinator.core.saga import Saga
from coordinator.engine.gate import Condition


class Sagas(Protocol):
    """Starts sagas and tells of their changes."""

    @property
    def instance_id(self) -> str:
        """The name of this instance."""
        ...

    async def start(
        self,
        *,
        saga_id: str,
        definition: Definition,
        input_bytes: bytes,
        keys: Mapping[str, str],
        traceparent: str,
    ) -> Saga:
        """Start a saga and return it once it is on disk.

        Raises:
            RevisionConflict: there is a saga with this id already.
            RequestNotBuildable: the first step's request cannot be built from this input.
            JournalUnavailable: it is not known to be on disk; asking again is safe.
            Draining, Overloaded: this instance takes no new saga now.
        """
        ...

    def verb_posted(self) -> None:
        """A verb is in the inbox: look at once."""
        ...

    def circuit_of(self, service: str) -> Condition:
        """How the participant that serves a step service does, seen from this instance."""
        ...

    async def wait_for_change(
        self, saga_id: str, after_revision: int, timeout_seconds: float | None = None
    ) -> None:
        """Return when a newer revision is on disk, or after the timeout.

        At once when this process wrote it, soon when another did.

        Raises:
            JournalUnavailable: the journal went away meanwhile.
        """
        ...

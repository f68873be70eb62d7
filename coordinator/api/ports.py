"""The engine as the API sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from coordinator.engine.gate import Condition
from coordinator.engine.ports import NewSaga


class Sagas(Protocol):
    """Starts sagas and tells of their changes."""

    @property
    def instance_id(self) -> str:
        """The name of this instance."""
        ...

    def begin(self, new: NewSaga, begun: Callable[[Saga | Exception], None]) -> None:
        """Start a saga; `begun` hears once, on the event loop, of it on disk or why it is not.

        The exceptions are those of `start`. Nothing is raised, and `begun` is not called before
        this has returned.
        """
        ...

    async def start(self, new: NewSaga) -> Saga:
        """Start a saga and return it once it is on disk; see `begin`.

        Raises:
            RevisionConflict: there is a saga with this id already.
            RequestNotBuildable: the first step's request cannot be built from this input.
            JournalUnavailable: it is not known to be on disk; asking again is safe.
            Draining, Overloaded: this instance takes no new saga now.
        """
        ...

    def when_ended(
        self, saga_id: str, ended: Callable[[Saga | SagaState], None]
    ) -> Callable[[], None]:
        """Let `ended` hear once when a saga is final or STUCK, wherever it runs.

        It is given the saga if it ended here, at once; its state, soon, if another instance brought
        it there. What is returned calls this off. A saga that has ended before it was asked for
        counts as well.
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

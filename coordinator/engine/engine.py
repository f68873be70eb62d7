"""The engine as a whole: start a saga, hear of changes and ends, run, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from coordinator.core.model import Definition
from coordinator.core.saga import Saga
from coordinator.engine.admission import Admission, Limits
from coordinator.engine.changes import Changes
from coordinator.engine.definitions import Definitions
from coordinator.engine.ends import Ended, Ends
from coordinator.engine.errors import Draining
from coordinator.engine.fence import Fence
from coordinator.engine.gate import Condition
from coordinator.engine.gates import Gates
from coordinator.engine.ownership import Ownership, OwnershipSettings
from coordinator.engine.ports import NewSaga, Ports
from coordinator.engine.runner import Runner
from coordinator.engine.starts import Begun, Starts
from coordinator.journal.base import JournalUnavailable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits of one instance."""

    ownership: OwnershipSettings
    max_sagas: int = 50_000
    """More than this many sagas in memory are not started, and not a tenth more claimed."""
    max_calls: int = 512
    """So many calls may be in flight to one participant."""
    limits: Limits = field(default_factory=Limits)
    start_timeout_ms: int = 5_000
    """Who starts a saga hears that the journal is away when it is not on disk after this long."""
    drain_ms: int = 10_000
    """How long a shutdown waits for calls in flight, at most."""


class Engine:
    """Runs the sagas of one instance."""

    def __init__(self, settings: EngineSettings, ports: Ports, *, definitions: Definitions) -> None:
        self._settings = settings
        self._ports = ports
        self._changes = Changes(self._revision)
        self._ends = Ends(self._runs)
        fence = Fence(ports.clock)
        self._gates = Gates(
            ports.participants, ports.clock, limit=settings.max_calls, chance=ports.chance
        )
        self._runner = Runner(
            ports,
            fence=fence,
            gates=self._gates,
            changes=self._changes,
            ends=self._ends,
            lost=self._lost,
        )
        self._ownership = Ownership(
            settings.ownership,
            ports,
            definitions=definitions,
            fence=fence,
            runner=self._runner,
            room=self._room_for_claims,
        )
        self._admission = Admission(settings.limits, ports, self._gates)
        self._starts = Starts(
            ports,
            self._runner,
            self._changes,
            check=self._check,
            timeout_ms=settings.start_timeout_ms,
        )
        self._draining = False

    def _revision(self, saga_id: str) -> int:
        live = self._runner.get(saga_id)
        return live.saga.revision if live else 0

    def _runs(self, saga_id: str) -> bool:
        return self._ownership.held and self._runner.get(saga_id) is not None

    def _lost(self, saga_id: str) -> None:
        self._ownership.astray(saga_id)

    @property
    def sagas(self) -> int:
        """How many sagas are in memory."""
        return len(self._runner)

    @property
    def ready(self) -> bool:
        """Whether a saga could be started now."""
        return self._ownership.held and self._ports.journal.available and not self._draining

    async def leased(self) -> None:
        """Return once the first lease is held; `run` has to be at work."""
        await self._ownership.leased.wait()

    async def run(self) -> None:
        """Hold the lease and run sagas until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._gates.run())
            await self._ownership.run()

    async def drain(self) -> None:
        """Take nothing new, hear what is in flight for a while; call it before cancelling `run`.

        No longer than others would wait for the sagas of one that died: they all stand still.
        """
        self._draining = True
        self._runner.stop_sending()
        patience_ms = min(self._settings.drain_ms, self._settings.ownership.lease_ms)
        try:
            async with asyncio.timeout(patience_ms / 1_000):
                while not self._runner.idle:
                    self._runner.settled.clear()
                    await self._runner.settled.wait()
        except TimeoutError:
            log.warning("drain.calls_left_in_flight")

    async def release(self) -> None:
        """Give all sagas back to the others at once; call it after `run` was cancelled."""
        await self._ownership.release()

    def verb_posted(self) -> None:
        """A verb is in the inbox: look at once."""
        self._ownership.inbox.wake()

    @property
    def instance_id(self) -> str:
        """The name of this instance."""
        return self._settings.ownership.instance_id

    def circuit_of(self, service: str) -> Condition:
        """How the participant that serves a step service does, seen from this instance."""
        return self._gates.of(service).condition

    def conditions(self) -> Sequence[Condition]:
        """How every participant does that was called; may be asked from another thread."""
        return self._gates.conditions()

    @property
    def changes(self) -> Changes:
        """Who waits for changes of sagas; it hears at once of those that this instance makes."""
        return self._changes

    async def wait_for_change(
        self, saga_id: str, after_revision: int, timeout_seconds: float | None = None
    ) -> None:
        """See `Changes.wait`."""
        await self._changes.wait(saga_id, after_revision, timeout_seconds)

    @property
    def ends(self) -> Ends:
        """Who waits for sagas to end; it hears at once of those that this instance ends."""
        return self._ends

    def when_ended(self, saga_id: str, ended: Ended) -> Callable[[], None]:
        """Let `ended` hear once when a saga is final or STUCK; see `api.ports.Sagas`."""
        return self._ends.wait(saga_id, ended)

    def begin(self, new: NewSaga, begun: Begun) -> None:
        """Start a saga; `begun` hears once of it on disk, or why it is not.

        The exceptions are those of `start`, or whatever bug this saga has met. A start that is not
        on disk after `start_timeout_ms` is told as JournalUnavailable, and goes on.
        """
        self._starts.begin(new, begun)

    async def start(self, new: NewSaga) -> Saga:
        """Start a saga and return it once it is on disk; who stops waiting leaves it as it is.

        Raises:
            RevisionConflict: there is a saga with this id already.
            RequestNotBuildable: the first step's request cannot be built from this input.
            JournalUnavailable: it is not known to be on disk; asking again is safe.
            Draining, Overloaded: this instance takes no new saga now.
        """
        answer: asyncio.Future[Saga | Exception] = asyncio.get_running_loop().create_future()

        def begun(outcome: Saga | Exception) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.begin(new, begun)
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _check(self, definition: Definition) -> None:
        if self._draining:
            raise Draining
        if not self.ready:
            raise JournalUnavailable("the journal's database is away")
        self._admission.check(definition, room=self._room(), starts=len(self._starts))

    def _room(self) -> int:
        """How many more sagas may be in memory."""
        return self._settings.max_sagas - len(self._runner) - len(self._starts)

    def _room_for_claims(self) -> int:
        """How many more may be claimed: new sagas never keep out those that nobody owns."""
        return 0 if self._draining else self._room() + self._settings.max_sagas // 10

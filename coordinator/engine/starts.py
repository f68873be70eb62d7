"""Starting sagas: a start is on disk before anything of it is done, and before its caller hears.

Nobody waits in a task of its own: a start is one append and one callback. Two starts of one id go
one after the other, because what the second is told depends on what became of the first.

The journal may take long, above all while its database is away. A caller hears after a while that
the start is not known to be on disk, which leaves the start itself as it is: it is written when the
database is back, and runs then. One timer serves all starts, in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from msgspec import Struct

from coordinator.core.decide import Decision, start
from coordinator.core.events import Started
from coordinator.core.model import Definition
from coordinator.core.saga import Saga
from coordinator.engine.changes import Changes
from coordinator.engine.ports import NewSaga, Ports
from coordinator.engine.runner import Runner
from coordinator.journal.base import (
    Append,
    AppendError,
    JournalUnavailable,
    LeaseLost,
    RevisionConflict,
)

Begun: TypeAlias = Callable[[Saga | Exception], None]

_GRAIN_SECONDS = 0.1
"""How exactly starts that take too long are found."""


class _Start(Struct, eq=False):
    decision: Decision
    term: int
    """The runner's when it was decided."""
    due: float
    """When its caller has waited long enough, by the loop's clock."""
    begun: Begun | None
    """None once its caller has heard that it takes too long."""
    behind: list[tuple[NewSaga, Begun]] | None = None
    """Starts of the same id that came later."""

    def wait_behind(self, new: NewSaga, begun: Begun) -> None:
        """Be told after this one; nobody waits behind one that takes too long already."""
        if self.begun is None:
            raise _not_known()
        if self.behind is None:
            self.behind = []
        self.behind.append((new, begun))


class Starts:
    """The starts of one instance that wait for the disk."""

    def __init__(
        self,
        ports: Ports,
        runner: Runner,
        changes: Changes,
        *,
        check: Callable[[Definition], None],
        timeout_ms: int,
    ) -> None:
        """`check` raises when no saga may be started now."""
        self._journal = ports.journal
        self._clock = ports.clock
        self._runner = runner
        self._changes = changes
        self._check = check
        self._patience = timeout_ms / 1_000
        self._waiting: dict[str, _Start] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, new: NewSaga, begun: Begun) -> None:
        """Start a saga; see `api.ports.Sagas.begin`."""
        try:
            self._check(new.definition)
            earlier = self._waiting.get(new.saga_id)
            if earlier is None:
                self._write(new, begun)
            else:
                earlier.wait_behind(new, begun)
        except Exception as error:  # noqa: BLE001 - its caller hears it, be it a bug; the others go on
            asyncio.get_running_loop().call_soon(begun, error)

    def _write(self, new: NewSaga, begun: Begun) -> None:
        if self._runner.get(new.saga_id) is not None:
            raise RevisionConflict(f"a saga {new.saga_id!r} is here already")
        now_ms = self._clock.now_ms()
        within_ms = new.definition.deadline_ms
        event = Started(
            time_ms=now_ms,
            input_bytes=new.input_bytes,
            deadline_ms=now_ms + within_ms if within_ms else 0,
            keys=new.keys,
            traceparent=new.traceparent,
        )
        decision = start(new.saga_id, new.definition, event)
        append = Append(
            saga=decision.saga, event=event, commands=decision.commands, state_changed=True
        )
        self._journal.append(append, partial(self._written, self._note(decision, begun)))

    def _note(self, decision: Decision, begun: Begun) -> _Start:
        loop = asyncio.get_running_loop()
        noted = _Start(decision, self._runner.term, loop.time() + self._patience, begun)
        self._waiting[decision.saga.saga_id] = noted
        if self._timer is None:
            self._timer = loop.call_at(noted.due, self._tell_overdue)
        return noted

    def _written(self, noted: _Start, error: AppendError | None) -> None:
        saga = noted.decision.saga
        del self._waiting[saga.saga_id]
        if error is None:
            if self._runner.term == noted.term:  # otherwise it is for whoever has claimed it
                self._runner.begin(noted.decision)
            self._changes.notify(saga.saga_id, saga.revision)
        if noted.begun is not None:
            noted.begun(saga if error is None else _refusal(error))
        for new, begun in noted.behind or ():
            self.begin(new, begun)

    def _tell_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer, now = None, loop.time()
        for noted in self._waiting.values():
            if noted.due > now:
                soon = max(noted.due, now + _GRAIN_SECONDS)
                self._timer = loop.call_at(soon, self._tell_overdue)
                return
            self._give_up(noted)

    def _give_up(self, noted: _Start) -> None:
        """Let its callers go; the start itself stays as it is."""
        callers = [noted.begun, *(begun for _, begun in noted.behind or ())]
        noted.begun = noted.behind = None
        for begun in filter(None, callers):
            asyncio.get_running_loop().call_soon(begun, _not_known())


def _not_known() -> JournalUnavailable:
    return JournalUnavailable("the start is not known to be on disk")


def _refusal(error: AppendError) -> Exception:
    if isinstance(error, LeaseLost):
        unavailable = JournalUnavailable("the lease was lost")
        unavailable.__cause__ = error
        return unavailable
    return error

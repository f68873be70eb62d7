"""Decide, write, then act.

Every saga in memory is a small state machine moved by callbacks; it has no task of its own. One
turn of it is: take the next event, let the core decide, hand event and calls to the journal in one
append, and, only when that append is on disk, perform the calls. What comes back is the next event.

    answer, timer, verb ──> queue ──> decide ──> append ──> (on disk) ──> send, set timers, notify

One event of a saga is written at a time, so `live.saga` is always what is on disk. A saga that
leaves memory (final, STUCK, lease lost, conflict) is marked dropped, and whatever still comes back
for it is ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from coordinator.core.commands import Call
from coordinator.core.decide import Decision, decide, recover
from coordinator.core.events import Aborted, Event, Stuck
from coordinator.core.model import Failure, FailureKind, SagaState
from coordinator.core.saga import Saga
from coordinator.core.transitions import IllegalEvent
from coordinator.engine.answers import event_of
from coordinator.engine.changes import Changes
from coordinator.engine.ends import Ends
from coordinator.engine.fence import Fence
from coordinator.engine.gate import Gate
from coordinator.engine.gates import Gates
from coordinator.engine.live import Intent, Live
from coordinator.engine.ports import Ports
from coordinator.engine.sender import Sender
from coordinator.journal.base import (
    Append,
    AppendError,
    Unwritable,
)
from coordinator.participants.base import Answer, Failed

log = structlog.get_logger(__name__)

_UNWRITABLE = Failure(
    kind=FailureKind.REFUSED,
    code="INTERNAL",
    reason="EVENT_NOT_STORABLE",
    message="the journal's database refuses the data of this saga's next event",
)
_BUG = Failure(
    kind=FailureKind.REFUSED,
    code="INTERNAL",
    reason="COORDINATOR_BUG",
    message="the coordinator failed on this saga's next event; its log says where",
)
_OVERDUE = Failure(
    kind=FailureKind.REFUSED,
    code="DEADLINE_EXCEEDED",
    reason="SAGA_DEADLINE_EXCEEDED",
    message="the saga did not complete by its deadline",
)
_DEADLINE = ""  # key of the deadline among a saga's timers; no step has this name


class Runner:
    """All sagas that this instance has in memory."""

    def __init__(
        self,
        ports: Ports,
        *,
        fence: Fence,
        gates: Gates,
        changes: Changes,
        ends: Ends,
        lost: Callable[[str], None],
    ) -> None:
        """`lost` hears of a saga that must be loaded again because another wrote to it."""
        self._journal = ports.journal
        self._clock = ports.clock
        self._stats = ports.stats
        self._chance = ports.chance
        self._sender = Sender(ports, fence, gates, self._answered)
        self._changes = changes
        self._ends = ends
        self._lost = lost
        self._log = log.bind()  # once: to look its configuration up costs more than a turn
        self._live: dict[str, Live] = {}
        self.term = 0
        """How often every saga was forgotten: what was begun in an earlier term is not ours."""
        self.settled = asyncio.Event()
        """Set whenever a saga had its turn or left, for those who wait until the runner is idle."""

    def __len__(self) -> int:
        return len(self._live)

    def get(self, saga_id: str) -> Live | None:
        """The saga if it is in memory."""
        return self._live.get(saga_id)

    def sagas(self) -> list[Live]:
        """Those in memory now."""
        return list(self._live.values())

    def forget(self, live: Live) -> None:
        """It is over, or goes on elsewhere or later: whatever comes back for it is ignored."""
        live.drop()
        if self._live.get(live.saga.saga_id) is live:
            del self._live[live.saga.saga_id]
        self.settled.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is being written or in flight for any saga."""
        return all(live.idle for live in self._live.values())

    def begin(self, decision: Decision) -> None:
        """Run a saga whose start is on disk."""
        live = self._admit(decision.saga)
        self._sender.act(live, decision.commands)

    def resume(self, saga: Saga) -> Live:
        """Go on with a saga that another process, or this one earlier, has left."""
        live = self._admit(saga)
        try:
            calls, events = recover(saga, self._clock.now_ms())
        except Exception:  # a bug that this saga has met; the others go on
            log.exception("saga.bug", saga_id=saga.saga_id)
            self.submit(live, Intent.that(self._stuck(_BUG)))
            return live
        self._sender.act(live, calls)
        for event in events:
            self.submit(live, Intent.that(event))
        return live

    def halt(self, saga: Saga, failure: Failure) -> None:
        """Make a saga STUCK without performing anything of it."""
        self.submit(self._admit(saga), Intent.that(self._stuck(failure)))

    def submit(self, live: Live, intent: Intent) -> None:
        """Let an event happen when its turn comes."""
        if live.dropped:
            return
        if live.writing:
            live.enqueue(intent)
            return
        self._happen(live, intent)
        if not live.writing:
            self._turn(live)

    def drop_all(self) -> None:
        """Forget every saga: they are somebody else's now."""
        for live in self._live.values():
            live.drop()
        self._live.clear()
        self._sender.forget_held()
        self.term += 1
        self.settled.set()

    def send_held(self) -> None:
        """Send what was held back while the fence was closed; the lease was kept after all."""
        self._sender.send_held()

    def stop_sending(self) -> None:
        """Send nothing new from now on; what is in flight is heard."""
        self._sender.stop()

    def _admit(self, saga: Saga) -> Live:
        if (older := self._live.get(saga.saga_id)) is not None:
            older.drop()
        live = self._live[saga.saga_id] = Live(saga)
        self._watch_deadline(live)
        return live

    def _watch_deadline(self, live: Live) -> None:
        if live.saga.deadline_ms and live.saga.state is SagaState.RUNNING:
            passed = partial(self._deadline_passed, live)
            live.set_timer(_DEADLINE, self._clock.call_at(live.saga.deadline_ms, passed))

    # --- one turn -------------------------------------------------------------

    def _turn(self, live: Live) -> None:
        """Let what waits have its turn, until an event is being written."""
        while live.queue and not live.writing:
            self._happen(live, live.queue.popleft())
        if live.writing:
            return
        self.settled.set()
        if live.idle and live.saga.state is SagaState.STUCK:
            self.forget(live)  # it was here for a verb alone

    def _happen(self, live: Live, intent: Intent) -> None:
        try:
            event = intent.make(live)
            decision = decide(live.saga, event)
        except IllegalEvent as error:
            log.debug("event.dropped", saga_id=live.saga.saga_id, why=str(error))
            intent.refuse(error)
        except Exception:  # a bug that this saga has met; the others go on
            log.exception("saga.bug", saga_id=live.saga.saga_id)
            intent.refuse(IllegalEvent("the coordinator failed on it"))
            self._halt_first(live, _BUG)
        else:
            self._write(live, event, decision, intent)

    def _write(self, live: Live, event: Event, decision: Decision, intent: Intent) -> None:
        live.writing = True
        append = Append(
            saga=decision.saga,
            event=event,
            commands=decision.commands,
            state_changed=decision.saga.state is not live.saga.state,
            verb_id=intent.verb_id,
        )
        self._journal.append(append, partial(self._written, live, event, decision, intent))

    def _written(
        self,
        live: Live,
        event: Event,
        decision: Decision,
        intent: Intent,
        error: AppendError | None,
    ) -> None:
        live.writing = False
        if live.dropped:
            return
        if error is not None:
            self._not_written(live, event, intent, error)
            return
        before, saga = live.saga, decision.saga
        live.saga = saga
        if before.state is SagaState.STUCK:
            self._watch_deadline(live)
        if decision.then is not None:
            live.enqueue_first(Intent.that(decision.then))
        self._sender.act(live, decision.commands)
        self._changes.notify(saga.saga_id, saga.revision)
        if saga.state.ended:
            self._end(live)
        else:
            self._go_on(live)

    def _go_on(self, live: Live) -> None:
        """An event was written, or cannot be: what has waited for that has its turn."""
        if live.late:
            self._sender.act_late(live)
        self._turn(live)

    def _not_written(self, live: Live, event: Event, intent: Intent, error: AppendError) -> None:
        saga_id = live.saga.saga_id
        if isinstance(error, Unwritable) and intent.verb_id:  # the saga itself is well
            intent.refuse(IllegalEvent("the journal's database refuses the data of this verb"))
            self._go_on(live)
            return
        if isinstance(error, Unwritable) and not isinstance(event, Stuck):
            log.error("saga.event_not_storable", saga_id=saga_id, error=str(error))
            self._halt_first(live, _UNWRITABLE)
            self._turn(live)
            return
        log.warning("saga.dropped", saga_id=saga_id, why=type(error).__name__)
        self.forget(live)
        self._lost(saga_id)

    def _halt_first(self, live: Live, failure: Failure) -> None:
        """Let it be STUCK before anything else; what waits for its turn hears of it then."""
        if live.halting:  # not even that works: begin anew with what is on disk
            self.forget(live)
            self._lost(live.saga.saga_id)
            return
        live.halting = True
        live.enqueue_first(Intent.that(self._stuck(failure)))

    def _stuck(self, failure: Failure) -> Stuck:
        return Stuck(time_ms=self._clock.now_ms(), failure=failure)

    def _end(self, live: Live) -> None:
        saga, state = live.saga, live.saga.state
        self._tell_log(saga)
        self._stats.ended(state)
        while live.queue and state.final:  # a verb may be legal when STUCK: it is taken again
            live.queue.popleft().refuse(IllegalEvent(f"the saga is {state.value}"))
        self.forget(live)
        self._changes.remember(saga.saga_id, saga.revision)
        self._ends.tell(saga.saga_id, saga)

    def _tell_log(self, saga: Saga) -> None:
        """What went well is no news, and there are thousands a second of it."""
        if saga.state is SagaState.COMPLETED:
            self._log.debug("saga.ended", saga_id=saga.saga_id, state=saga.state.value)
            return
        who = {"saga_id": saga.saga_id, "trace_id": saga.traceparent[3:35]}
        if (why := saga.stuck) is not None:
            self._log.warning("saga.stuck", **who, step=why.step, code=why.code, reason=why.reason)
        else:
            self._log.info("saga.ended", **who, state=saga.state.value)

    # --- what comes back --------------------------------------------------------

    def _answered(self, gate: Gate, live: Live, call: Call, answer: Answer) -> None:
        gate.answered(call.direction, answer)
        self.submit(live, Intent(partial(self._heard, call, answer)))

    def _heard(self, call: Call, answer: Answer, live: Live) -> Event:
        live.heard(call)
        outcome = answer.failure.kind.value if isinstance(answer, Failed) else "DONE"
        self._stats.attempt(call.direction, outcome)
        return event_of(live.saga, call, answer, now_ms=self._clock.now_ms(), chance=self._chance())

    def _deadline_passed(self, live: Live) -> None:
        live.forget_timer(_DEADLINE)
        self.submit(live, Intent(partial(self.aborted, failure=_OVERDUE)))

    def aborted(self, live: Live, failure: Failure, *, actor: str = "", note: str = "") -> Aborted:
        """The event that aborts this saga now, awaiting what is in flight."""
        return Aborted(
            time_ms=self._clock.now_ms(),
            failure=failure,
            awaited=live.awaited(),
            actor=actor,
            note=note,
        )

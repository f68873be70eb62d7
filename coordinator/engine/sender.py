"""Acting: performing calls that are on disk, when they are due, while the lease is held, and when
their participant's gate lets them pass.

A call may be called off between its decision and its time, so it is checked again against the saga
when its time comes; while an event is being written it waits for that, which may be the abort.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from coordinator.core.commands import Call
from coordinator.core.model import Direction, Step
from coordinator.core.saga import Saga, progress_of, step_of
from coordinator.engine.answers import due_ms
from coordinator.engine.fence import Fence
from coordinator.engine.gate import Gate
from coordinator.engine.gates import Gates
from coordinator.engine.live import Live
from coordinator.engine.ports import Ports
from coordinator.participants.base import Answer, Attempt

LATENESS_MS = 300_000
"""How long past its timeout a Do may still reach its participant before it is refused there."""


class Sender:
    """Sends attempts and sets the timers of those that are not due."""

    def __init__(
        self,
        ports: Ports,
        fence: Fence,
        gates: Gates,
        answered: Callable[[Gate, Live, Call, Answer], None],
    ) -> None:
        """`answered` hears what came of each call, and whose gate it has passed."""
        self._participants = ports.participants
        self._clock = ports.clock
        self._fence = fence
        self._gates = gates
        self._answered = answered
        self._held: list[tuple[Live, Call]] = []
        self._stopped = False

    def stop(self) -> None:
        """Send nothing new from now on."""
        self._stopped = True

    def forget_held(self) -> None:
        """What was held back is somebody else's to send."""
        self._held.clear()

    def send_held(self) -> None:
        """Send what was held back while the fence was closed, if it still stands."""
        held, self._held = self._held, []
        for live, call in held:
            self._in_turn(live, call)

    def act(self, live: Live, calls: tuple[Call, ...]) -> None:
        """Perform calls whose append is on disk, each when it is due."""
        for call in calls:
            if (older := live.forget_timer(call.step)) is not None:
                older.cancel()  # what was decided before for this step is called off
            if call.due_ms:
                self._schedule(live, call)
            else:
                self._send(live, call)

    def _schedule(self, live: Live, call: Call) -> None:
        now_ms = self._clock.now_ms()
        if (due := due_ms(live.saga, call, now_ms)) > now_ms:
            live.set_timer(call.step, self._clock.call_at(due, partial(self._due, live, call)))
        else:
            self._send(live, call)

    def _due(self, live: Live, call: Call) -> None:
        live.forget_timer(call.step)
        self._in_turn(live, call)

    def _in_turn(self, live: Live, call: Call) -> None:
        if live.writing:
            live.late += (call,)  # what is being written may call it off
        elif progress_of(live.saga, call.step).call == call:  # an abort may have called it off
            self._send(live, call)

    def act_late(self, live: Live) -> None:
        """Perform what came due while an event was being written, if it still stands."""
        late, live.late = live.late, ()
        for call in late:
            self._in_turn(live, call)

    def _send(self, live: Live, call: Call) -> None:
        if live.dropped or self._stopped:
            return  # the next owner performs it as written
        if not self._fence.open:
            self._held.append((live, call))
            return
        step = step_of(live.saga, call.step)
        gate = self._gates.of(step.service)
        if not gate.enter(call.direction):
            waiting = gate.wait(call.direction, partial(self._due, live, call))
            live.set_timer(call.step, waiting)
            return
        live.in_flight += (call,)
        attempt = self._attempt(live.saga, step, call)
        self._participants.call(attempt, partial(self._answered, gate, live, call))

    def _attempt(self, saga: Saga, step: Step, call: Call) -> Attempt:
        doing = call.direction is Direction.DO
        return Attempt(
            saga_id=saga.saga_id,
            step=call.step,
            service=step.service,
            direction=call.direction,
            attempt=call.attempt,
            request=call.request,
            timeout_ms=step.timeout_ms,
            not_after_ms=self._clock.now_ms() + step.timeout_ms + LATENESS_MS if doing else None,
            non_retryable_reasons=step.retry.non_retryable_reasons,
            traceparent=saga.traceparent,
            link_span_id="" if doing else progress_of(saga, call.step).span_id,
        )

"""Which states follow which: the only place that says so.

Theory of operation
-------------------
Two machines. Each *step* has one, moved by what is decided for it and by what comes back. The
*saga* has one, moved by what its steps add up to and by its operators.

A step is PENDING until a Do for it is decided. From that moment it may have happened, whatever is
heard later: it is DOING until an answer says DONE, or until its participant proves that it is
REJECTED. A refusal without proof, or silence, leaves it DOING: it counts as done when the saga
aborts. What may have happened is compensated: DOING and DONE become COMPENSATING, and then
COMPENSATED, or SKIPPED when an operator undid it by hand. DOING and COMPENSATING lead to themselves
because an attempt that fails is followed by another.

A saga goes forward (RUNNING) until every step is DONE (COMPLETED), or until it aborts
(COMPENSATING). The abort is final: from there it ends COMPENSATED, once no step is left that may
have happened. STUCK is a halt in either direction; it ends by an operator's word alone, never by
time: a deadline that passes meanwhile aborts the saga when somebody lets it go on. Which direction
it halted in is not in the state: a saga that aborted has a `failure`, and cannot abort again.

What is deliberately absent: an arrow from COMPENSATING to RUNNING (the abort is final), from a
final state to anywhere, from REJECTED to COMPENSATING (there is proof of no effect), and any arrow
that time takes by itself (time only causes events).

`docs/states.md` is drawn from these tables, and `make check` fails when it differs.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.core.model import SagaState, StepState, Symbol


class StepTrigger(Symbol):
    """What moves a step."""

    DO_DECIDED = "Do decided"
    DONE = "Do answered OK"
    REJECTED = "rejected with proof"
    FAILED = "no clear answer"
    COMPENSATE_DECIDED = "Compensate decided"
    COMPENSATED = "Compensate answered OK"
    SKIPPED = "undone by hand"


class SagaTrigger(Symbol):
    """What moves a saga."""

    ALL_DONE = "every step is DONE"
    ABORT = "rejection, budget spent, cancel or deadline"
    ALL_UNDONE = "no step may have happened"
    HALT = "cannot go on by itself"
    CANCEL = "cancelled before an abort"
    RESUME_FORWARD = "retried before an abort"
    RESUME_BACKWARD = "retried or skipped after an abort"
    ABANDON = "abandoned"


STEP_TRANSITIONS: Mapping[StepState, Mapping[StepTrigger, StepState]] = {
    StepState.PENDING: {
        StepTrigger.DO_DECIDED: StepState.DOING,
        StepTrigger.REJECTED: StepState.REJECTED,  # its request cannot be built
    },
    StepState.DOING: {
        StepTrigger.DO_DECIDED: StepState.DOING,
        StepTrigger.DONE: StepState.DONE,
        StepTrigger.REJECTED: StepState.REJECTED,
        StepTrigger.FAILED: StepState.DOING,
        StepTrigger.COMPENSATE_DECIDED: StepState.COMPENSATING,
        StepTrigger.SKIPPED: StepState.SKIPPED,
    },
    StepState.DONE: {
        StepTrigger.COMPENSATE_DECIDED: StepState.COMPENSATING,
        StepTrigger.SKIPPED: StepState.SKIPPED,
    },
    StepState.REJECTED: {},
    StepState.COMPENSATING: {
        StepTrigger.COMPENSATE_DECIDED: StepState.COMPENSATING,
        StepTrigger.COMPENSATED: StepState.COMPENSATED,
        StepTrigger.FAILED: StepState.COMPENSATING,
        StepTrigger.SKIPPED: StepState.SKIPPED,
    },
    StepState.COMPENSATED: {},
    StepState.SKIPPED: {},
}

SAGA_TRANSITIONS: Mapping[SagaState, Mapping[SagaTrigger, SagaState]] = {
    SagaState.RUNNING: {
        SagaTrigger.ALL_DONE: SagaState.COMPLETED,
        SagaTrigger.ABORT: SagaState.COMPENSATING,
        SagaTrigger.HALT: SagaState.STUCK,
    },
    SagaState.COMPENSATING: {
        SagaTrigger.ALL_UNDONE: SagaState.COMPENSATED,
        SagaTrigger.HALT: SagaState.STUCK,
    },
    SagaState.STUCK: {
        SagaTrigger.CANCEL: SagaState.COMPENSATING,
        SagaTrigger.RESUME_FORWARD: SagaState.RUNNING,
        SagaTrigger.RESUME_BACKWARD: SagaState.COMPENSATING,
        SagaTrigger.ABANDON: SagaState.ABANDONED,
    },
    SagaState.COMPLETED: {},
    SagaState.COMPENSATED: {},
    SagaState.ABANDONED: {},
}

MAY_HAVE_HAPPENED = frozenset({StepState.DOING, StepState.DONE, StepState.COMPENSATING})
"""States of a step whose effect may be there: what a saga must undo before it is COMPENSATED."""

LEGAL_VERBS: Mapping[SagaState, tuple[str, ...]] = {
    SagaState.RUNNING: ("CANCEL",),
    SagaState.COMPENSATING: (),
    SagaState.STUCK: ("CANCEL", "RETRY", "SKIP", "ABANDON"),
    SagaState.COMPLETED: (),
    SagaState.COMPENSATED: (),
    SagaState.ABANDONED: (),
}
"""What operators and clients may ask of a saga in each state, within `ONE_WAY_VERBS`."""

ONE_WAY_VERBS: Mapping[str, str] = {"CANCEL": "before an abort", "SKIP": "after an abort"}
"""Verbs that are legal in one direction only: nothing aborts twice, nothing is undone forward."""


class IllegalEvent(Exception):
    """The event cannot happen to this saga now; nothing has changed."""


class StaleAnswer(IllegalEvent):
    """The answer belongs to an attempt that is not the one waited for."""


def next_step_state(state: StepState, trigger: StepTrigger) -> StepState:
    """Follow one arrow of the step machine.

    Raises:
        IllegalEvent: there is no such arrow.
    """
    try:
        return STEP_TRANSITIONS[state][trigger]
    except KeyError:
        raise IllegalEvent(f"a step that is {state.value}: {trigger.value}") from None


def next_saga_state(state: SagaState, trigger: SagaTrigger) -> SagaState:
    """Follow one arrow of the saga machine.

    Raises:
        IllegalEvent: there is no such arrow.
    """
    try:
        return SAGA_TRANSITIONS[state][trigger]
    except KeyError:
        raise IllegalEvent(f"a saga that is {state.value}: {trigger.value}") from None

"""What is wrong with an effect, if anything. Pure.

effect                    saga in the journal                 verdict
is there, or may be       none                                UNKNOWN_SAGA
is there, or may be       has no call of this step            UNKNOWN_SAGA
is there, or may be       COMPENSATED                         STILL_HELD
is there, or may be       COMPENSATED, this step skipped      fine: undone by hand
no record, or not HELD    COMPLETED                           MISSING
any                       unfinished, or ABANDONED            not judged

A saga is on disk before its first call is sent, so an effect whose saga is unknown is no race.
"""

from __future__ import annotations

from coordinator.core.events import StepSkipped
from coordinator.core.model import Direction, SagaState
from coordinator.journal.base import StoredSaga
from coordinator.reconciliation.base import THERE, Orphan, OrphanKind
from mesh.effects import Effect, EffectKey, EffectState

_UNDO = "undo it by calling Compensate of its step service with this saga-id and saga-step"
_OLD_BACKUP = "its database was restored from an older backup, or somebody changed it by hand"


def judge_held(participant: str, effect: Effect, saga: StoredSaga | None) -> Orphan | None:
    """An effect that was there, and its saga with all entries, read in this order."""
    if effect.state not in THERE:
        return None
    step = effect.key.step
    here = f"{participant} records step {step} as {effect.state}"
    if saga is None:
        why = f"{here}, and the journal knows no such saga: called by hand, or lost by the journal"
        return _orphan(participant, effect, OrphanKind.UNKNOWN_SAGA, f"{why}; {_UNDO}", None)
    if saga.state not in (SagaState.COMPENSATED, SagaState.COMPLETED):
        return None
    if step not in _sent(saga):
        why = f"{here}, and the saga, which is {saga.state.value}, has never called that step"
        return _orphan(participant, effect, OrphanKind.UNKNOWN_SAGA, f"{why}; {_UNDO}", saga.state)
    if saga.state is SagaState.COMPLETED or step in _skipped(saga):
        return None
    why = f"{here}, and the saga was COMPENSATED: {_OLD_BACKUP}"
    return _orphan(participant, effect, OrphanKind.STILL_HELD, f"{why}; {_UNDO}", saga.state)


def judge_done(participant: str, key: EffectKey, effect: Effect | None) -> Orphan | None:
    """A step of a COMPLETED saga, and its record at the participant that serves it."""
    if effect is not None and effect.state is EffectState.HELD:
        return None
    has = "has no record of" if effect is None else f"records as {effect.state}"
    return Orphan(
        participant=participant,
        key=key,
        kind=OrphanKind.MISSING,
        saga_state=SagaState.COMPLETED,
        effect_ms=None if effect is None else effect.updated_ms,
        explanation=f"the saga is COMPLETED, and {participant} {has} its step {key.step}:"
        f" {_OLD_BACKUP}; make the effect good by hand",
    )


def _orphan(
    participant: str, effect: Effect, kind: OrphanKind, explanation: str, state: SagaState | None
) -> Orphan:
    return Orphan(
        participant=participant,
        key=effect.key,
        kind=kind,
        saga_state=state,
        effect_ms=effect.updated_ms,
        explanation=explanation,
    )


def _sent(saga: StoredSaga) -> frozenset[str]:
    """Steps whose Do was decided, and so may have been sent."""
    calls = (call for entry in saga.entries for call in entry.commands)
    return frozenset(call.step for call in calls if call.direction is Direction.DO)


def _skipped(saga: StoredSaga) -> frozenset[str]:
    """Steps that an operator has undone by hand, or says so."""
    events = (entry.event for entry in saga.entries)
    return frozenset(event.step for event in events if isinstance(event, StepSkipped))

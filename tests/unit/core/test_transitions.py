from __future__ import annotations

import itertools

import pytest

from coordinator.core.model import SagaState, StepState
from coordinator.core.transitions import (
    LEGAL_VERBS,
    MAY_HAVE_HAPPENED,
    SAGA_TRANSITIONS,
    STEP_TRANSITIONS,
    IllegalEvent,
    SagaTrigger,
    StepTrigger,
    next_saga_state,
    next_step_state,
)

# The truth, written a second time by hand: what each trigger leads to in each state.
STEP_TRUTH = """
              DO_DECIDED DONE REJECTED FAILED       COMPENSATE_DECIDED COMPENSATED SKIPPED
PENDING       DOING      -    REJECTED -            -                  -           -
DOING         DOING      DONE REJECTED DOING        COMPENSATING       -           SKIPPED
DONE          -          -    -        -            COMPENSATING       -           SKIPPED
REJECTED      -          -    -        -            -                  -           -
COMPENSATING  -          -    -        COMPENSATING COMPENSATING       COMPENSATED SKIPPED
COMPENSATED   -          -    -        -            -                  -           -
SKIPPED       -          -    -        -            -                  -           -
"""

SAGA_TRUTH = """
                RUNNING      COMPENSATING STUCK        COMPLETED COMPENSATED ABANDONED
ALL_DONE        COMPLETED    -            -            -         -           -
ABORT           COMPENSATING -            -            -         -           -
ALL_UNDONE      -            COMPENSATED  -            -         -           -
HALT            STUCK        STUCK        -            -         -           -
CANCEL          -            -            COMPENSATING -         -           -
RESUME_FORWARD  -            -            RUNNING      -         -           -
RESUME_BACKWARD -            -            COMPENSATING -         -           -
ABANDON         -            -            ABANDONED    -         -           -
"""


def cells(truth: str) -> dict[tuple[str, str], str]:
    header, *rows = truth.strip().splitlines()
    columns = header.split()
    table = {}
    for row in rows:
        name, *targets = row.split()
        table.update({(name, c): to for c, to in zip(columns, targets, strict=True)})
    return table


def test_the_step_table_is_the_truth_in_every_cell() -> None:
    truth = cells(STEP_TRUTH)
    assert len(truth) == len(StepState) * len(StepTrigger)
    for state, trigger in itertools.product(StepState, StepTrigger):
        expected = truth[state.name, trigger.name]
        if expected == "-":
            with pytest.raises(IllegalEvent):
                next_step_state(state, trigger)
        else:
            assert next_step_state(state, trigger) is StepState[expected]


def test_the_saga_table_is_the_truth_in_every_cell() -> None:
    truth = cells(SAGA_TRUTH)
    assert len(truth) == len(SagaState) * len(SagaTrigger)
    for state, trigger in itertools.product(SagaState, SagaTrigger):
        expected = truth[trigger.name, state.name]
        if expected == "-":
            with pytest.raises(IllegalEvent):
                next_saga_state(state, trigger)
        else:
            assert next_saga_state(state, trigger) is SagaState[expected]


def test_final_states_lead_nowhere_and_only_they_do() -> None:
    for state in SagaState:
        assert state.final == (not SAGA_TRANSITIONS[state])


def test_every_state_has_a_row_of_its_own() -> None:
    assert set(STEP_TRANSITIONS) == set(StepState)
    assert set(SAGA_TRANSITIONS) == set(SagaState)
    assert set(LEGAL_VERBS) == set(SagaState)


def test_what_may_have_happened_can_be_compensated_and_nothing_else_can() -> None:
    for state in StepState:
        can = StepTrigger.COMPENSATE_DECIDED in STEP_TRANSITIONS[state]
        assert can == (state in MAY_HAVE_HAPPENED)


def test_no_verb_is_legal_on_a_final_saga() -> None:
    assert all(not LEGAL_VERBS[state] for state in SagaState if state.final)

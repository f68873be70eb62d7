from __future__ import annotations

import pytest

from order_svc.coordinator import failure_reason, is_final
from protos.saga.v1 import saga_pb2


@pytest.mark.parametrize(
    ("saga", "reason"),
    [
        (saga_pb2.Saga(state="SAGA_STATE_RUNNING"), ""),
        (saga_pb2.Saga(state="SAGA_STATE_COMPLETED"), ""),
        (
            saga_pb2.Saga(
                state="SAGA_STATE_COMPENSATING", failure=saga_pb2.Failure(reason="CARD_DECLINED")
            ),
            "CARD_DECLINED",
        ),
        (
            saga_pb2.Saga(
                state="SAGA_STATE_COMPENSATED", failure=saga_pb2.Failure(code="UNAVAILABLE")
            ),
            "UNAVAILABLE",
        ),
        (saga_pb2.Saga(state="SAGA_STATE_COMPENSATED", failure=saga_pb2.Failure()), "UNKNOWN"),
        (
            saga_pb2.Saga(
                state="SAGA_STATE_STUCK", stuck=saga_pb2.Failure(reason="JOURNAL_UNWRITABLE")
            ),
            "",
        ),
        (
            saga_pb2.Saga(state="SAGA_STATE_ABANDONED"),
            "ended by an operator, left open: nothing",
        ),
        (
            saga_pb2.Saga(
                state="SAGA_STATE_ABANDONED",
                failure=saga_pb2.Failure(reason="CARD_DECLINED"),
                steps=[
                    saga_pb2.StepProgress(name="a", state="STEP_STATE_DONE"),
                    saga_pb2.StepProgress(name="b", state="STEP_STATE_COMPENSATED"),
                    saga_pb2.StepProgress(name="c", state="STEP_STATE_COMPENSATING"),
                    saga_pb2.StepProgress(name="d", state="STEP_STATE_PENDING"),
                    saga_pb2.StepProgress(name="e", state="STEP_STATE_SKIPPED"),
                ],
            ),
            "CARD_DECLINED; ended by an operator, left open: a, c",
        ),
    ],
)
def test_a_saga_has_a_failure_reason_once_it_undoes_its_steps(
    saga: saga_pb2.Saga, reason: str
) -> None:
    assert failure_reason(saga) == reason


def test_three_states_are_final() -> None:
    names = saga_pb2.SagaState.DESCRIPTOR.values_by_name
    final = {name for name in names if is_final(saga_pb2.Saga(state=name))}
    assert final == {
        "SAGA_STATE_COMPLETED",
        "SAGA_STATE_COMPENSATED",
        "SAGA_STATE_ABANDONED",
    }

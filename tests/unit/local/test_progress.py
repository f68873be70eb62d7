from __future__ import annotations

from local.progress import Progress, StepLine, sentence
from protos.saga.v1 import saga_pb2

DO, UNDO = saga_pb2.DIRECTION_DO, saga_pb2.DIRECTION_COMPENSATE


def command(step: str, direction: saga_pb2.Direction, attempt: int = 1) -> saga_pb2.SagaCommand:
    return saga_pb2.SagaCommand(step=step, direction=direction, attempt=attempt)


def declined() -> list[saga_pb2.SagaEvent]:
    return [
        saga_pb2.SagaEvent(
            revision=1,
            kind=saga_pb2.SAGA_EVENT_KIND_STARTED,
            commands=[command("reserve", DO)],
            state=saga_pb2.SAGA_STATE_RUNNING,
        ),
        saga_pb2.SagaEvent(
            revision=2,
            kind=saga_pb2.SAGA_EVENT_KIND_STEP_DONE,
            step="reserve",
            commands=[command("charge", DO)],
            state=saga_pb2.SAGA_STATE_RUNNING,
        ),
        saga_pb2.SagaEvent(
            revision=3,
            kind=saga_pb2.SAGA_EVENT_KIND_ATTEMPT_FAILED,
            step="charge",
            failure=saga_pb2.Failure(code="UNAVAILABLE"),
            commands=[command("charge", DO, 2)],
            state=saga_pb2.SAGA_STATE_RUNNING,
        ),
        saga_pb2.SagaEvent(
            revision=4,
            kind=saga_pb2.SAGA_EVENT_KIND_STEP_REJECTED,
            step="charge",
            failure=saga_pb2.Failure(code="FAILED_PRECONDITION", reason="CARD_DECLINED"),
            commands=[command("reserve", UNDO)],
            state=saga_pb2.SAGA_STATE_COMPENSATING,
        ),
        saga_pb2.SagaEvent(
            revision=5,
            kind=saga_pb2.SAGA_EVENT_KIND_STEP_COMPENSATED,
            step="reserve",
            state=saga_pb2.SAGA_STATE_COMPENSATED,
        ),
    ]


def after(count: int) -> Progress:
    progress = Progress(["reserve", "charge", "ship"])
    for event in declined()[:count]:
        progress.apply(event)
    return progress


def test_a_step_is_doing_once_its_call_is_decided() -> None:
    assert after(1).steps["reserve"] == StepLine("DOING", 1)
    assert after(1).steps["charge"] == StepLine()


def test_a_failed_attempt_shows_why_and_the_number_of_the_next() -> None:
    assert after(3).steps["charge"] == StepLine("DOING", 2, "UNAVAILABLE")


def test_a_rejection_shows_its_reason_and_what_is_undone_for_it() -> None:
    progress = after(4)
    assert progress.steps["charge"] == StepLine("REJECTED", 2, "CARD_DECLINED")
    assert progress.steps["reserve"].state == "COMPENSATING"


def test_a_saga_ends_in_the_state_of_its_last_event() -> None:
    progress = after(5)
    assert progress.state == "COMPENSATED"
    assert {name: line.state for name, line in progress.steps.items()} == {
        "reserve": "COMPENSATED",
        "charge": "REJECTED",
        "ship": "PENDING",
    }


def test_an_event_is_one_line_in_a_pipe() -> None:
    assert sentence(declined()[3]) == "  4 step rejected charge CARD_DECLINED"

from __future__ import annotations

import pytest
from msgspec.structs import replace

from coordinator.core.compensation import compensation_bytes
from coordinator.core.decide import decide, recover, start
from coordinator.core.events import (
    Abandoned,
    Aborted,
    AttemptFailed,
    Event,
    Retried,
    Started,
    StepRejected,
    StepSkipped,
)
from coordinator.core.model import (
    Direction,
    Failure,
    FailureKind,
    RequestNotBuildable,
    SagaState,
    StepState,
)
from coordinator.core.saga import open_steps, progress_of
from coordinator.core.transitions import IllegalEvent, StaleAnswer
from coordinator.core.words import legal_verbs
from protos.inventory.v1.inventory_pb2 import (
    ReserveStockCompensation,
    ReserveStockRequest,
    ReserveStockResponse,
)
from tests.builders import POLICY, Story, definition, given


def with_budget(attempts: int, *steps: str) -> Story:
    """A saga whose Dos may be tried this often."""
    story = given(*steps)
    patient = replace(POLICY, max_attempts=attempts)
    chosen = tuple(replace(step, retry=patient) for step in story.saga.definition.steps)
    story.saga = replace(story.saga, definition=replace(story.saga.definition, steps=chosen))
    return story


def test_a_saga_starts_by_calling_its_first_step() -> None:
    saga = given("a", "b")
    assert saga.calls == ["DO a 1"]
    assert saga.steps() == "DOING PENDING"


def test_each_step_sees_the_responses_of_the_earlier_ones() -> None:
    saga = given("a", "b", "c").done("a").done("b")
    assert saga.commands[0].request == b"c(in;a=a-ok,b=b-ok)"


def test_a_saga_whose_steps_are_all_done_is_completed() -> None:
    saga = given("a", "b").done("a").done("b")
    assert (saga.state, saga.calls) == (SagaState.COMPLETED, [])


def test_a_proven_rejection_of_the_first_step_ends_the_saga_with_nothing_to_undo() -> None:
    saga = given("a", "b").rejected("a")
    assert (saga.state, saga.calls) == (SagaState.COMPENSATED, [])
    assert saga.steps() == "REJECTED PENDING"


def test_a_proven_rejection_undoes_the_earlier_steps_last_first() -> None:
    saga = given("a", "b", "c").done("a").done("b").rejected("c")
    assert saga.calls == ["COMPENSATE b 1"]
    assert saga.compensated("b").calls == ["COMPENSATE a 1"]
    assert saga.compensated("a").state is SagaState.COMPENSATED
    assert saga.steps() == "COMPENSATED COMPENSATED REJECTED"


def test_an_unproven_refusal_is_compensated_too() -> None:
    saga = given("a", "b").done("a").rejected("b", kind=FailureKind.REFUSED)
    assert saga.calls == ["COMPENSATE b 1"]


def test_compensate_carries_the_request_and_the_response_only_when_there_was_one() -> None:
    saga = given("a", "b").done("a").rejected("b", kind=FailureKind.REFUSED)
    assert saga.commands[0].request == compensation_bytes(b"b(in;a=a-ok)", None)
    saga.compensated("b")
    assert saga.commands[0].request == compensation_bytes(b"a(in;)", b"a-ok")


def test_an_unclear_answer_is_tried_again_when_it_is_due_with_the_same_bytes() -> None:
    saga = given("a").failed("a")
    (call,) = saga.commands
    assert saga.calls == ["DO a 2"]
    assert call.due_ms == saga.saga.updated_ms + 1_000
    assert call.request == b"a(in;)"


def test_a_spent_budget_aborts_and_compensates_what_may_have_happened() -> None:
    saga = given("a").failed("a").failed("a").failed("a")
    assert (saga.state, saga.calls) == (SagaState.COMPENSATING, ["COMPENSATE a 1"])
    assert saga.saga.failure is not None


def test_a_spent_compensation_budget_makes_the_saga_stuck() -> None:
    saga = given("a", "b").done("a").rejected("b")
    for _ in range(4):
        saga.failed("a")
    assert (saga.state, saga.calls) == (SagaState.STUCK, [])
    assert open_steps(saga.saga) == ("a",)


@pytest.mark.parametrize(
    "kind", [FailureKind.REJECTED, FailureKind.REFUSED, FailureKind.MISCONFIGURED]
)
def test_a_hopeless_compensation_is_stuck_after_three_tries(kind: FailureKind) -> None:
    saga = given("a", "b").done("a").rejected("b")
    assert saga.failed("a", kind=kind).failed("a", kind=kind).state is SagaState.COMPENSATING
    assert saga.failed("a", kind=kind).state is SagaState.STUCK


def test_a_misconfigured_participant_makes_a_saga_stuck_before_its_budget_aborts_it() -> None:
    saga = with_budget(5, "a", "b").done("a")
    for _ in range(2):
        assert saga.failed("b", kind=FailureKind.MISCONFIGURED).state is SagaState.RUNNING
    saga.failed("b", kind=FailureKind.MISCONFIGURED)
    assert (saga.state, saga.calls, saga.saga.failure) == (SagaState.STUCK, [], None)
    assert saga.steps() == "DONE DOING"


def test_a_retried_saga_has_three_more_tries_at_a_misconfigured_participant() -> None:
    saga = with_budget(5, "a")
    for _ in range(3):
        saga.failed("a", kind=FailureKind.MISCONFIGURED)
    assert saga.retried().calls == ["DO a 4"]
    for _ in range(2):
        assert saga.failed("a", kind=FailureKind.MISCONFIGURED).state is SagaState.RUNNING
    assert saga.failed("a", kind=FailureKind.MISCONFIGURED).state is SagaState.STUCK


def test_silence_spends_the_budget_and_aborts_whatever_else_went_wrong() -> None:
    saga = given("a").failed("a", kind=FailureKind.MISCONFIGURED).failed("a")
    assert saga.failed("a", kind=FailureKind.MISCONFIGURED).state is SagaState.COMPENSATING


def test_an_awaited_do_that_nobody_serves_is_compensated_all_the_same() -> None:
    saga = with_budget(5, "a")
    for _ in range(2):
        saga.failed("a", kind=FailureKind.MISCONFIGURED)
    saga.cancelled(awaited="a").failed("a", kind=FailureKind.MISCONFIGURED)
    assert (saga.state, saga.calls) == (SagaState.COMPENSATING, ["COMPENSATE a 1"])


def test_a_retried_saga_goes_on_backward_with_fresh_budgets() -> None:
    saga = given("a", "b").done("a").rejected("b")
    for _ in range(4):
        saga.failed("a")
    assert saga.retried().calls == ["COMPENSATE a 5"]
    assert saga.failed("a").state is SagaState.COMPENSATING
    assert saga.compensated("a").state is SagaState.COMPENSATED


def test_a_saga_stuck_before_its_abort_goes_on_forward() -> None:
    saga = given("a", "b").done("a").stuck()
    assert saga.retried().state is SagaState.RUNNING
    assert saga.calls == ["DO b 2"]


def test_a_skipped_step_is_not_compensated_and_the_others_are() -> None:
    saga = given("a", "b", "c").done("a").done("b").rejected("c")
    for _ in range(4):
        saga.failed("b")
    assert saga.skipped("b").calls == ["COMPENSATE a 1"]
    assert saga.compensated("a").state is SagaState.COMPENSATED
    assert saga.steps() == "COMPENSATED SKIPPED REJECTED"


def test_the_last_step_skipped_ends_the_saga() -> None:
    saga = given("a", "b").done("a").rejected("b")
    for _ in range(4):
        saga.failed("a")
    assert saga.skipped("a").state is SagaState.COMPENSATED


@pytest.mark.parametrize("step", ["b", "c", "d", "nonsense"])
def test_only_a_step_that_may_have_happened_can_be_skipped(step: str) -> None:
    saga = given("a", "b", "c", "d").done("a").done("b").rejected("c").compensated("b")
    for _ in range(4):
        saga.failed("a")
    before = saga.saga
    with pytest.raises(IllegalEvent):
        saga.skipped(step)
    assert saga.saga is before


def test_nothing_can_be_skipped_while_the_saga_goes_on_by_itself() -> None:
    saga = given("a", "b").done("a").rejected("b")
    with pytest.raises(IllegalEvent):
        saga.skipped("a")


def test_nothing_can_be_skipped_before_the_abort() -> None:
    saga = given("a", "b").done("a").stuck()
    with pytest.raises(IllegalEvent):
        saga.skipped("a")


def test_an_abandoned_saga_names_its_open_steps_and_is_final() -> None:
    saga = given("a", "b").done("a").stuck().abandoned()
    assert saga.state is SagaState.ABANDONED
    assert open_steps(saga.saga) == ("a", "b")
    with pytest.raises(IllegalEvent):
        saga.retried()


def test_a_cancel_while_a_retry_waits_compensates_at_once() -> None:
    saga = given("a", "b").done("a").failed("b").cancelled()
    assert saga.calls == ["COMPENSATE b 1"]


def test_a_cancel_while_a_do_is_in_flight_waits_for_its_answer() -> None:
    saga = given("a", "b").done("a").cancelled(awaited="b")
    assert (saga.state, saga.calls) == (SagaState.COMPENSATING, [])
    saga.done("b")
    assert saga.commands[0].request == compensation_bytes(b"b(in;a=a-ok)", b"b-ok")


def test_an_awaited_do_that_is_rejected_needs_no_compensation() -> None:
    saga = given("a", "b").done("a").cancelled(awaited="b").rejected("b")
    assert saga.calls == ["COMPENSATE a 1"]


def test_an_awaited_do_that_gets_no_answer_is_compensated_without_a_response() -> None:
    saga = given("a").cancelled(awaited="a").failed("a")
    assert saga.commands[0].request == compensation_bytes(b"a(in;)", None)


def test_the_first_abort_gives_the_reason() -> None:
    saga = given("a", "b").done("a").cancelled(awaited="b").rejected("b")
    assert saga.saga.failure is not None
    assert saga.saga.failure.reason == "SAGA_CANCELLED"


def test_a_cancel_after_the_last_step_is_refused() -> None:
    saga = given("a").done("a")
    with pytest.raises(IllegalEvent):
        saga.cancelled()


def test_a_saga_stuck_on_its_way_forward_can_be_cancelled_and_is_undone() -> None:
    saga = given("a", "b").done("a").stuck().cancelled()
    assert (saga.state, saga.calls) == (SagaState.COMPENSATING, ["COMPENSATE b 1"])
    assert saga.saga.stuck is None
    assert saga.compensated("b").compensated("a").state is SagaState.COMPENSATED


def test_a_saga_stuck_on_its_way_back_cannot_be_cancelled_again() -> None:
    saga = given("a", "b").done("a").rejected("b").stuck()
    with pytest.raises(IllegalEvent):
        saga.cancelled()
    assert saga.state is SagaState.STUCK


@pytest.mark.parametrize(
    ("story", "legal"),
    [
        (given("a"), ("CANCEL",)),
        (given("a").stuck(), ("CANCEL", "RETRY", "ABANDON")),
        (given("a").stuck().retried(), ("CANCEL",)),
        (given("a").cancelled(awaited="a"), ()),
        (given("a").cancelled(awaited="a").stuck(), ("RETRY", "SKIP", "ABANDON")),
        (given("a").done("a"), ()),
        (given("a").rejected("a"), ()),
        (given("a").stuck().abandoned(), ()),
    ],
)
def test_the_verbs_said_to_be_legal_are_the_ones_that_are_accepted(
    story: Story, legal: tuple[str, ...]
) -> None:
    assert legal_verbs(story.saga) == legal
    told = Failure(kind=FailureKind.REFUSED, code="CANCELLED", reason="SAGA_CANCELLED")
    events: dict[str, Event] = {
        "CANCEL": Aborted(time_ms=9, failure=told),
        "RETRY": Retried(time_ms=9, actor="ann", note="why"),
        "SKIP": StepSkipped(time_ms=9, step="a", actor="ann", note="why"),
        "ABANDON": Abandoned(time_ms=9, actor="ann", note="why"),
    }
    for verb, event in events.items():
        if verb in legal:
            decide(story.saga, event)
        else:
            with pytest.raises(IllegalEvent):
                decide(story.saga, event)


def test_a_second_cancel_is_refused() -> None:
    with pytest.raises(IllegalEvent):
        given("a").cancelled(awaited="a").cancelled()


def test_an_answer_to_an_older_attempt_is_stale_and_changes_nothing() -> None:
    saga = given("a").failed("a")
    before = saga.saga
    late = AttemptFailed(
        time_ms=1, step="a", direction=Direction.DO, attempt=1,
        failure=saga.saga.steps[0].failure or pytest.fail("no failure"), retry_at_ms=2,
    )  # fmt: skip
    with pytest.raises(StaleAnswer):
        saga.happens(late)
    assert saga.saga is before


def test_an_answer_told_twice_is_stale() -> None:
    saga = given("a", "b").done("a")
    with pytest.raises(StaleAnswer):
        saga.done("a")


def test_an_answer_to_a_stuck_saga_is_stale() -> None:
    with pytest.raises(StaleAnswer):
        given("a").stuck().done("a")


def test_a_first_request_that_cannot_be_built_refuses_the_start() -> None:
    with pytest.raises(RequestNotBuildable):
        start("s", definition("a", broken=frozenset("a")), Started(time_ms=1, input_bytes=b""))


def test_a_later_request_that_cannot_be_built_rejects_that_step_and_undoes_the_rest() -> None:
    saga = given("a", "b", broken=frozenset("b")).done("a")
    assert saga.calls == ["COMPENSATE a 1"]
    assert saga.steps() == "COMPENSATING REJECTED"
    assert saga.saga.failure is not None
    assert saga.saga.failure.reason == "REQUEST_NOT_BUILDABLE"
    assert isinstance(saga.history[-1][0], StepRejected)


@pytest.mark.parametrize(
    "story",
    [
        given("a", "b").done("a").done("b"),
        given("a", "b").done("a").failed("b").failed("b"),
        given("a", "b").done("a").rejected("b").failed("a").compensated("a"),
        given("a", "b").done("a").cancelled(awaited="b"),
        given("a", "b").done("a").stuck().retried(),
        given("a", "b").done("a").stuck().cancelled(),
        given("a", "b", broken=frozenset("b")).done("a"),
    ],
)
def test_a_replayed_saga_equals_the_live_one(story: Story) -> None:
    assert story.replayed() == story.saga


def test_recovery_performs_what_is_outstanding_as_written() -> None:
    saga = given("a", "b").done("a").failed("b")
    calls, events = recover(saga.replayed(), 9_999)
    assert (calls, events) == (saga.commands, ())


def test_recovery_after_an_abort_awaits_no_do() -> None:
    saga = given("a", "b").done("a").cancelled(awaited="b")
    calls, (event,) = recover(saga.replayed(), 9_999)
    assert calls == ()
    assert saga.happens(event).calls == ["COMPENSATE b 1"]


def test_recovery_goes_on_where_a_request_could_not_be_built() -> None:
    saga = given("a", "b", broken=frozenset("b")).done("a")
    del saga.history[-1]
    calls, (event,) = recover(saga.replayed(), 9_999)
    assert calls == ()
    assert isinstance(event, StepRejected)
    assert event.step == "b"


def test_recovery_leaves_a_stuck_saga_alone() -> None:
    assert recover(given("a").stuck().replayed(), 9_999) == ((), ())


def test_a_history_that_does_not_begin_with_a_start_is_refused() -> None:
    saga = given("a").done("a")
    del saga.history[0]
    with pytest.raises(IllegalEvent):
        saga.replayed()


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 128, 16_380, 16_381, 70_000])
def test_the_compensation_message_is_the_one_protobuf_would_write(size: int) -> None:
    request = ReserveStockRequest(order_id="x" * size)
    response = ReserveStockResponse(reservation_id="r-1")
    for told in (response, None):
        expected = ReserveStockCompensation(request=request, response=told)
        filled = compensation_bytes(
            request.SerializeToString(), None if told is None else told.SerializeToString()
        )
        assert ReserveStockCompensation.FromString(filled) == expected
        assert filled == expected.SerializeToString()


def test_a_step_in_doubt_keeps_its_request() -> None:
    saga = given("a").failed("a").failed("a").failed("a")
    assert progress_of(saga.saga, "a").state is StepState.COMPENSATING
    assert progress_of(saga.saga, "a").request == b"a(in;)"

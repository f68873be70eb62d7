"""A saga explained at two in the morning."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from coordinator.api.explain import View, explain, explain_unreadable, waits_for
from coordinator.core.model import FailureKind, SagaState
from coordinator.core.saga import Saga
from coordinator.engine.gate import Condition
from coordinator.journal.base import Standing
from tests.builders import Story, failure, given

SERVING = Condition(
    participant="test", open=False, since_ms=0, waiting=0, in_flight=1, failure=None
)


def told(
    story: Story | Saga,
    *,
    after_ms: int = 0,
    conditions: Mapping[str, Condition] | None = None,
    here: str = "one",
) -> str:
    saga = story if isinstance(story, Saga) else story.saga
    now_ms = saga.updated_ms + after_ms
    return explain(saga, View(conditions=conditions or {}, owner="one", here=here, now_ms=now_ms))


def test_a_running_saga_tells_what_it_waits_for() -> None:
    story = given("a", "b").done("a")
    assert told(story, after_ms=90_000) == (
        "Saga saga-1 of story is RUNNING."
        " It was started 90 s ago, and its newest event is 90 s old."
        " Its owner is one."
        " Step b (2 of 2) is DOING, and attempt 1 waits for its answer."
        " CancelSaga would abort it and undo what may have happened: a, b."
    )


def test_a_saga_whose_owner_is_gone_says_so() -> None:
    saga = given("a").saga
    text = explain(saga, View(conditions={}, owner="", here="one", now_ms=saga.updated_ms))
    assert "Nobody owns it now" in text
    assert "attempt 1 waits for its answer." in text


def test_a_parked_saga_says_until_when() -> None:
    saga, now_ms = given("a").saga, given("a").saga.updated_ms
    parked = View(
        conditions={}, owner="", here="one", now_ms=now_ms, parked_until_ms=now_ms + 60_000
    )
    text = explain(saga, parked)
    assert "It is parked, in nobody's memory; it goes on in 60 s, or when a verb" in text
    assert "Nobody owns it" not in text


def test_an_instance_that_does_not_run_the_saga_does_not_guess_what_its_call_waits_for() -> None:
    text = told(given("a"), conditions={"test.v1.A": SERVING}, here="two")
    assert "and attempt 1 waits for its answer, or to be sent: one knows." in text
    away = told(given("a"), conditions={"test.v1.A": replace(SERVING, open=True)}, here="two")
    assert "and attempt 1 waits for test to be back." in away


def test_a_saga_that_tries_again_tells_why_and_when() -> None:
    text = told(given("a").failed("a"))
    assert "Step a (1 of 1) is DOING, and attempt 2 is due in 1 s." in text
    assert "its last attempt failed: step a, UNAVAILABLE NO_ANSWER: told." in text


def test_a_step_tells_how_long_it_has_been_tried() -> None:
    text = told(given("a").failed("a").failed("a"), after_ms=600_000)
    assert "It has been tried for 10 min; its last attempt failed" in text


def test_a_participant_that_is_away_tells_since_when_and_what_brings_it_back() -> None:
    story = given("a", "b").done("a")
    away = replace(SERVING, open=True, since_ms=story.saga.updated_ms, waiting=12)
    away = replace(away, failure=failure())
    text = told(story, after_ms=180_000, conditions={"test.v1.B": away})
    assert "Step b (2 of 2) is DOING, and attempt 1 waits for test to be back." in text
    assert "Participant test has been away for 3 min: UNAVAILABLE NO_ANSWER: told." in text
    assert "calls wait (12 now), and spend no attempts, until its health service says" in text


def test_one_reason_is_told_once() -> None:
    story = given("a").failed("a")
    away = replace(SERVING, open=True, since_ms=story.saga.updated_ms, failure=failure())
    text = told(story, after_ms=2_000, conditions={"test.v1.A": away})
    assert text.count("UNAVAILABLE NO_ANSWER: told.") == 1
    assert "Participant test has been away for 2 s. Its circuit is open" in text


def test_a_code_without_a_reason_of_its_own_is_told_once() -> None:
    nameless = replace(failure(), reason="UNAVAILABLE")
    away = replace(SERVING, open=True, failure=nameless)
    text = told(given("a"), conditions={"test.v1.A": away})
    assert "has been away for 1 s: UNAVAILABLE: told." in text


def test_a_participant_that_is_misconfigured_says_that_no_retry_helps() -> None:
    story = given("a").failed("a", kind=FailureKind.MISCONFIGURED)
    assert "No retry helps before the deployment is mended" in told(story)
    story.failed("a", kind=FailureKind.MISCONFIGURED).failed("a", kind=FailureKind.MISCONFIGURED)
    assert story.state is SagaState.STUCK
    assert "No retry helps before the deployment is mended" in told(story)
    assert "No retry helps" not in told(given("a").stuck())


def test_a_participant_that_is_busy_tells_how_many_wait() -> None:
    busy = replace(SERVING, in_flight=8, waiting=3)
    text = told(given("a"), conditions={"test.v1.A": busy})
    assert "Participant test has 8 calls in flight; 3 more wait." in text


def test_a_participant_that_does_well_is_not_spoken_of() -> None:
    assert "Participant" not in told(given("a"), conditions={"test.v1.A": SERVING})


def test_a_saga_waits_for_the_participants_of_the_steps_under_way() -> None:
    assert waits_for(given("a", "b").done("a").saga) == ("test.v1.B",)
    assert waits_for(given("a").stuck().saga) == ("test.v1.A",)
    assert waits_for(given("a").done("a").saga) == ()
    left_open = given("a", "b").done("a").rejected("b").stuck().abandoned()
    assert waits_for(left_open.saga) == ()


def test_a_deadline_is_told_while_it_can_still_come() -> None:
    saga = replace(given("a").saga, deadline_ms=1_000 + 900_000)
    assert "It aborts by itself in 15 min." in told(saga)


def test_a_saga_that_is_undone_tells_why_and_what_is_left() -> None:
    story = given("a", "b", "c").done("a").done("b").rejected("c")
    text = told(story)
    assert "It was aborted: step c, UNAVAILABLE OUT_OF_STOCK: told." in text
    assert "Step b (2 of 3) is COMPENSATING, and attempt 1 waits for its answer." in text
    assert text.endswith("Effects that may be left: a, b.")


def test_a_stuck_saga_tells_what_an_operator_can_do() -> None:
    story = given("a", "b").done("a").rejected("b")
    for _ in range(4):
        story.failed("a", kind=FailureKind.UNKNOWN)
    text = told(story, after_ms=3 * 3_600_000)
    assert "its newest event is 3 h old" in text
    assert "It halted: step a, UNAVAILABLE NO_ANSWER: told." in text
    assert "Effects that may be left: a." in text
    assert text.endswith(
        "It waits for an operator."
        " RetrySaga would go on undoing, with fresh budgets."
        " SkipStep would take one as undone by hand and keep undoing: a."
        " AbandonSaga would end it and leave its effects: a."
    )


def test_a_saga_stuck_on_its_way_forward_can_still_be_undone() -> None:
    assert told(given("a").stuck()).endswith(
        "It waits for an operator."
        " CancelSaga would abort it and undo what may have happened: a."
        " RetrySaga would go on, with fresh budgets."
        " AbandonSaga would end it and leave its effects: a."
    )


def test_a_stuck_saga_tells_whether_its_participant_is_back() -> None:
    away = replace(SERVING, open=True)
    text = told(given("a").stuck(), conditions={"test.v1.A": away})
    assert "Participant test has been away for" in text


def test_final_sagas_tell_how_they_ended() -> None:
    done = told(given("a", "b").done("a").done("b"))
    assert done.endswith("All of its 2 steps are done.")
    assert "owner" not in done
    undone = given("a", "b").done("a").rejected("b").compensated("a")
    assert told(undone).endswith("No step's effect is left.")
    given_up = given("a", "b").done("a").rejected("b").stuck().abandoned()
    assert told(given_up).endswith("An operator ended it. Effects that stay: a.")


def test_a_saga_that_cannot_be_read_is_told_as_far_as_it_is_known() -> None:
    standing = Standing("f00", SagaState.RUNNING)
    assert explain_unreadable("saga-1", standing, "stored by a newer release").startswith(
        "Saga saga-1 is RUNNING and runs definition f00."
        " This coordinator can tell no more of it: stored by a newer release."
    )

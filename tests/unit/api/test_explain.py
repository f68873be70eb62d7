"""A saga explained at two in the morning."""

from __future__ import annotations

from dataclasses import replace

from coordinator.api.explain import explain, legal_verbs
from coordinator.core.model import FailureKind
from coordinator.core.saga import Saga
from tests.builders import Story, given


def told(story: Story | Saga, *, after_ms: int = 0) -> str:
    saga = story if isinstance(story, Saga) else story.saga
    return explain(saga, now_ms=saga.updated_ms + after_ms)


def verbs(story: Story) -> list[str]:
    return [kind.value for kind in legal_verbs(story.saga)]


def test_a_running_saga_tells_what_it_waits_for() -> None:
    story = given("a", "b").done("a")
    assert told(story, after_ms=90_000) == (
        "Saga saga-1 of story is RUNNING."
        " It was started 90 s ago, and its newest event is 90 s old."
        " Step b (2 of 2) is DOING, and attempt 1 waits for its answer."
    )
    assert verbs(story) == ["CANCEL"]


def test_a_saga_that_tries_again_tells_why_and_when() -> None:
    text = told(given("a").failed("a"))
    assert "Step a (1 of 1) is DOING, and attempt 2 is due in 1 s." in text
    assert "Its last attempt failed: step a, UNAVAILABLE NO_ANSWER: told." in text


def test_a_deadline_is_told_while_it_can_still_come() -> None:
    saga = replace(given("a").saga, deadline_ms=1_000 + 900_000)
    assert "It aborts by itself in 15 min." in told(saga)


def test_a_saga_that_is_undone_tells_why_and_what_is_left() -> None:
    story = given("a", "b", "c").done("a").done("b").rejected("c")
    text = told(story)
    assert "It was aborted: step c, UNAVAILABLE OUT_OF_STOCK: told." in text
    assert "Step b (2 of 3) is COMPENSATING, and attempt 1 waits for its answer." in text
    assert "Effects that may be left: a, b." in text
    assert verbs(story) == []


def test_a_stuck_saga_tells_what_an_operator_can_do() -> None:
    story = given("a", "b").done("a").rejected("b")
    for _ in range(4):
        story.failed("a", kind=FailureKind.UNKNOWN)
    text = told(story, after_ms=3 * 3_600_000)
    assert "its newest event is 3 h old" in text
    assert "It halted: step a, UNAVAILABLE NO_ANSWER: told." in text
    assert "Effects that may be left: a." in text
    assert text.endswith(
        "It waits for an operator: RetrySaga goes on with fresh budgets,"
        " SkipStep marks a step as undone by hand,"
        " AbandonSaga ends it and leaves these effects."
    )
    assert verbs(story) == ["RETRY", "SKIP", "ABANDON"]


def test_a_saga_stuck_on_its_way_forward_has_no_step_to_skip() -> None:
    story = given("a").stuck()
    assert "SkipStep" not in told(story)
    assert verbs(story) == ["RETRY", "ABANDON"]


def test_final_sagas_tell_how_they_ended() -> None:
    assert told(given("a", "b").done("a").done("b")).endswith("All of its 2 steps are done.")
    undone = given("a", "b").done("a").rejected("b").compensated("a")
    assert told(undone).endswith("No step's effect is left.")
    given_up = given("a", "b").done("a").rejected("b").stuck().abandoned()
    assert told(given_up).endswith("An operator ended it. Effects that stay: a.")
    assert verbs(given_up) == verbs(undone) == []

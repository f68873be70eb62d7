"""What every implementation of `Participants` promises (`coordinator/participants/base.py`).

That no answer in time is an answer too is promised by the real one alone: with the fake, time is
the test's to tell.
"""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.model import FailureKind
from coordinator.participants.base import Answer, Attempt, Done, Failed
from tests.contract.participants.harness import RESPONSE, Rig
from tests.integration.participants.participant import COMPENSATE, DO, OTHER_SERVICE, SERVICE


async def heard(answers: list[Answer]) -> Answer:
    async with asyncio.timeout(10):
        while not answers:
            await asyncio.sleep(0.001)
    return answers[0]


@pytest.mark.parametrize("attempt", [DO, COMPENSATE], ids=["do", "compensate"])
async def test_ok_is_done_with_the_response_as_it_came(rig: Rig, attempt: Attempt) -> None:
    await rig.hear()
    assert await heard(rig.call(attempt, fine=True)) == Done(RESPONSE)


async def test_an_answer_is_heard_after_the_call_has_returned_and_once(rig: Rig) -> None:
    await rig.hear()
    answers = rig.call(DO, fine=True)
    assert answers == []
    await heard(answers)
    await heard(rig.call(DO, fine=True))
    assert len(answers) == 1


async def test_a_participant_that_is_away_is_an_answer(rig: Rig) -> None:
    await rig.hear()
    answer = await heard(rig.call(DO, fine=False))
    assert isinstance(answer, Failed)
    assert (answer.failure.kind, answer.failure.code) == (FailureKind.UNKNOWN, "UNAVAILABLE")


async def test_one_participant_may_serve_several_steps(rig: Rig) -> None:
    await rig.hear()
    assert rig.participants.whose(SERVICE) == rig.participants.whose(OTHER_SERVICE) == "test"


async def test_a_step_that_nobody_is_known_to_serve_has_its_own_name(rig: Rig) -> None:
    assert rig.participants.whose(SERVICE) == SERVICE
    assert rig.participants.whose(OTHER_SERVICE) == OTHER_SERVICE


async def test_a_step_that_nobody_is_known_to_serve_waits_until_everybody_was_heard(
    rig: Rig,
) -> None:
    assert not await rig.participants.serving(SERVICE)
    await rig.hear()
    assert await rig.participants.serving(SERVICE)


async def test_a_participant_serves_as_long_as_it_says_so(rig: Rig) -> None:
    await rig.hear()
    assert await rig.participants.serving("test")
    rig.report(serving=False)
    assert not await rig.participants.serving("test")
    rig.report(serving=True)
    assert await rig.participants.serving("test")

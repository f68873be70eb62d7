"""The table of what answers mean, said again from the words of the guarantee."""

from __future__ import annotations

from itertools import product

import pytest
from grpc import StatusCode

from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.participants.outcome import FINAL_REASONS, KINDS, failure_of
from mesh.errors import Refusal

DO, COMPENSATE = Direction.DO, Direction.COMPENSATE
CODES = [code for code in StatusCode if code is not StatusCode.OK]

FINAL_FORWARD = {
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "OUT_OF_RANGE",
}
FINAL_BACKWARD = {"FAILED_PRECONDITION", "INVALID_ARGUMENT"}
DEPLOYMENT = {"UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"}


def kind_of(
    code: StatusCode,
    direction: Direction,
    *,
    reason: str = "SOMETHING",
    proven: bool = False,
    non_retryable: frozenset[str] = frozenset(),
) -> FailureKind:
    refusal = Refusal(code, reason, "words", None)
    return failure_of(refusal, direction, proven=proven, non_retryable_reasons=non_retryable).kind


def test_every_code_but_ok_is_in_the_table() -> None:
    assert set(KINDS) == set(CODES)
    assert len(KINDS) == 16


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_a_do_that_is_refused_with_proof_is_rejected_whatever_its_code(code: StatusCode) -> None:
    assert kind_of(code, DO, proven=True) is FailureKind.REJECTED
    assert kind_of(code, DO, proven=True, reason="STEP_REQUEST_CHANGED") is FailureKind.REJECTED


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_without_proof_a_code_says_how_sure_a_do_is(code: StatusCode) -> None:
    expected = FailureKind.UNKNOWN
    if code.name in FINAL_FORWARD:
        expected = FailureKind.REFUSED
    if code.name in DEPLOYMENT:
        expected = FailureKind.MISCONFIGURED
    assert kind_of(code, DO) is expected


@pytest.mark.parametrize(("code", "proven"), list(product(CODES, [True, False])))
def test_a_compensate_is_never_rejected(code: StatusCode, *, proven: bool) -> None:
    expected = FailureKind.UNKNOWN
    if code.name in FINAL_BACKWARD:
        expected = FailureKind.REFUSED
    if code.name in DEPLOYMENT:
        expected = FailureKind.MISCONFIGURED
    assert kind_of(code, COMPENSATE, proven=proven) is expected


@pytest.mark.parametrize(("code", "direction"), list(product(CODES, Direction)))
def test_a_reason_named_non_retryable_is_final_under_every_code(
    code: StatusCode, direction: Direction
) -> None:
    named = frozenset({"CARD_DECLINED"})
    assert (
        kind_of(code, direction, reason="CARD_DECLINED", non_retryable=named) is FailureKind.REFUSED
    )
    assert kind_of(code, direction, non_retryable=named) is kind_of(code, direction)


@pytest.mark.parametrize(
    ("code", "direction", "reason"), list(product(CODES, Direction, sorted(FINAL_REASONS)))
)
def test_a_changed_request_and_a_missing_record_are_final_and_never_rejections(
    code: StatusCode, direction: Direction, reason: str
) -> None:
    assert kind_of(code, direction, reason=reason) is FailureKind.REFUSED


def test_an_answer_without_a_reason_is_named_by_its_code() -> None:
    refusal = Refusal(StatusCode.UNAVAILABLE, "", "connection refused", None)
    assert failure_of(refusal, DO, proven=False) == Failure(
        kind=FailureKind.UNKNOWN,
        code="UNAVAILABLE",
        reason="UNAVAILABLE",
        message="connection refused",
    )


def test_endless_texts_of_a_participant_are_cut() -> None:
    refusal = Refusal(StatusCode.INTERNAL, "R" * 10_000, "m" * 10_000, None)
    failure = failure_of(refusal, DO, proven=False)
    assert (len(failure.reason), len(failure.message)) == (128, 1024)

"""What the coordinator hears of an attempt, over a real connection."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from msgspec.structs import replace

from coordinator.core.model import FailureKind
from coordinator.participants.base import Answer, Done, Failed
from coordinator.participants.grpc import GrpcParticipants
from tests.integration.participants.participant import (
    COMPENSATE,
    DO,
    OTHER_SERVICE,
    SERVICE,
    Behave,
    Context,
    Participant,
    Running,
    ask,
    contract,
    echo,
    serve,
    wrapped,
)

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
Trailing = tuple[tuple[str, str | bytes], ...]


def refusing(code: grpc.StatusCode, message: str = "no", trailing: Trailing = ()) -> Behave:
    async def behave(_request: bytes, context: Context) -> bytes:
        await context.abort(code, message, trailing)

    return behave


def details(*messages: Message) -> Trailing:
    status = status_pb2.Status()
    for message in messages:
        packed = any_pb2.Any()
        packed.Pack(message)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def failed(answer: Answer) -> Failed:
    assert isinstance(answer, Failed)
    return answer


async def test_the_bytes_arrive_as_they_are_and_the_response_comes_back_so(
    payment: Running,
) -> None:
    answer = await payment.ask(replace(DO, request=b"\xff\x00no protobuf"))
    assert answer == Done(wrapped(b"answer to \xff\x00no protobuf"))
    assert payment.participant.seen[0].method == f"{SERVICE}/Do"
    assert payment.participant.seen[0].request == b"\xff\x00no protobuf"


async def test_a_call_carries_its_idempotency_key_its_expiry_and_its_deadline(
    payment: Running,
) -> None:
    await payment.ask(replace(DO, not_after_ms=1_700_000_000_000, timeout_ms=3_000))
    seen = payment.participant.seen[0]
    assert seen.metadata["saga-id"] == "saga-1"
    assert seen.metadata["saga-step"] == "charge_payment"
    assert seen.metadata["saga-not-after"] == "1700000000000"
    assert "traceparent" not in seen.metadata
    assert seen.time_remaining == pytest.approx(3, abs=1)


async def test_a_compensate_goes_to_the_other_method_and_never_expires(payment: Running) -> None:
    await payment.ask(COMPENSATE)
    seen = payment.participant.seen[0]
    assert seen.method == f"{SERVICE}/Compensate"
    assert "saga-not-after" not in seen.metadata


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_every_code_is_read_from_the_wire(payment: Running, code: grpc.StatusCode) -> None:
    info = error_details_pb2.ErrorInfo(reason="CARD_DECLINED", domain="payment.v1")
    payment.participant.behave = refusing(code, "the card was declined", details(info))
    failure = failed(await payment.ask(DO)).failure
    assert (failure.code, failure.reason) == (code.name, "CARD_DECLINED")
    assert failure.message == "the card was declined"


async def test_only_the_trailing_outcome_proves_a_rejection(payment: Running) -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    payment.participant.behave = refusing(code, trailing=(("saga-outcome", "rejected"),))
    assert failed(await payment.ask(DO)).failure.kind is FailureKind.REJECTED
    payment.participant.behave = refusing(code, trailing=(("saga-outcome", "done"),))
    assert failed(await payment.ask(DO)).failure.kind is FailureKind.REFUSED
    payment.participant.behave = refusing(code)
    assert failed(await payment.ask(DO)).failure.kind is FailureKind.REFUSED


async def test_a_reason_named_non_retryable_ends_the_retries(payment: Running) -> None:
    info = error_details_pb2.ErrorInfo(reason="INVENTORY_PERMANENTLY_UNAVAILABLE")
    payment.participant.behave = refusing(grpc.StatusCode.UNAVAILABLE, trailing=details(info))
    named = frozenset({"INVENTORY_PERMANENTLY_UNAVAILABLE"})
    answer = failed(await payment.ask(replace(DO, non_retryable_reasons=named)))
    assert answer.failure.kind is FailureKind.REFUSED
    assert failed(await payment.ask(DO)).failure.kind is FailureKind.UNKNOWN


async def test_retry_info_says_when_to_come_back(payment: Running) -> None:
    info = error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000)
    )
    payment.participant.behave = refusing(grpc.StatusCode.UNAVAILABLE, trailing=details(info))
    assert failed(await payment.ask(DO)).retry_after_ms == 2_500


@pytest.mark.parametrize(
    "trailing",
    [
        (("grpc-status-details-bin", b"\xff\xff\xff garbage"),),
        (("grpc-status-details-bin", b""),),
        (("saga-outcome", "REJECTED"), ("saga-outcome-bin", b"rejected")),
        (("unheard-of", "~" * 2_000),),
    ],
)
async def test_garbage_in_the_trailers_proves_nothing_and_breaks_nothing(
    payment: Running, trailing: Trailing
) -> None:
    payment.participant.behave = refusing(grpc.StatusCode.UNAVAILABLE, "away", trailing)
    answer = failed(await payment.ask(DO))
    assert answer.failure.kind is FailureKind.UNKNOWN
    assert (answer.failure.reason, answer.retry_after_ms) == ("UNAVAILABLE", None)


@pytest.mark.parametrize(
    ("proof", "kind"),
    [
        ((), FailureKind.REFUSED),
        ((("saga-outcome", "rejected"),), FailureKind.REJECTED),
    ],
)
async def test_large_trailers_hide_neither_the_code_nor_the_proof(
    alone: Running, proof: Trailing, kind: FailureKind
) -> None:
    trailing = (*proof, ("padding", "x" * 50_000))
    alone.participant.behave = refusing(grpc.StatusCode.FAILED_PRECONDITION, "no", trailing)
    failure = failed(await alone.ask(DO)).failure
    assert (failure.code, failure.kind) == ("FAILED_PRECONDITION", kind)


async def test_trailers_too_large_for_http_leave_the_outcome_unknown(alone: Running) -> None:
    trailing = (("saga-outcome", "rejected"), ("padding", "x" * 100_000))
    alone.participant.behave = refusing(grpc.StatusCode.FAILED_PRECONDITION, "no", trailing)
    assert failed(await alone.ask(DO)).failure.kind is FailureKind.UNKNOWN
    alone.participant.behave = echo
    assert isinstance(await alone.ask(DO), Done)


async def test_a_response_of_one_mebibyte_arrives(payment: Running) -> None:
    async def behave(request: bytes, _context: Context) -> bytes:
        return request

    payment.participant.behave = behave
    large = wrapped(bytes(2 << 20))
    assert await payment.ask(replace(COMPENSATE, request=large)) == Done(large)


async def test_a_response_beyond_every_limit_is_unknown(alone: Running) -> None:
    async def behave(_request: bytes, _context: Context) -> bytes:
        return bytes(5 << 20)

    alone.participant.behave = behave
    answer = failed(await alone.ask(DO))
    assert (answer.failure.kind, answer.failure.code) == (
        FailureKind.UNKNOWN,
        "RESOURCE_EXHAUSTED",
    )


@pytest.mark.parametrize(
    "garbage", [b"<html>no backend</html>", b"{}", b"\x0a\x7ftoo short", b"\xff" * 20]
)
async def test_an_answer_that_is_no_message_is_unknown_and_goes_nowhere(
    payment: Running, garbage: bytes
) -> None:
    """As a DONE it would travel with the Compensate, which nobody could read then."""

    async def behave(_request: bytes, _context: Context) -> bytes:
        return garbage

    payment.participant.behave = behave
    failure = failed(await payment.ask(DO)).failure
    assert (failure.kind, failure.reason) == (FailureKind.UNKNOWN, "RESPONSE_NOT_READABLE")
    assert failed(await payment.ask(COMPENSATE)).failure.kind is FailureKind.UNKNOWN


async def test_an_empty_answer_is_a_message(payment: Running) -> None:
    async def behave(_request: bytes, _context: Context) -> bytes:
        return b""

    payment.participant.behave = behave
    assert await payment.ask(DO) == Done(b"")


async def hang(_request: bytes, _context: Context) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_no_answer_in_time_is_an_answer_too(payment: Running) -> None:
    payment.participant.behave = hang
    answer = failed(await payment.ask(replace(DO, timeout_ms=50)))
    assert (answer.failure.kind, answer.failure.code) == (
        FailureKind.UNKNOWN,
        "DEADLINE_EXCEEDED",
    )


async def test_a_participant_killed_during_a_call_leaves_it_unknown(payment: Running) -> None:
    payment.participant.behave = hang
    asked = asyncio.create_task(payment.ask(replace(DO, timeout_ms=60_000)))
    await payment.participant.called.wait()
    await payment.server.stop(None)
    assert failed(await asked).failure.kind is FailureKind.UNKNOWN


async def test_a_participant_that_is_away_fails_at_once_and_is_found_again(
    payment: Running,
) -> None:
    await payment.server.stop(None)
    answer = failed(await payment.ask(replace(DO, timeout_ms=60_000)))
    assert (answer.failure.kind, answer.failure.code) == (FailureKind.UNKNOWN, "UNAVAILABLE")
    payment.server, _ = await serve(payment.participant, payment.port)
    await until_done(payment.participants)


async def test_a_service_that_nobody_serves_is_an_answer(payment: Running) -> None:
    answer = failed(await payment.ask(replace(DO, service="test.v1.Unheard")))
    assert answer.failure.kind is FailureKind.MISCONFIGURED
    assert answer.failure.reason == "PARTICIPANT_UNKNOWN"


async def test_while_a_participant_is_unheard_a_missing_service_is_only_unknown() -> None:
    participants = GrpcParticipants({"payment": "127.0.0.1:1", "order": "127.0.0.1:2"})
    participants.route([contract("order", "test.v1.CreateOrder")])
    answer = failed(await ask(participants, DO))
    assert answer.failure.kind is FailureKind.UNKNOWN
    assert answer.failure.reason == "PARTICIPANT_UNKNOWN"
    await participants.close()


async def until_done(participants: GrpcParticipants) -> None:
    async with asyncio.timeout(10):
        while isinstance(await ask(participants, DO), Failed):
            pass


async def test_a_refreshed_route_moves_a_service_and_keeps_the_others(payment: Running) -> None:
    payment.participants.route([contract("payment", OTHER_SERVICE)])
    gone = failed(await payment.ask(DO))
    assert gone.failure.reason == "PARTICIPANT_UNKNOWN"
    assert isinstance(await payment.ask(replace(DO, service=OTHER_SERVICE)), Done)


async def test_addresses_of_one_participant_share_its_calls_and_cover_for_each_other() -> None:
    first, second = Participant(echo), Participant(echo)
    (one, port_one), (two, port_two) = await serve(first), await serve(second)
    participants = GrpcParticipants({"payment": f"ipv4:127.0.0.1:{port_one},127.0.0.1:{port_two}"})
    participants.route([contract("payment", SERVICE)])
    async with asyncio.timeout(10):
        while not (first.seen and second.seen):
            assert isinstance(await ask(participants, DO), Done)
    await one.stop(None)
    await until_done(participants)
    await participants.close()
    await two.stop(None)


async def test_closing_answers_everything_in_flight_once(payment: Running) -> None:
    payment.participant.behave = hang
    answers: list[Answer] = []
    for number in range(20):
        payment.participants.call(replace(DO, attempt=number, timeout_ms=60_000), answers.append)
    await payment.participant.called.wait()
    payment.participants.call(replace(DO, attempt=21), answers.append)  # not even begun
    await payment.participants.close()
    assert len(answers) == 21
    assert {failed(answer).failure.reason for answer in answers} == {"COORDINATOR_STOPPING"}
    assert {failed(answer).failure.kind for answer in answers} == {FailureKind.UNKNOWN}


async def test_a_call_after_closing_is_answered(payment: Running) -> None:
    await payment.participants.close()
    assert failed(await payment.ask(DO)).failure.kind is FailureKind.UNKNOWN


def what_the_loop_is_told() -> asyncio.Future[BaseException]:
    heard: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: heard.set_result(context["exception"])
    )
    return heard


async def test_a_caller_whose_callback_fails_takes_no_other_answer_with_it(
    payment: Running,
) -> None:
    heard = what_the_loop_is_told()

    def broken(_answer: Answer) -> None:
        raise RuntimeError("a bug in the caller")

    payment.participants.call(DO, broken)
    assert isinstance(await payment.ask(replace(DO, attempt=2)), Done)
    assert str(await heard) == "a bug in the caller"


async def test_an_attempt_that_breaks_here_is_answered_as_unknown(alone: Running) -> None:
    not_bytes: Any = "request"
    with structlog.testing.capture_logs() as logs:
        answer = failed(await alone.ask(replace(DO, request=not_bytes)))
    assert (answer.failure.kind, answer.failure.reason) == (FailureKind.UNKNOWN, "CALL_BROKEN")
    assert [entry["event"] for entry in logs] == ["call.broken"]
    assert isinstance(await alone.ask(DO), Done)

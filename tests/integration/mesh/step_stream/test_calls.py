"""mesh.v1.StepStream: a call of the stream is a call by itself."""

from __future__ import annotations

from typing import cast
from unittest.mock import patch

import grpc
import pytest
from google.rpc.code_pb2 import CANCELLED, DEADLINE_EXCEEDED, UNKNOWN

from mesh.border import MAX_REQUEST_BYTES
from mesh.errors import MeshError
from protos.mesh.v1 import mesh_pb2 as pb
from tests.integration.mesh.step_stream.client import (
    Stream,
    by_itself,
    call,
    compensation,
    ending,
    until,
)
from tests.integration.mesh.step_stream.service import REFUSALS, Step

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
TWINS = [
    call(),
    call(order_id="fail", traceparent=TRACEPARENT),
    call(not_after_ms=5),
    call(not_after_ms=-5),
    call(not_after_ms=10**15),
    call(saga_id=""),
    call(saga_id="nothing/like an id"),
    call(step="", not_after_ms=-1),
    call(step="ReserveStock"),
    call(request=b"\xff\xff\xff"),
    call(request=b"\xff\xff\xff", saga_id=""),
    call(service="inventory.v1.TakeStock"),
    call(service=""),
    call(direction=pb.STEP_DIRECTION_UNSPECIFIED),
    call(order_id="o" * 100_000),
    compensation("", call_id=1),
    compensation("fail", traceparent=TRACEPARENT),
    *(call(order_id=name) for name in REFUSALS),
    *(compensation(name) for name in REFUSALS),
]


@pytest.mark.parametrize("one", TWINS, ids=lambda one: str(one)[:80].replace("\n", " "))
async def test_a_call_is_answered_as_it_would_be_by_itself(
    one: pb.StepCall, channel: grpc.aio.Channel, stream: Stream
) -> None:
    (result,) = await stream.ask(one)

    assert result == await by_itself(channel, one)


async def test_a_stream_is_accepted_before_its_first_call(stream: Stream) -> None:
    assert tuple(await stream.rpc.initial_metadata()) == ()


async def test_answers_come_as_they_are_ready(step: Step, stream: Stream) -> None:
    await stream.send(call(1, "wait"), call(2), call(3, "reject"))
    await stream.read_until(2)
    assert set(stream.order) == {2, 3}

    step.leave.set()
    await stream.read_until(3)

    assert stream.order[2] == 1


async def test_what_is_ready_at_the_same_moment_is_answered_at_once(stream: Stream) -> None:
    await stream.ask(*(call(number) for number in range(1, 51)))

    assert stream.batches == [50]


async def test_a_call_too_late_is_cancelled_and_told_so(step: Step, stream: Stream) -> None:
    (result,) = await stream.ask(call(1, "wait", saga_id="late", timeout_ms=20))

    assert result.status.code == DEADLINE_EXCEEDED
    assert step.cancelled == ["late"]


async def test_a_call_that_was_too_late_from_the_beginning_is_not_performed(
    step: Step, stream: Stream
) -> None:
    (result,) = await stream.ask(call(1, timeout_ms=-1))

    assert result.status.code == DEADLINE_EXCEEDED
    assert step.begun == []


async def test_a_cancelled_call_is_answered_too(step: Step, stream: Stream) -> None:
    await stream.send(call(1, "wait", saga_id="one"), call(2, "wait", saga_id="two"))
    await until(lambda: len(step.begun) == 2)

    await stream.send(call(3), cancel=[1, 99])
    await stream.read_until(2)

    assert stream.results[1].status.code == CANCELLED
    assert step.cancelled == ["one"]
    assert 2 not in stream.results


async def test_a_stream_whose_client_has_sent_all_ends_when_all_is_answered(
    step: Step, stream: Stream
) -> None:
    await stream.send(call(1, "wait"))
    await stream.rpc.done_writing()
    await until(lambda: step.begun)

    step.leave.set()
    await stream.read_until(1)

    assert await ending(stream) == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"\xff\xff\xff", "REQUEST_UNREADABLE"),
        (b"\0" * (MAX_REQUEST_BYTES + 1), "REQUEST_TOO_LARGE"),
    ],
    ids=["garbage", "over 4 MiB"],
)
async def test_what_is_no_batch_ends_the_stream_in_words(
    garbage: bytes, reason: str, step: Step, stream: Stream, channel: grpc.aio.Channel
) -> None:
    await stream.send(call(1, "wait"), call(2))
    await until(lambda: len(step.begun) == 2)

    await stream.send_bytes(garbage)

    assert await ending(stream) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert step.cancelled == ["saga-1"]
    (again,) = await Stream(channel).ask(call(3))
    assert again.response


async def test_an_id_that_is_in_flight_is_not_used_twice(step: Step, stream: Stream) -> None:
    await stream.send(call(7, "wait"), call(7))

    assert await ending(stream) == (grpc.StatusCode.INVALID_ARGUMENT, "CALL_ID_REUSED")


async def test_a_refusal_that_cannot_be_told_is_an_answer_too(step: Step, stream: Stream) -> None:
    wrong = MeshError("WRONG", "its metadata is no text", metadata=cast("dict[str, str]", {"n": 1}))
    with patch.dict(REFUSALS, wrong=wrong):
        (result,) = await stream.ask(call(order_id="wrong"))

    assert result.status.code == UNKNOWN
    await stream.rpc.done_writing()
    assert (await ending(stream))[0] is grpc.StatusCode.OK

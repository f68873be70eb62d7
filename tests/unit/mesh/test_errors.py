from __future__ import annotations

from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from mesh.errors import (
    MAX_DETAIL_BYTES,
    AlreadyExists,
    Conflict,
    FieldViolation,
    InvalidRequest,
    MeshError,
    NotFound,
    NotNow,
    Overloaded,
    RecordMissing,
    Rejected,
    Retry,
    read_refusal,
    refusal_of,
    to_status,
)

M = TypeVar("M", bound=Message)

ERRORS = [
    InvalidRequest([FieldViolation("items[2].quantity", "must be at least 1")]),
    NotFound("ORDER_NOT_FOUND", "no order o-1", resource_type="order", name="o-1"),
    AlreadyExists("SAGA_ID_REUSED", "taken"),
    NotNow("SAGA_FINAL", "over", state="COMPLETED", allowed=["RUNNING"]),
    Rejected("OUT_OF_STOCK", "none left", metadata={"product_id": "p1"}),
    Retry("DATABASE_UNAVAILABLE", "away", retry_after_ms=250),
    Overloaded("TOO_MANY_SAGAS", "full", retry_after_ms=500),
    Conflict("STEP_BUSY", "busy"),
    RecordMissing("STEP_RECORD_MISSING", "gone"),
]


def detail(status: status_pb2.Status, into: M) -> M:
    found = [packed for packed in status.details if packed.Unpack(into)]
    assert len(found) == 1
    return into


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_carries_one_error_info(error: MeshError) -> None:
    status = to_status(error, domain="order.v1")

    info = detail(status, error_details_pb2.ErrorInfo())
    assert (info.reason, info.domain) == (error.reason, "order.v1")
    assert dict(info.metadata) == error.metadata
    assert (status.code, status.message) == (error.code.value[0], error.message)


def test_an_invalid_request_lists_its_fields() -> None:
    request = detail(to_status(ERRORS[0], domain="order.v1"), error_details_pb2.BadRequest())

    assert request.field_violations[0].field == "items[2].quantity"


@pytest.mark.parametrize("letter", ["y", "ü", "𝄞", "\ud800"])
def test_however_much_there_is_to_say_the_reason_arrives_within_four_kilobytes(letter: str) -> None:
    metadata = {f"key{number}": letter * 2_000 for number in range(10)}
    status = to_status(Conflict("STEP_BUSY", letter * 100_000, metadata=metadata), domain="o.v1")

    assert status.ByteSize() <= MAX_DETAIL_BYTES
    info = detail(status, error_details_pb2.ErrorInfo())
    assert (info.reason, info.domain) == ("STEP_BUSY", "o.v1")
    assert status.message


def test_violations_that_do_not_fit_are_left_out_and_the_reason_stays() -> None:
    violations = [FieldViolation(f"items[{number}]", "x" * 100) for number in range(1_000)]

    status = to_status(InvalidRequest(violations), domain="order.v1")

    assert status.ByteSize() <= MAX_DETAIL_BYTES
    assert detail(status, error_details_pb2.ErrorInfo()).reason == "INVALID_REQUEST"


def test_a_client_reads_the_reason_and_the_delay() -> None:
    status = to_status(ERRORS[5], domain="order.v1")
    trailing = [("grpc-status-details-bin", status.SerializeToString())]

    refusal = read_refusal(grpc.StatusCode.UNAVAILABLE, "away", trailing)

    assert (refusal.reason, refusal.retry_after_ms) == ("DATABASE_UNAVAILABLE", 250)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_a_status_by_itself_is_read_as_in_the_trailing_metadata(error: MeshError) -> None:
    status = to_status(error, domain="order.v1")
    trailing = [("grpc-status-details-bin", status.SerializeToString())]

    assert refusal_of(status) == read_refusal(error.code, status.message, trailing)


def test_a_code_that_does_not_exist_is_unknown() -> None:
    assert refusal_of(status_pb2.Status(code=99)).code is grpc.StatusCode.UNKNOWN


def test_a_detail_that_does_not_parse_counts_as_absent() -> None:
    status = to_status(ERRORS[5], domain="order.v1")
    status.details[0].value = b"\xff\xff"

    assert (refusal_of(status).reason, refusal_of(status).retry_after_ms) == ("", 250)


@pytest.mark.parametrize("garbage", [b"\xff\xff", "text"])
def test_details_that_do_not_parse_count_as_absent(garbage: bytes | str) -> None:
    refusal = read_refusal(
        grpc.StatusCode.INTERNAL, "broken", [("grpc-status-details-bin", garbage)]
    )

    assert (refusal.reason, refusal.retry_after_ms) == ("", None)


def test_a_stored_rejection_answers_the_same_bytes_for_ever() -> None:
    stored = to_status(ERRORS[4], domain="inventory.v1")

    rejected = Rejected.from_status(stored)

    assert to_status(rejected, domain="another.v1") == stored
    assert (rejected.reason, rejected.message) == ("OUT_OF_STOCK", "none left")
    assert rejected.metadata == {"product_id": "p1"}

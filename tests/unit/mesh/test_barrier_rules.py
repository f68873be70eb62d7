from __future__ import annotations

import pytest
from google.protobuf import struct_pb2

from mesh.barrier import rules
from mesh.errors import Conflict, InvalidRequest, MeshError, NotNow, Rejected, to_status
from mesh.step import MAX_MESSAGE_BYTES, StepCall, StepTypes
from protos.order.v1 import order_pb2

CALL = StepCall(saga_id="saga-1", step="create_order", not_after_ms=1_000)
TYPES = StepTypes.of("order.v1.CreateOrder")


def test_a_map_has_one_fingerprint_in_whatever_order_it_was_filled() -> None:
    one, other = struct_pb2.Struct(), struct_pb2.Struct()
    keys = [f"key{number}" for number in range(100)]
    for key in keys:
        one[key] = key
    for key in reversed(keys):
        other[key] = key

    assert rules.fingerprint(one) == rules.fingerprint(other)
    assert len(rules.fingerprint(one)) == 32


def test_a_call_expires_after_its_last_millisecond() -> None:
    rules.refuse_expired(CALL, 1_000)

    with pytest.raises(NotNow, match="expired at 1000 ms") as refused:
        rules.refuse_expired(CALL, 1_001)
    assert refused.value.reason == "STEP_EXPIRED"


def test_a_call_without_an_end_never_expires() -> None:
    rules.refuse_expired(StepCall(saga_id="saga-1", step="create_order"), 2**62)


def test_a_request_may_have_exactly_one_mebibyte() -> None:
    request = order_pb2.CreateOrderRequest(order_id="o" * (MAX_MESSAGE_BYTES - 4))
    assert request.ByteSize() == MAX_MESSAGE_BYTES
    rules.refuse_large_request(request)

    request.order_id += "o"
    with pytest.raises(InvalidRequest) as refused:
        rules.refuse_large_request(request)
    assert refused.value.reason == "REQUEST_TOO_LARGE"


def test_a_tombstone_knows_no_request_to_compare_with() -> None:
    rules.refuse_changed_request(CALL, stored=None, arrived=b"1" * 32)
    rules.refuse_changed_request(CALL, stored=b"1" * 32, arrived=b"1" * 32)

    with pytest.raises(Conflict) as refused:
        rules.refuse_changed_request(CALL, stored=b"2" * 32, arrived=b"1" * 32)
    assert refused.value.reason == "STEP_REQUEST_CHANGED"


def test_a_response_of_another_type_is_a_bug_that_is_named() -> None:
    with pytest.raises(TypeError, match=r"order.v1.CreateOrder.*CreateOrderResponse"):
        rules.check_response(TYPES, order_pb2.CreateOrderRequest())


def test_a_response_too_large_is_no_rejection() -> None:
    response = order_pb2.CreateOrderResponse()
    response.total.currency_code = "o" * MAX_MESSAGE_BYTES

    with pytest.raises(MeshError) as refused:
        rules.check_response(TYPES, response)

    assert refused.value.reason == "RESPONSE_TOO_LARGE"
    assert not isinstance(refused.value, Rejected)


def test_a_rejection_is_stored_with_the_domain_of_its_service() -> None:
    rejection = Rejected("OUT_OF_STOCK", "none left", metadata={"b": "2", "a": "1"})

    thawed = rules.thaw(rules.freeze(rejection, TYPES))

    assert to_status(thawed, domain="unused.v1") == to_status(rejection, domain="order.v1")
    assert rules.freeze(thawed, TYPES) == rules.freeze(rejection, TYPES)

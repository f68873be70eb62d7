from __future__ import annotations

import pytest

from mesh.errors import InvalidRequest
from mesh.step import StepCall, StepTypes
from protos.order.v1 import order_pb2


def test_a_call_is_read_from_its_metadata() -> None:
    metadata: list[tuple[str, str | bytes]] = [
        ("user-agent", "grpcurl"),
        ("saga-id", "demo-1"),
        ("saga-step", "create_order"),
        ("saga-not-after", "1700000000000"),
        ("other-bin", b"\x00"),
    ]

    call = StepCall.from_metadata(metadata)

    assert call == StepCall(saga_id="demo-1", step="create_order", not_after_ms=1_700_000_000_000)
    assert call.key == "demo-1:create_order"


def test_not_after_is_optional() -> None:
    call = StepCall.from_metadata([("saga-id", "demo-1"), ("saga-step", "create_order")])

    assert call.not_after_ms is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("saga-id", ""),
        ("saga-id", "-starts-with-a-dash"),
        ("saga-id", "a" * 65),
        ("saga-id", "a:b"),
        ("saga-id", "a\n"),
        ("saga-step", "CreateOrder"),
        ("saga-step", "a" * 49),
        ("saga-step", "a.b"),
        ("saga-not-after", "tomorrow"),
        ("saga-not-after", "-1"),
    ],
)
def test_malformed_metadata_is_refused_by_name(key: str, value: str) -> None:
    metadata = {"saga-id": "demo-1", "saga-step": "create_order", key: value}

    with pytest.raises(InvalidRequest) as refused:
        StepCall.from_metadata(metadata.items())

    assert [violation.field for violation in refused.value.violations] == [key]


def test_missing_metadata_is_refused_all_at_once_with_a_recipe() -> None:
    with pytest.raises(InvalidRequest) as refused:
        StepCall.from_metadata([])

    assert [violation.field for violation in refused.value.violations] == ["saga-id", "saga-step"]
    assert "grpcurl -H 'saga-id: demo-1' -H 'saga-step: reserve_stock'" in refused.value.message


def test_a_step_service_is_found_through_its_descriptor() -> None:
    types = StepTypes.of("order.v1.CreateOrder")

    assert types.service.full_name == "order.v1.CreateOrder"
    assert (types.request, types.response, types.compensation, types.compensated) == (
        order_pb2.CreateOrderRequest,
        order_pb2.CreateOrderResponse,
        order_pb2.CreateOrderCompensation,
        order_pb2.CreateOrderCompensated,
    )


def test_an_unknown_step_service_is_an_error_at_once() -> None:
    with pytest.raises(KeyError):
        StepTypes.of("order.v1.NoSuchStep")

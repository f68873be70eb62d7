"""Commands to paste: every one of them works as printed, in this order, against a running mesh."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_COFFEE = {"currency_code": "EUR", "units": "12", "nanos": 500_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One call of grpcurl."""

    title: str
    service: str
    """Whose port: coordinator, order, ..."""
    method: str
    """Such as order.v1.OrderService/PlaceOrder, or a verb of grpcurl: list, describe."""
    request: Mapping[str, object] | None = None
    metadata: Mapping[str, str] | None = None

    def arguments(self, address: str) -> list[str]:
        """What comes after `grpcurl`."""
        headers = [f"{key}: {value}" for key, value in (self.metadata or {}).items()]
        options = ["-plaintext", *(part for header in headers for part in ("-H", header))]
        if self.request is not None:
            options += ["-d", json.dumps(self.request)]
        return [*options, address, *self.method.split(" ")]


def commands(name: str, order_id: str) -> list[Command]:
    """Commands around one order that is started by hand.

    `name` is a new saga id, request id and so on; `order_id` a new UUIDv7.
    """
    order = {
        "customer_id": "ada",
        "items": [{"product_id": "coffee", "quantity": 2, "unit_price": _COFFEE}],
        "payment_method": "pm_card_visa",
    }
    saga_input = {
        "@type": "type.googleapis.com/order.v1.PlaceOrderInput",
        "order_id": order_id,
        **order,
    }
    return [
        Command(title="What there is", service="coordinator", method="list"),
        Command(
            title="Place an order; its answer has an order_id and a saga_id",
            service="order",
            method="order.v1.OrderService/PlaceOrder",
            request={"request_id": name, **order},
        ),
        Command(
            title="Start the same saga yourself",
            service="coordinator",
            method="saga.v1.SagaService/StartSaga",
            request={"saga_id": name, "definition": "place-order", "input": saga_input},
        ),
        Command(
            title="Watch it from its first event to its last",
            service="coordinator",
            method="saga.v1.SagaService/WatchSaga",
            request={"saga_id": name},
        ),
        Command(
            title="Look at it, step by step",
            service="coordinator",
            method="saga.v1.SagaService/GetSaga",
            request={"saga_id": name},
        ),
        Command(
            title="Look at its order",
            service="order",
            method="order.v1.OrderService/GetOrder",
            request={"order_id": order_id},
        ),
        Command(
            title="List the newest sagas",
            service="coordinator",
            method="saga.v1.SagaService/ListSagas",
            request={"page_size": 5},
        ),
        *_by_hand(f"{name}-by-hand"),
    ]


def _by_hand(saga_id: str) -> list[Command]:
    request = {"order_id": saga_id, "items": [{"product_id": "coffee", "quantity": 1}]}
    metadata = {"saga-id": saga_id, "saga-step": "reserve_stock"}
    return [
        Command(
            title="Do a step by hand; a second time it only answers again",
            service="inventory",
            method="inventory.v1.ReserveStock/Do",
            request=request,
            metadata=metadata,
        ),
        Command(
            title="Compensate it; from then on its Do is refused",
            service="inventory",
            method="inventory.v1.ReserveStock/Compensate",
            request={"request": request},
            metadata=metadata,
        ),
    ]


def script(steps: list[Command], address: Callable[[str], str]) -> str:
    """The commands as text to paste."""
    return "\n".join(
        f"\n# {step.title}\n{shlex.join(['grpcurl', *step.arguments(address(step.service))])}"
        for step in steps
    )

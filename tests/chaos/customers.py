"""Customers: they ask again until they are answered, and remember what they were told.

A call that fails with a code of `_AGAIN` is repeated under the same id after a pause, which never
does anything twice. Every call is recorded with its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf import any_pb2
from uuid_utils import uuid7

from local.shop import Shop, order_request, total
from mesh.errors import read_refusal
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2
from tests.chaos.plans import Plan
from tests.chaos.records import Call, Told

T = TypeVar("T")

_CALL_SECONDS = 6.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
_FINAL = ("COMPLETED", "COMPENSATED", "ABANDONED")
_AGAIN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)


class Customers:
    """All customers of a run. `shops` has the public API by coordinator; `now` is in seconds."""

    def __init__(self, shops: Mapping[str, Shop], now: Callable[[], float]) -> None:
        self.calls: list[Call] = []
        self.told: list[Told] = []
        self._shops = shops
        self._now = now

    async def order(self, plan: Plan) -> None:
        """Live through one order; when cancelled, what was told so far is remembered."""
        customer = _Customer(plan, self)
        try:
            await customer.live()
        finally:
            self.told.append(customer.told)

    async def ask(
        self, plan: Plan, to: str, method: str, call: Callable[[Shop], Awaitable[T]]
    ) -> T | None:
        """Call until there is an answer; None when it is a refusal."""
        pause = _FIRST_PAUSE_SECONDS
        shop = self._shops[plan.ask_at if to == "order" else to]
        while True:
            at = self._now()
            try:
                answer = await call(shop)
            except grpc.aio.AioRpcError as error:
                self._record(plan, to, method, at, error)
                if error.code() not in _AGAIN:
                    return None
            else:
                self._record(plan, to, method, at, None)
                return answer
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _record(
        self, plan: Plan, to: str, method: str, at: float, error: grpc.aio.AioRpcError | None
    ) -> None:
        code, reason = "OK", ""
        if error is not None:
            trailing: Any = error.trailing_metadata()
            refusal = read_refusal(error.code(), error.details() or "", trailing or ())
            code, reason = refusal.code.name, refusal.reason
        seconds = round(self._now() - at, 3)
        call = Call(
            method=method,
            to=to,
            name=plan.name,
            at=round(at, 3),
            seconds=seconds,
            code=code,
            reason=reason,
        )
        self.calls.append(call)


class _Customer:
    """One order and what is known of it."""

    def __init__(self, plan: Plan, customers: Customers) -> None:
        self._plan = plan
        self._customers = customers
        self._saga_id = self._order_id = self._seen_state = ""
        self._accepted_cancel = False
        self._watched: list[int] = []

    @property
    def told(self) -> Told:
        return Told(
            name=self._plan.name,
            saga_id=self._saga_id,
            order_id=self._order_id,
            total=total(self._plan.cart),
            cart=dict(self._plan.cart),
            accepted_cancel=self._accepted_cancel,
            watched=self._watched,
            seen_state=self._seen_state,
        )

    async def live(self) -> None:
        await (self._place() if self._plan.start_at == "order" else self._start())
        if not self._saga_id:
            return
        if self._plan.cancel_after is not None:
            await asyncio.sleep(self._plan.cancel_after)
            await self._cancel()
        elif self._plan.watches:
            await self._watch()

    async def _place(self) -> None:
        request = order_request(self._plan.cart, self._plan.card)
        request.request_id = self._plan.name
        placed: order_pb2.PlaceOrderResponse | None = await self._customers.ask(
            self._plan,
            "order",
            "PlaceOrder",
            lambda shop: shop.orders.PlaceOrder(request, timeout=_CALL_SECONDS),
        )
        if placed is not None:
            self._saga_id, self._order_id = placed.saga_id, placed.order_id

    async def _start(self) -> None:
        order = order_request(self._plan.cart, self._plan.card)
        order_id = str(uuid7())
        packed = any_pb2.Any()
        packed.Pack(
            order_pb2.PlaceOrderInput(
                order_id=order_id,
                customer_id=order.customer_id,
                items=order.items,
                payment_method=order.payment_method,
            )
        )
        request = saga_pb2.StartSagaRequest(
            saga_id=self._plan.name, definition="place-order", input=packed
        )
        started = await self._customers.ask(
            self._plan,
            self._plan.start_at,
            "StartSaga",
            lambda shop: shop.sagas.StartSaga(request, timeout=_CALL_SECONDS),
        )
        if started is not None:
            self._saga_id, self._order_id = started.saga.saga_id, order_id

    async def _cancel(self) -> None:
        request = saga_pb2.CancelSagaRequest(
            saga_id=self._saga_id,
            reason="changed my mind",
            actor="ada",
            request_id=f"cancel-{self._plan.name}",
        )
        cancelled = await self._customers.ask(
            self._plan,
            self._plan.ask_at,
            "CancelSaga",
            lambda shop: shop.sagas.CancelSaga(request, timeout=_CALL_SECONDS),
        )
        self._accepted_cancel = cancelled is not None

    async def _watch(self) -> None:
        """Follow the saga to its end, again and again from the revision that was seen last."""
        while self._seen_state not in _FINAL:
            await self._customers.ask(self._plan, self._plan.ask_at, "WatchSaga", self._watch_once)

    async def _watch_once(self, shop: Shop) -> bool:
        request = saga_pb2.WatchSagaRequest(
            saga_id=self._saga_id, after_revision=len(self._watched)
        )
        async for message in shop.sagas.WatchSaga(request, timeout=60):
            self._watched.append(message.event.revision)
            state = saga_pb2.SagaState.Name(message.event.state)
            self._seen_state = state.removeprefix("SAGA_STATE_")
        return True

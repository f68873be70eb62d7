"""The business API of payments: read one."""

from __future__ import annotations

from typing_extensions import override

from mesh.errors import InvalidRequest, NotFound
from payment_svc.payment import to_proto
from payment_svc.store import Payments
from payment_svc.validation import get_payment_violations
from protos.payment.v1 import payment_pb2, payment_pb2_grpc


class PaymentService(payment_pb2_grpc.PaymentServiceServicer):
    """Answers PaymentService."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    @override
    async def GetPayment(
        self, request: payment_pb2.GetPaymentRequest, context: object
    ) -> payment_pb2.GetPaymentResponse:
        """Read a payment by its id, or the newest one of an order.

        Raises:
            InvalidRequest: not exactly one id, or a malformed one.
            NotFound: PAYMENT_NOT_FOUND.
        """
        if violations := list(get_payment_violations(request)):
            raise InvalidRequest(violations)
        if request.payment_id:
            payment = await self._payments.get(request.payment_id)
        else:
            payment = await self._payments.of_order(request.order_id)
        if payment is None:
            name = request.payment_id or f"of order {request.order_id}"
            raise NotFound(
                "PAYMENT_NOT_FOUND",
                f"there is no payment {name}",
                resource_type="payment.v1.Payment",
                name=name,
            )
        return payment_pb2.GetPaymentResponse(payment=to_proto(payment))

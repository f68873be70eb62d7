"""Stripe's objects and requests, as far as a saga needs them.

Amounts are integers in the currency's minor unit, times are seconds since the epoch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from payment_svc.sandbox.errors import Json

Currency = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z]{3}$")]
Metadata = Annotated[dict[str, str], Field(max_length=50)]


class Operation(StrEnum):
    """What a client can ask for."""

    CREATE = "create"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    RETRIEVE = "retrieve"
    LIST = "list"
    CREATE_REFUND = "create_refund"
    RETRIEVE_REFUND = "retrieve_refund"
    LIST_REFUNDS = "list_refunds"


class IntentState(StrEnum):
    """What a PaymentIntent's `status` says."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_CONFIRMATION = "requires_confirmation"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"


class RefundState(StrEnum):
    """What a refund's `status` says."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class PaymentIntent(BaseModel):
    """One payment, from the wish to the money."""

    model_config = ConfigDict(frozen=True)

    id: str
    object: Literal["payment_intent"] = "payment_intent"
    amount: int
    amount_received: int = 0
    canceled_at: int | None = None
    created: int
    currency: str
    description: str | None = None
    last_payment_error: dict[str, Any] | None = None
    latest_charge: str | None = None
    livemode: Literal[False] = False
    metadata: dict[str, str] = {}
    payment_method: str | None = None
    payment_method_types: tuple[str, ...] = ("card",)
    status: IntentState
    settle_time: int | None = None
    """When `processing` ends; not shown."""

    def shown(self) -> Json:
        """The object as clients see it."""
        return self.model_dump(mode="json", exclude={"settle_time"})


class Refund(BaseModel):
    """Money of one payment on its way back."""

    model_config = ConfigDict(frozen=True)

    id: str
    object: Literal["refund"] = "refund"
    amount: int
    charge: str | None
    created: int
    currency: str
    failure_reason: str | None = None
    metadata: dict[str, str] = {}
    payment_intent: str
    status: RefundState
    settle_time: int | None = None
    """When `pending` ends; not shown."""

    def shown(self) -> Json:
        """The object as clients see it."""
        return self.model_dump(mode="json", exclude={"settle_time"})


class Parameters(BaseModel):
    """Parameters of a request; unknown ones are refused, as Stripe does."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    operation: ClassVar[Operation]


class RetrieveIntent(Parameters):
    """Parameters of retrieve."""

    operation = Operation.RETRIEVE


class RetrieveRefund(Parameters):
    """Parameters of retrieve, for refunds."""

    operation = Operation.RETRIEVE_REFUND


class ConfirmIntent(Parameters):
    """Parameters of confirm."""

    operation = Operation.CONFIRM
    payment_method: str | None = None
    off_session: bool = False
    error_on_requires_action: bool = False


class CreateIntent(ConfirmIntent):
    """Parameters of create; with `confirm` both happen in one request."""

    operation = Operation.CREATE
    amount: Annotated[int, Field(gt=0)]
    currency: Currency
    confirm: bool = False
    description: str | None = None
    metadata: Metadata = {}
    allowed_payment_method_types: tuple[Literal["card"], ...] = ("card",)


class CancelIntent(Parameters):
    """Parameters of cancel."""

    operation = Operation.CANCEL
    cancellation_reason: (
        Literal["duplicate", "fraudulent", "requested_by_customer", "abandoned"] | None
    ) = None


class CreateRefund(Parameters):
    """Parameters of a refund; no amount means all that is left."""

    operation = Operation.CREATE_REFUND
    payment_intent: str
    amount: Annotated[int, Field(gt=0)] | None = None
    metadata: Metadata = {}
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None


class Page(Parameters):
    """Parameters of a list, newest first."""

    operation = Operation.LIST
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    starting_after: str | None = None


class RefundPage(Page):
    """Parameters of a list of refunds."""

    operation = Operation.LIST_REFUNDS
    payment_intent: str | None = None

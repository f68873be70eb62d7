"""The payment provider, as far as a charge needs it: six calls, and four ways to say no.

    Retry                    UNAVAILABLE  whether it happened is not known, or not now
    └── ProviderBroken                    the provider failed, and its key may answer so for ever
    RecordMissing            DATA_LOSS    the provider does not know a payment that we do
    Refused                               a clear no: this call has had no effect
    Passed                                the payment is past this: read it again

Contract, which the sandbox and Stripe both keep:

- `create` takes no money. One key makes one intent within 24 hours; later it makes another.
- `confirm` takes the money once at most per intent, whatever the keys. The first answer of a key is
  its answer for 24 hours, so only `retrieve` tells the present state.
- An intent that reads CANCELLED has taken nothing and never will.
- `refund` gives back all that is left, and never more than was taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mesh.errors import Retry
from mesh.money import Money


class IntentState(Enum):
    """Where a payment is at the provider."""

    OPEN = "open"
    """Nothing is taken; it can be confirmed and cancelled."""
    PROCESSING = "processing"
    """The bank has not answered yet."""
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"


class RefundState(Enum):
    """Where a refund is at the provider."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One payment at the provider."""

    id: str
    state: IntentState
    captured: int
    """What was taken, in the provider's minor units."""
    decline_reason: str = ""
    """Why the last confirm was declined, such as CARD_DECLINED; empty when it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """One refund at the provider."""

    amount: int
    """In the provider's minor units."""
    state: RefundState


class Refused(Exception):
    """A clear no: this call has had no effect. `reason` is UPPER_SNAKE."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Passed(Exception):
    """The payment is past this call; read it again."""


class ProviderBroken(Retry):
    """The provider failed with a 5xx, which it may repeat for as long as it knows the key."""


class Provider(Protocol):
    """The port; every call may raise Retry, and RecordMissing where it names an intent."""

    async def create(self, amount: Money, metadata: Mapping[str, str], key: str) -> Intent:
        """Open a payment that takes nothing yet. Raises Refused."""
        ...

    async def confirm(self, intent_id: str, payment_method: str, key: str) -> Intent:
        """Take the money, without the customer. Raises Refused, Passed."""
        ...

    async def retrieve(self, intent_id: str) -> Intent:
        """Read the payment as it is now."""
        ...

    async def cancel(self, intent_id: str) -> Intent:
        """Make sure that nothing will be taken. Raises Passed."""
        ...

    async def refunds(self, intent_id: str) -> list[Refund]:
        """Read all refunds of the payment."""
        ...

    async def refund(self, intent_id: str, key: str) -> Refund:
        """Give back all that is left. Raises Refused; Passed when nothing is left."""
        ...

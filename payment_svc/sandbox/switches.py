"""What makes the provider difficult: latency, and faults that hit requests.

A fault hits the next `times` requests of its operation, or with probability `rate` each of them:

    {"latency_ms": 50, "faults": [{"operation": "confirm", "kind": "drop_after", "times": 2},
                                  {"kind": "rate_limit", "rate": 0.05}]}
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from payment_svc.sandbox.objects import Operation


class FaultKind(StrEnum):
    """How a request goes wrong."""

    RATE_LIMIT = "rate_limit"
    """429, no effect; not saved under the key."""
    ERROR_BEFORE = "error_before"
    """500, no effect; saved under the key and replayed."""
    ERROR_AFTER = "error_after"
    """500 after the effect; saved under the key and replayed."""
    DROP_BEFORE = "drop_before"
    """The connection is closed, no effect."""
    DROP_AFTER = "drop_after"
    """The connection is closed after the effect; the true answer is saved under the key."""
    LOSE_TO_CONFIRM = "lose_to_confirm"
    """A cancel finds that a confirm was quicker."""
    REFUND_PENDING = "refund_pending"
    """A refund succeeds, but only after `settle_seconds`."""
    REFUND_FAILS = "refund_fails"
    """A refund is made and fails: no money goes back."""


ONLY_FOR = {
    FaultKind.LOSE_TO_CONFIRM: Operation.CANCEL,
    FaultKind.REFUND_PENDING: Operation.CREATE_REFUND,
    FaultKind.REFUND_FAILS: Operation.CREATE_REFUND,
}
"""Faults that mean something for one operation only."""


class Fault(BaseModel):
    """One thing that goes wrong, some number of times or some of the time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    operation: Operation | None = None
    """None for every operation."""
    times: Annotated[int, Field(ge=1)] | None = None
    rate: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _times_or_rate(self) -> Self:
        if (self.times is None) == (self.rate is None):
            raise ValueError("a fault has either times or rate")
        return self

    def concerns(self, operation: Operation) -> bool:
        """Say whether the fault can hit such a request."""
        wanted = ONLY_FOR.get(self.kind, self.operation)
        return wanted is None or wanted is operation


class Switches(BaseModel):
    """Everything that can be set while the sandbox runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms: Annotated[int, Field(ge=0)] = 0
    """How long a request waits before it has any effect."""
    settle_seconds: Annotated[int, Field(ge=0)] = 2
    """How long `processing` and `pending` last."""
    faults: tuple[Fault, ...] = ()


class SwitchBoard:
    """The switches as they are now; a fault with `times` is used up.

    `chance` gives a number in [0, 1).
    """

    def __init__(self, switches: Switches, chance: Callable[[], float]) -> None:
        self.switches = switches
        self._chance = chance

    def fault_for(self, operation: Operation) -> FaultKind | None:
        """Find the fault that hits this request, and count it."""
        for fault in self.switches.faults:
            if fault.concerns(operation) and self._hits(fault):
                self._count(fault)
                return fault.kind
        return None

    def _hits(self, fault: Fault) -> bool:
        return fault.rate is None or self._chance() < fault.rate

    def _count(self, hit: Fault) -> None:
        if hit.times is None:
            return
        faults = list(self.switches.faults)
        place = faults.index(hit)
        left = hit.times - 1
        faults[place : place + 1] = [hit.model_copy(update={"times": left})] if left else []
        self.switches = self.switches.model_copy(update={"faults": tuple(faults)})

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from payment_svc.sandbox.objects import Operation
from payment_svc.sandbox.settings import SandboxSettings
from payment_svc.sandbox.switches import Fault, FaultKind, SwitchBoard, Switches


def board(*faults: Fault, seed: int = 1) -> SwitchBoard:
    return SwitchBoard(Switches(faults=faults), random.Random(seed).random)


def test_a_fault_hits_as_often_as_it_says_and_only_its_operation() -> None:
    fault = Fault(kind=FaultKind.DROP_AFTER, operation=Operation.CONFIRM, times=2)
    switches = board(fault)
    asked = [Operation.CREATE, *[Operation.CONFIRM] * 3]
    hit = [switches.fault_for(operation) for operation in asked]
    assert hit == [None, FaultKind.DROP_AFTER, FaultKind.DROP_AFTER, None]


def test_faults_hit_in_the_order_they_were_given() -> None:
    switches = board(
        Fault(kind=FaultKind.RATE_LIMIT, times=1), Fault(kind=FaultKind.ERROR_BEFORE, times=1)
    )
    hit = [switches.fault_for(Operation.CREATE) for _ in range(3)]
    assert hit == [FaultKind.RATE_LIMIT, FaultKind.ERROR_BEFORE, None]


def test_a_fault_with_a_rate_hits_some_of_the_time_and_repeats_with_its_seed() -> None:
    def hits() -> list[FaultKind | None]:
        switches = board(Fault(kind=FaultKind.RATE_LIMIT, rate=0.2), seed=7)
        return [switches.fault_for(Operation.LIST) for _ in range(1_000)]

    assert 150 < sum(hit is not None for hit in hits()) < 250
    assert hits() == hits()


def test_a_failing_refund_never_hits_anything_else() -> None:
    switches = board(Fault(kind=FaultKind.REFUND_FAILS, times=1))
    assert switches.fault_for(Operation.CONFIRM) is None
    assert switches.fault_for(Operation.CREATE_REFUND) is FaultKind.REFUND_FAILS


@pytest.mark.parametrize("amounts", [{}, {"times": 1, "rate": 0.5}])
def test_a_fault_has_either_times_or_a_rate(amounts: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate({"kind": "rate_limit", **amounts})


def test_faults_can_be_set_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_FAULTS", '[{"kind": "drop_after", "rate": 0.01}]')
    monkeypatch.setenv("SANDBOX_LATENCY_MS", "50")
    switches = SandboxSettings().switches
    assert switches.latency_ms == 50
    assert switches.faults == (Fault(kind=FaultKind.DROP_AFTER, rate=0.01),)

"""Whatever is doubled, killed, lost or late: a charge is kept exactly once, or not at all."""

from __future__ import annotations

import random

import pytest

from mesh.errors import Rejected
from payment_svc.payment import PaymentState
from payment_svc.sandbox.switches import FaultKind
from tests.unit.payment.simulation import AMOUNT, DAY, Running, World, advance, finish

WALKS = 400
STEPS = 60
ATTEMPTS = 60


def walk(world: World, *, undo: bool) -> Running:
    """Chaos: attempts start, go on, die; hours pass. Returns who is still at it."""
    chance, running = world.chance, Running()
    for _ in range(STEPS):
        dice = chance.random()
        if dice < 0.12 and len(running) < 4:
            late_enough = undo and chance.random() < 0.4
            running.append(world.compensate() if late_enough else world.do())
        elif dice < 0.17 and running:
            running.pop(chance.randrange(len(running))).close()
        elif dice < 0.19:
            world.provider.now += chance.choice([10, 60, DAY])
        elif running:
            advance(world, running, chance.randrange(len(running)))
    return running


def settle(world: World, *, undo: bool) -> None:
    """Calm: the coordinator asks again until it has an answer."""
    world.provider.accidents = (FaultKind.REFUND_PENDING,)
    for _ in range(ATTEMPTS):
        refused = finish(world.compensate() if undo else world.do())
        if refused is None or isinstance(refused, Rejected):
            return
        world.provider.now += 60
    pytest.fail(f"no outcome after {ATTEMPTS} calm attempts: {refused}")


def check(world: World) -> None:
    done = world.row.state == "DONE"
    assert world.row.state in {"DONE", "REJECTED", "COMPENSATED"}
    assert world.kept() == (AMOUNT if done else 0)
    states = set(world.payments.states.values())
    if done:
        assert states == {PaymentState.CHARGED}
    elif world.row.state == "REJECTED":
        assert states <= {PaymentState.DECLINED}
    else:
        assert states <= {PaymentState.REFUNDED, PaymentState.DECLINED}


@pytest.mark.parametrize("undo", [False, True], ids=["do", "compensate"])
def test_every_schedule_ends_charged_once_or_not_at_all(undo: bool) -> None:  # noqa: FBT001
    for seed in range(WALKS):
        world = World(seed)
        stragglers = walk(world, undo=undo)
        settle(world, undo=undo)
        check(world)
        while stragglers:
            advance(world, stragglers, random.Random(seed).randrange(len(stragglers)))
        check(world)

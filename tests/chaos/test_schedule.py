"""The schedule and the orders are pure functions of the seed."""

from __future__ import annotations

from itertools import islice, pairwise

from tests.chaos.plans import Plan, plans
from tests.chaos.schedule import OF_LINK, OF_PROCESS, OF_PROVIDER, Fault, schedule

PROCESSES = ("coordinator", "postgres")
LINKS = ("order>postgres", "payment>sandbox")


def faults(seed: int) -> tuple[Fault, ...]:
    return schedule(seed, 600, processes=PROCESSES, links=LINKS)


def orders(seed: int) -> list[Plan]:
    return list(islice(plans(seed, 5, run="run", coordinators=("a", "b")), 500))


def test_the_same_seed_gives_the_same_faults_and_orders() -> None:
    assert faults(7) == faults(7)
    assert orders(7) == orders(7)


def test_another_seed_gives_others() -> None:
    assert faults(7) != faults(8)
    assert orders(7) != orders(8)


def test_a_target_suffers_one_fault_at_a_time() -> None:
    for target in (*PROCESSES, *LINKS, "provider"):
        of_target = [fault for fault in faults(1) if fault.target == target]
        assert of_target
        assert all(before.until < after.at for before, after in pairwise(of_target))


def test_faults_of_different_targets_overlap() -> None:
    found = faults(1)
    assert any(before.until > after.at for before, after in pairwise(found))


def test_every_kind_of_fault_comes_and_hits_what_it_can_hit() -> None:
    found = faults(1)
    assert {fault.kind for fault in found} == {*OF_PROCESS, *OF_LINK, *OF_PROVIDER}
    assert {fault.target for fault in found if fault.kind in OF_PROCESS} == set(PROCESSES)
    assert {fault.target for fault in found if fault.kind in OF_LINK} == set(LINKS)


def test_all_faults_are_over_in_time() -> None:
    assert all(fault.until < 600 for fault in faults(1))


def test_orders_come_at_the_rate_and_are_of_every_kind() -> None:
    wanted = orders(1)
    assert 80 < wanted[-1].at < 125
    assert {plan.start_at for plan in wanted} == {"order", "a", "b"}
    assert any(plan.cancel_after is not None for plan in wanted)
    assert any(plan.watches for plan in wanted)
    assert any("grinder" in plan.cart for plan in wanted)
    assert len({plan.card for plan in wanted}) == 4
    assert len({plan.name for plan in wanted}) == len(wanted)

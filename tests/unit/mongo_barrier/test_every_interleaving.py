"""The algorithm that ships, in every interleaving with any number of crashes and stock changes.

`promises.py` says what is checked in every single state; the numbers of states only make sure that
the search did not shrink unnoticed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from mesh.barrier.mongo_algorithm import Algorithm
from mesh.barrier.mongo_operations import Script
from mesh.barrier.mongo_purge import tidy_product
from mesh.errors import MeshError
from tests.unit.mongo_barrier import mutants
from tests.unit.mongo_barrier.explorer import Explored, Guilty, World, explore
from tests.unit.mongo_barrier.promises import CALL, SERVICE, broken_promise, demand, world
from tests.unit.mongo_barrier.unrolled import by_frames, by_history

ORDER = {"apple": 1, "pear": 2}
SHORT = {"apple": 1, "pear": 0}
ENOUGH = {"apple": 1, "pear": 2}
REFILLED = [("pear", 0), ("pear", 2)]
ALGORITHM = Algorithm(SERVICE, lambda: 0)


def told_only(given: World) -> World:
    """Judge by what clients are told, and not by what is stored."""
    return replace(given, fault=partial(broken_promise, ORDER))


def words(explored: Explored) -> set[tuple[str, ...]]:
    return {tuple(answer.word for answer in answers) for _, answers in explored.ends}


def test_two_dos_and_a_compensate_while_the_stock_goes_up_and_down() -> None:
    seen = explore(world(ALGORITHM, items=ORDER, stock=SHORT, levels=REFILLED))

    assert seen.states > 60_000
    assert words(seen) >= {
        ("DONE", "DONE", "OK"),
        ("REJECTED", "REJECTED", "OK"),
        ("DONE", "STEP_ALREADY_COMPENSATED", "OK"),
        ("STEP_ALREADY_COMPENSATED", "STEP_ALREADY_COMPENSATED", "OK"),
    }


def test_whatever_updates_are_made_and_not_told_so() -> None:
    plain = world(ALGORITHM, items=ORDER, stock=SHORT, levels=REFILLED)
    seen = explore(replace(plain, doubtful=True))

    assert seen.states > 60_000
    assert ("DONE", "DONE", "OK") in words(seen)


def test_two_dos_and_two_compensates_while_the_stock_goes_up_and_down() -> None:
    same = [b"same", b"same"]
    seen = explore(
        world(
            ALGORITHM,
            items=ORDER,
            stock=SHORT,
            levels=REFILLED,
            responses=same,
            compensates=2,
        )
    )

    assert seen.states > 200_000


def test_a_product_that_is_created_while_its_absence_is_being_rejected() -> None:
    seen = explore(world(ALGORITHM, items=ORDER, stock={"apple": 1}, levels=[("pear", 2)]))

    assert seen.states > 90_000
    assert ("DONE", "DONE", "OK") in words(seen)


def test_a_do_that_is_compensated_with_its_answer_beside_a_late_twin() -> None:
    def saga() -> Script[None]:
        answered = True
        try:
            yield from ALGORITHM.do(demand(ORDER))
        except MeshError:
            answered = False
        yield from ALGORITHM.compensate(CALL, answered=answered)

    alone = world(ALGORITHM, items=ORDER, stock=SHORT, levels=REFILLED, responses=[b"one"])
    seen = explore(replace(alone, actors={**alone.actors, "saga": saga}))

    assert seen.states > 40_000
    assert all(answers[-1] == "OK" for answers in words(seen))


def test_a_sweep_never_touches_a_reservation_that_counts() -> None:
    dos = world(ALGORITHM, items=ORDER, stock=SHORT, levels=REFILLED, responses=[b"one"])
    sweep = {f"sweep {id_}": partial(tidy_product, id_, 0) for id_ in ORDER}
    seen = explore(replace(dos, actors={**dos.actors, **sweep}))

    assert seen.states > 10_000


def test_without_a_shortage_or_a_compensate_everybody_is_done() -> None:
    seen = explore(world(ALGORITHM, items=ORDER, stock=ENOUGH, compensates=0))

    assert words(seen) == {("DONE", "DONE")}


def test_with_a_shortage_all_the_time_everybody_is_rejected() -> None:
    seen = explore(world(ALGORITHM, items=ORDER, stock=SHORT, compensates=0))

    assert words(seen) == {("REJECTED", "REJECTED")}


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        (mutants.NoTombstoneInTheBarrier, "OK was answered, but something is held"),
        (mutants.NoTombstoneInTheStock, "OK was answered, but something is held"),
        (mutants.RemovesTheKey, "OK was answered, but something is held"),
        (mutants.CompensatesInOneStep, "OK was answered, but something is held"),
        (mutants.DecidesWithoutComparing, "DONE was answered, but not everything is held"),
        (mutants.HoldsAgain, "was answered, but something is held"),
    ],
)
def test_a_shorter_compensate_is_found_guilty(mutant: type[Algorithm], fault: str) -> None:
    with pytest.raises(Guilty, match=fault):
        explore(told_only(world(mutant(SERVICE, lambda: 0), items=ORDER, stock=ENOUGH)))


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        (mutants.GivesBackBeforeDeciding, "DONE was answered, but not everything is held"),
        (mutants.RejectsInOneStep, "REJECTED was answered, but something is held"),
        (mutants.NoTombstoneInTheStock, "REJECTED was answered, but something is held"),
        (mutants.NoTombstoneForUnknownProducts, "REJECTED was answered, but something is held"),
        (mutants.DecidesWithoutComparing, "twins were answered differently"),
    ],
)
def test_a_shorter_rejection_is_found_guilty(mutant: type[Algorithm], fault: str) -> None:
    shorter = world(
        mutant(SERVICE, lambda: 0), items=ORDER, stock={"apple": 1}, levels=REFILLED, compensates=0
    )

    with pytest.raises(Guilty, match=fault):
        explore(told_only(shorter))


def test_two_lines_of_one_product_that_nobody_added_up_are_found_guilty() -> None:
    lines = mutants.Lines([("apple", 1), ("apple", 2)])

    with pytest.raises(Guilty, match="DONE was answered, but not everything is held"):
        explore(world(ALGORITHM, items=lines, stock={"apple": 5}))


def test_places_told_apart_by_their_frames_lose_nothing() -> None:
    small = world(ALGORITHM, items=ORDER, stock=SHORT, responses=[b"one"])
    certain = explore(small, recognise=by_history)
    quick = explore(small, recognise=by_frames)

    assert quick.ends == certain.ends
    assert quick.states <= certain.states

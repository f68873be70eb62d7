"""Simulated worlds, each from one seed, and proof that they can find what they are for."""

from __future__ import annotations

import os

import pytest

from tests.simulation.plants import PLANTS, Plant
from tests.simulation.simulation import play
from tests.simulation.store import Broken

SEEDS = int(os.environ.get("SEEDS", "20000"))
BATCH = 500
SEARCH = 5_000
"""Seeds within which each planted bug must be found."""


def batches() -> list[range]:
    """The seeds to play: one that is asked for, or as many as are."""
    if "SEED" in os.environ:
        first = int(os.environ["SEED"])
        return [range(first, first + 1)]
    return [range(first, min(first + BATCH, SEEDS)) for first in range(0, SEEDS, BATCH)]


def holds(seed: int) -> bool:
    try:
        play(seed)
    except Broken:
        return False
    return True


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", batches(), ids=lambda seeds: f"from {seeds.start}")
def test_every_promise_holds_in_every_simulated_world(seeds: range) -> None:
    for seed in seeds:
        play(seed)


def test_a_seed_plays_the_same_every_time() -> None:
    for seed in range(30):
        assert play(seed) == play(seed)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: str(plant.__name__))
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert not all(holds(seed) for seed in range(SEARCH))

"""Simulated worlds, each from one seed, and proof that they can find what they are for."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from coordinator.core.decide import Decision
from coordinator.core.events import Event
from coordinator.core.model import FailureKind
from coordinator.engine.live import Intent, Live
from coordinator.engine.runner import Runner
from coordinator.journal.base import AppendError
from coordinator.journal.memory import MemoryJournal, _Waiting
from tests.simulation import network
from tests.simulation.network import Key, Services
from tests.simulation.simulation import Broken, play

SEEDS = int(os.environ.get("SEEDS", "3000"))
FIRST_SEED = int(os.environ.get("SEED", "0"))
SEARCH = 5_000
"""Seeds within which each planted bug must be found."""


def seeds_that_break(seeds: range) -> list[str]:
    """The stories of the seeds whose worlds break a promise."""
    stories = []
    for seed in seeds:
        try:
            play(seed)
        except Broken as broken:
            stories.append(str(broken))
    return stories


@pytest.mark.timeout(3_600)
def test_every_promise_holds_in_every_simulated_world() -> None:
    seeds = range(FIRST_SEED, FIRST_SEED + (1 if "SEED" in os.environ else SEEDS))
    batches = [seeds[start : start + 100] for start in range(0, len(seeds), 100)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        stories = [story for batch in pool.map(seeds_that_break, batches) for story in batch]
    assert not stories, stories[0]


def test_a_seed_plays_the_same_every_time() -> None:
    for seed in range(30):
        assert play(seed) == play(seed)


# --- planted bugs -----------------------------------------------------------------


def no_tombstone(patch: pytest.MonkeyPatch) -> None:
    honest = Services.compensate

    def forgetful(self: Services, key: Key) -> str:
        return honest(self, key) if key in self.rows else "OK"

    patch.setattr(Services, "compensate", forgetful)


def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    def unfenced(self: MemoryJournal, waiting: _Waiting) -> AppendError | None:
        assert waiting.lease is not None
        return self._store.write(waiting.lease, waiting.append, waiting.row)

    patch.setattr(MemoryJournal, "_write", unfenced)


def rejection_not_stored(patch: pytest.MonkeyPatch) -> None:
    honest = Services.do

    def forgetful(self: Services, key: Key) -> str:
        answer = honest(self, key)
        if answer == "REJECTED":
            del self.rows[key]
        return answer

    patch.setattr(Services, "do", forgetful)


def acting_before_the_append_is_durable(patch: pytest.MonkeyPatch) -> None:
    honest = Runner._write

    def hasty(self: Runner, live: Live, event: Event, decision: Decision, intent: Intent) -> None:
        self._sender.act(live, decision.commands)
        honest(self, live, event, decision, intent)

    patch.setattr(Runner, "_write", hasty)


def unknown_taken_for_failed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(network, "silence", lambda: network.no(FailureKind.REJECTED))


PLANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    no_tombstone,
    no_epoch_check,
    rejection_not_stored,
    acting_before_the_append_is_durable,
    unknown_taken_for_failed,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: str(plant.__name__))
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(seeds_that_break(range(seed, seed + 1)) for seed in range(SEARCH))

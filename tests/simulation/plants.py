"""Bugs to plant: each takes one mechanism away, and simulated worlds must notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from coordinator.core.decide import Decision
from coordinator.core.events import Event
from coordinator.core.model import Direction, FailureKind
from coordinator.engine.gate import Gate, Waiting
from coordinator.engine.gates import Gates
from coordinator.engine.inbox import Inbox
from coordinator.engine.live import Intent, Live
from coordinator.engine.runner import Runner
from coordinator.engine.suspects import Suspects
from coordinator.journal import memory_store
from coordinator.journal.base import AppendError
from coordinator.journal.memory import MemoryJournal, _Waiting
from coordinator.journal.verbs import Verb
from tests.simulation import network
from tests.simulation.network import Key, Services

Plant = Callable[[pytest.MonkeyPatch], None]


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


def a_gate_that_forgets_who_waits(patch: pytest.MonkeyPatch) -> None:
    honest = Gate.wait

    def forgetful(self: Gate, direction: Direction, go: Callable[[], None]) -> Waiting:
        waiting = honest(self, direction, go)
        if self.circuit_open:
            waiting.cancel()
        return waiting

    patch.setattr(Gate, "wait", forgetful)


def a_gate_that_counts_no_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "answered", lambda *_: None)


def a_circuit_that_never_closes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gates, "_close_circuit", lambda *_: None)


def suspects_claimed_in_any_company(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory_store, "company", lambda _, limit: limit)


def the_guilty_are_acquitted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Suspects, "_is_over", lambda *_: True)


def nobody_is_acquitted(patch: pytest.MonkeyPatch) -> None:
    async def forgetful(self: Suspects) -> None:
        self._trials.clear()

    patch.setattr(Suspects, "acquit", forgetful)


def verbs_that_ignore_the_revision(patch: pytest.MonkeyPatch) -> None:
    honest = Inbox._event

    def heedless(self: Inbox, verb: Verb, live: Live) -> Event:
        return honest(self, replace(verb, revision=0), live)

    patch.setattr(Inbox, "_event", heedless)


PLANTS: list[Plant] = [
    no_tombstone,
    no_epoch_check,
    rejection_not_stored,
    acting_before_the_append_is_durable,
    unknown_taken_for_failed,
    a_gate_that_forgets_who_waits,
    a_gate_that_counts_no_answers,
    a_circuit_that_never_closes,
    suspects_claimed_in_any_company,
    the_guilty_are_acquitted,
    nobody_is_acquitted,
    verbs_that_ignore_the_revision,
]

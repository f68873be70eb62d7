from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from coordinator.definitions.base import DefinitionRefused
from coordinator.definitions.registry import GOOD_FOR_SECONDS, MAX_COMPILED, Registry
from coordinator.journal.base import JournalUnavailable
from coordinator.journal.definition_store import StoredDefinition
from coordinator.participants.base import Contract, ParticipantUnreachable
from tests.unit.definitions.contracts import contract, step

PROTO = f"package t.v1; {step('Make', 'string a = 1; string b = 2;')}"
MAKER = contract("maker", make=PROTO)
NEW_MAKER = contract("maker", make=PROTO.replace("string a = 1", "string a = 5"))
DOWN = ParticipantUnreachable("maker at maker:1 does not tell its contract: UNAVAILABLE")


def definition(name: str = "make", *, build: str = "a: input.a") -> str:
    return f"""
name: {name}
input: t.v1.MakeRequest
steps:
- name: make
  service: t.v1.Make
  request: 't.v1.MakeRequest{{{build}}}'
"""


class Store:
    """Registered definitions in a dictionary, the newest last, with a count of the questions."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredDefinition] = {}
        self.asked: list[str] = []
        self.answer = asyncio.Event()
        self.answer.set()
        self.fails = False

    async def save_definition(
        self, *, name: str, content_hash: str, source: str, descriptors: bytes
    ) -> tuple[StoredDefinition, bool]:
        known = self.stored.pop(content_hash, None)
        version = known or StoredDefinition(
            name=name,
            hash=content_hash,
            source=source,
            descriptors=descriptors,
            created_ms=len(self.stored) + 1,
        )
        self.stored[content_hash] = version
        return version, known is None

    async def load_definition(self, content_hash: str) -> StoredDefinition | None:
        self.asked.append(content_hash)
        return self.stored.get(content_hash)

    async def newest_definition(self, name: str) -> StoredDefinition | None:
        self.asked.append(name)
        found = [version for version in self.stored.values() if version.name == name]
        await self.answer.wait()
        if self.fails:
            raise JournalUnavailable("the store is away")
        return found[-1] if found else None

    async def list_definitions(self, *, after: str, limit: int) -> Sequence[StoredDefinition]:
        newest = {version.name: version for version in self.stored.values()}
        return [newest[name] for name in sorted(newest) if name > after][:limit]


class Participants:
    """Contracts, as a test sets them: what each fetch answers, the last one for ever."""

    def __init__(self, *answers: Iterable[Contract | ParticipantUnreachable]) -> None:
        self.answers = list(answers)
        self.fetched = 0

    async def fetch(self) -> Iterable[Contract | ParticipantUnreachable]:
        self.fetched += 1
        return self.answers[min(self.fetched, len(self.answers)) - 1]


async def newest_hash(registry: Registry) -> str | None:
    found = await registry.newest("make")
    return found.hash if found else None


async def a_version_in(store: Store, source: str) -> StoredDefinition:
    """What the store would have of a definition, before it has it."""
    elsewhere = Store()
    elsewhere.stored.update(store.stored)
    version = (await Registry(elsewhere, Participants([MAKER])).register(source)).version
    return elsewhere.stored[version.hash]


NOBODY = Participants([DOWN])


async def test_a_definition_is_registered_once() -> None:
    registry = Registry(Store(), Participants([MAKER]))
    first, again = [await registry.register(definition()) for _ in range(2)]
    assert (first.created, again.created) == (True, False)
    assert first.version.hash == again.version.hash
    assert first.version.created_ms == 1


async def test_warnings_come_with_the_registration_and_with_the_validation() -> None:
    proto = f"package t.v1; {step('Make', 'optional string a = 1;')}"
    registry = Registry(Store(), Participants([contract("maker", make=proto)]))
    registration = await registry.register(definition())
    assert [warning.path for warning in registration.warnings] == ["steps[0].request"]
    assert await registry.validate(definition()) == registration.warnings


async def test_validation_stores_nothing() -> None:
    store = Store()
    assert await Registry(store, Participants([MAKER])).validate(definition()) == ()
    assert store.stored == {}


async def test_a_refused_definition_stores_nothing() -> None:
    store = Store()
    with pytest.raises(DefinitionRefused):
        await Registry(store, Participants([MAKER])).register(definition(build="x: 1"))
    assert store.stored == {}


async def test_a_participant_that_comes_back_is_asked_once_more() -> None:
    participants = Participants([DOWN], [MAKER])
    registration = await Registry(Store(), participants).register(definition())
    assert registration.created
    assert participants.fetched == 2


async def test_a_participant_that_stays_away_is_a_problem() -> None:
    participants = Participants([DOWN])
    with pytest.raises(DefinitionRefused) as refused:
        await Registry(Store(), participants).register(definition())
    assert {problem.reason for problem in refused.value.problems} == {"PARTICIPANT_UNREACHABLE"}
    assert participants.fetched == 2


async def test_participants_are_not_asked_again_for_the_author_s_mistakes() -> None:
    participants = Participants([MAKER])
    with pytest.raises(DefinitionRefused):
        await Registry(Store(), participants).validate(definition(build="x: 1"))
    assert participants.fetched == 1


async def test_a_restart_needs_no_participant() -> None:
    store = Store()
    registered = (await Registry(store, Participants([MAKER])).register(definition())).version
    restarted = Registry(store, NOBODY)
    for found in (await restarted.newest("make"), await restarted.load(registered.hash)):
        assert found is not None
        assert found.definition.hash == found.hash == registered.hash
        assert found.definition.steps[0].build(b"\x0a\x01x", {}) == b"\x0a\x01x"
    assert [found.name for found in await restarted.list()] == ["make"]


async def test_a_changed_contract_makes_a_new_version_and_leaves_the_old_one_as_it_was() -> None:
    store = Store()
    old = (await Registry(store, Participants([MAKER])).register(definition())).version
    registry = Registry(store, Participants([NEW_MAKER]))
    new = (await registry.register(definition())).version
    assert old.hash != new.hash
    loaded = await registry.load(old.hash)
    assert loaded is not None
    assert loaded.definition.steps[0].build(b"\x0a\x01x", {}) == b"\x0a\x01x"
    assert new.definition.steps[0].build(b"\x2a\x01x", {}) == b"\x2a\x01x"


async def test_what_another_coordinator_registered_is_the_newest_at_once() -> None:
    store = Store()
    here, there = (Registry(store, Participants([MAKER])) for _ in range(2))
    first = (await here.register(definition())).version
    assert await newest_hash(here) == first.hash
    second = (await there.register(definition(build="b: input.a"))).version
    assert await newest_hash(here) == second.hash
    await there.register(definition())
    assert await newest_hash(here) == first.hash


async def test_what_was_asked_for_is_at_hand_for_a_while() -> None:
    store = Store()
    registry = Registry(store, Participants([MAKER]))
    version = (await registry.register(definition())).version
    assert registry.at_hand("make") is None
    assert registry.at_hand("make", version.hash) is version
    assert await registry.newest("make") is registry.at_hand("make") is version
    await asyncio.sleep(GOOD_FOR_SECONDS)
    assert registry.at_hand("make") is None
    assert registry.at_hand("make", version.hash) is version
    assert registry.at_hand("unheard-of") is None


async def test_while_starts_come_none_has_to_wait_for_the_store() -> None:
    store = Store()
    registry = Registry(store, Participants([MAKER]))
    version = (await registry.register(definition())).version
    await registry.newest("make")
    until = asyncio.get_running_loop().time() + 3 * GOOD_FOR_SECONDS
    while asyncio.get_running_loop().time() < until:
        assert registry.at_hand("make") is version
        await asyncio.sleep(0.01)
    assert 3 <= store.asked.count("make") - 1 <= 8


async def test_a_store_that_does_not_answer_ahead_is_asked_again_by_whoever_starts_next() -> None:
    store = Store()
    registry = Registry(store, Participants([MAKER]))
    await registry.register(definition())
    await registry.newest("make")
    store.fails = True
    until = asyncio.get_running_loop().time() + 2 * GOOD_FOR_SECONDS
    while registry.at_hand("make") is not None:
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.01)
    with pytest.raises(JournalUnavailable):
        await registry.newest("make")
    store.fails = False
    assert await registry.newest("make") is registry.at_hand("make") is not None


async def test_once_a_version_is_registered_nobody_has_an_older_one_at_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    here, there = (Registry(store, Participants([MAKER])) for _ in range(2))
    old = (await there.register(definition())).version
    save = store.save_definition

    async def save_what_is_asked_for_just_before(
        *, name: str, content_hash: str, source: str, descriptors: bytes
    ) -> tuple[StoredDefinition, bool]:
        assert await newest_hash(here) == old.hash
        return await save(
            name=name, content_hash=content_hash, source=source, descriptors=descriptors
        )

    monkeypatch.setattr(store, "save_definition", save_what_is_asked_for_just_before)
    await there.register(definition(build="b: input.a"))
    assert here.at_hand("make") is None


async def test_what_is_not_there_is_none() -> None:
    registry = Registry(Store(), NOBODY)
    assert await registry.newest("make") is None
    assert await registry.load("0" * 64) is None
    assert await registry.list() == []


async def test_a_version_is_compiled_once() -> None:
    store = Store()
    content_hash = (
        await Registry(store, Participants([MAKER])).register(definition())
    ).version.hash
    registry = Registry(store, NOBODY)
    found = await asyncio.gather(*(registry.load(content_hash) for _ in range(5)))
    assert all(version is found[0] for version in found)
    assert await registry.newest("make") is found[0]


async def test_only_the_versions_that_were_used_last_stay_compiled() -> None:
    store = Store()
    registry = Registry(store, Participants([MAKER]))
    hashes = [
        (await registry.register(definition(f"make-{number}"))).version.hash
        for number in range(MAX_COMPILED)
    ]
    await registry.load(hashes[0])
    await registry.register(definition("one-more"))
    store.asked.clear()
    await registry.load(hashes[0])
    assert store.asked == []
    await registry.load(hashes[1])
    assert store.asked == [hashes[1]]


async def test_lists_are_paged_by_name() -> None:
    registry = Registry(Store(), Participants([MAKER]))
    for name in ("c", "a", "b"):
        await registry.register(definition(name))
    assert [version.name for version in await registry.list(limit=2)] == ["a", "b"]
    assert [version.name for version in await registry.list(after="b")] == ["c"]


async def test_a_stored_definition_that_this_release_refuses_is_told_as_such() -> None:
    store = Store()
    await store.save_definition(
        name="make", content_hash="0", source=definition(build="x: 1"), descriptors=b""
    )
    with pytest.raises(DefinitionRefused):
        await Registry(store, NOBODY).newest("make")


async def test_those_who_ask_together_are_answered_by_one_question() -> None:
    store = Store()
    registry = Registry(store, Participants([MAKER]))
    await registry.register(definition())
    newer = await a_version_in(store, definition(build="b: input.a"))
    store.asked.clear()
    store.answer.clear()
    first = asyncio.create_task(registry.newest("make"))
    while store.asked != ["make"]:
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(registry.newest("make")) for _ in range(10)]
    waiting[0].cancel()
    store.stored[newer.hash] = newer
    store.answer.set()
    answers = await asyncio.gather(first, *waiting[1:])
    assert store.asked == ["make", "make"]
    assert [version.hash for version in answers[1:] if version] == [newer.hash] * 9


async def test_registered_types_are_found_newest_first_and_then_our_own() -> None:
    store = Store()
    await Registry(store, Participants([MAKER])).register(definition("older"))
    await Registry(store, Participants([NEW_MAKER])).register(definition("newer"))
    lookup = await Registry(store, NOBODY).descriptors()
    message = lookup.FindMessageTypeByName("t.v1.MakeRequest")
    assert message.fields_by_name["a"].number == 5
    assert lookup.FindFileContainingSymbol("t.v1.Make").name == "make.proto"
    assert lookup.FindFileByName("make.proto").package == "t.v1"
    assert lookup.FindFileContainingSymbol("saga.v1.SagaService").package == "saga.v1"
    assert lookup.FindAllExtensions(message) == []
    with pytest.raises(KeyError):
        lookup.FindExtensionByNumber(message, 1)
    with pytest.raises(KeyError):
        lookup.FindFileByName("nope.proto")

"""The contract of `Reader`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import product

import pytest
from msgspec.structs import replace

from coordinator.core.model import SagaState
from coordinator.journal.base import InvalidQuery, JournalUnavailable, Parking, Standing, StoredSaga
from coordinator.journal.limits import MAX_LIMIT, MAX_REVISION, MAX_TIME_MS
from tests.contract.journal.harness import Instance, Rig, begun, finished, ids
from tests.contract.journal.test_inbox import verb


async def listed(
    instance: Instance,
    *,
    definition: str = "",
    states: frozenset[SagaState] = frozenset(),
    keys: Mapping[str, str] | None = None,
    before: tuple[int, str] | None = None,
    limit: int = 100,
) -> list[StoredSaga]:
    return list(
        await instance.journal.list_sagas(
            definition=definition, states=states, keys=keys or {}, before=before, limit=limit
        )
    )


async def test_what_is_not_there_is_none(mine: Instance) -> None:
    assert await mine.journal.load("s1") is None
    assert await mine.journal.entries("s1", 0, 10) == []
    assert await listed(mine) == []


async def test_entries_come_in_pages_oldest_first(mine: Instance) -> None:
    appends = finished("s1")
    await mine.tell(*appends, begun("s2").append)
    events = [append.event for append in appends]

    async def page(after: int, limit: int) -> list[object]:
        return [entry.event for entry in await mine.journal.entries("s1", after, limit)]

    assert await page(0, 2) == events[:2]
    assert await page(2, 2) == events[2:]
    assert await page(3, 2) == []


async def test_sagas_are_listed_newest_first_without_entries_page_by_page(mine: Instance) -> None:
    for saga_id, at_ms in (("c", 10), ("B", 20), ("a", 20), ("d", 30)):
        await mine.tell(*finished(saga_id, at_ms=at_ms, order_id=saga_id))
    first = await listed(mine, limit=2)
    assert ids(first) == ["d", "a"]
    second = await listed(mine, before=(first[-1].created_ms, first[-1].saga_id), limit=2)
    assert ids(second) == ["B", "c"]
    assert await listed(mine, before=(10, "c")) == []
    loaded = await mine.journal.load("d")
    assert loaded is not None
    assert first[0] == replace(loaded, entries=())


async def test_lists_are_narrowed_by_definition_state_and_keys(mine: Instance) -> None:
    other_story = begun("other").append
    definition = replace(other_story.saga.definition, name="other-story")
    await mine.tell(
        replace(other_story, saga=replace(other_story.saga, definition=definition)),
        begun("running", at_ms=1, order_id="o1", customer_id="ann").append,
        *finished("done", at_ms=2, order_id="o2", customer_id="ann"),
    )
    completed, stuck = frozenset({SagaState.COMPLETED}), frozenset({SagaState.STUCK})
    running = frozenset({SagaState.RUNNING})
    assert ids(await listed(mine, definition="other-story")) == ["other"]
    assert ids(await listed(mine, definition="story")) == ["done", "running"]
    assert ids(await listed(mine, definition="nobody's")) == []
    assert ids(await listed(mine, states=completed)) == ["done"]
    assert ids(await listed(mine, states=running, definition="story")) == ["running"]
    assert ids(await listed(mine, states=running | stuck)) == ["other", "running"]
    assert ids(await listed(mine, states=completed | stuck)) == ["done"]
    assert ids(await listed(mine, keys={"customer_id": "ann"})) == ["done", "running"]
    assert ids(await listed(mine, keys={"customer_id": "ann", "order_id": "o1"})) == ["running"]
    assert ids(await listed(mine, keys={"customer_id": "an"})) == []


async def test_where_many_sagas_are_is_told_at_once(mine: Instance) -> None:
    await mine.tell(begun("running").append, *finished("done"))
    asked = ["done", "nobody", "running", "done"]
    assert await mine.journal.standings(asked) == {
        "done": Standing("story-1", SagaState.COMPLETED),
        "running": Standing("story-1", SagaState.RUNNING, mine.lease.instance_id),
    }
    assert await mine.journal.standings([]) == {}
    assert await mine.journal.standings(["nobody"] * MAX_LIMIT) == {}
    with pytest.raises(InvalidQuery):
        await mine.journal.standings(["nobody"] * (MAX_LIMIT + 1))


async def test_the_newest_revisions_of_many_sagas_are_told_at_once(mine: Instance) -> None:
    await mine.tell(begun("running").append, *finished("done"))
    asked = ["done", "nobody", "running", "done"]
    assert await mine.journal.revisions(asked) == {"done": 3, "running": 1}
    assert await mine.journal.revisions([]) == {}
    with pytest.raises(InvalidQuery):
        await mine.journal.revisions(["nobody"] * (MAX_LIMIT + 1))


async def test_a_history_that_cannot_be_read_is_still_listed(rig: Rig, mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    await rig.damage("s1")
    assert ids(await listed(mine)) == ["s1"]


async def test_a_saga_has_no_owner_once_its_lease_is_over(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.release_lease(mine.lease)
    assert await mine.journal.standings(["s1"]) == {"s1": Standing("story-1", SagaState.RUNNING)}


async def test_a_page_of_no_sensible_size_is_refused(mine: Instance) -> None:
    journal = mine.journal
    asked: list[Callable[[int], Awaitable[object]]] = [
        lambda limit: journal.entries("s1", 0, limit),
        lambda limit: listed(mine, limit=limit),
        lambda limit: journal.list_definitions(after="", limit=limit),
        lambda limit: journal.claim(mine.lease, limit),
        lambda limit: journal.purge(finished_for_ms=0, limit=limit),
    ]
    for ask, limit in product(asked, [0, -1, MAX_LIMIT + 1, 2**70]):
        with pytest.raises(InvalidQuery):
            await ask(limit)


async def test_a_page_at_no_sensible_place_is_refused(mine: Instance) -> None:
    for revision in (-1, MAX_REVISION + 1):
        with pytest.raises(InvalidQuery):
            await mine.journal.entries("s1", revision, 10)
    for before in ((-1, "a"), (MAX_TIME_MS + 1, "a"), (0, "a\0")):
        with pytest.raises(InvalidQuery):
            await listed(mine, before=before)
    assert await mine.journal.entries("s1", MAX_REVISION, MAX_LIMIT) == []
    assert await listed(mine, before=(MAX_TIME_MS, "~")) == []


async def test_a_text_that_no_row_can_have_is_refused(mine: Instance) -> None:
    journal = mine.journal
    asked: list[Callable[[str], Awaitable[object]]] = [
        journal.load,
        lambda text: journal.entries(text, 0, 10),
        lambda text: listed(mine, definition=text),
        lambda text: listed(mine, keys={text: "a"}),
        lambda text: listed(mine, keys={"a": text}),
        journal.verb_outcome,
        lambda text: journal.post_verb(verb(text)),
        lambda text: journal.post_verb(verb("v1", text)),
        lambda text: journal.refuse_verb(text, "no"),
        lambda text: journal.reload(mine.lease, text),
        lambda text: journal.acquit(mine.lease, ["s1", text]),
        lambda text: journal.park(mine.lease, [Parking(text, 1, 0)]),
        lambda text: journal.standings(["s1", text]),
        lambda text: journal.revisions(["s1", text]),
        journal.load_definition,
        journal.newest_definition,
        lambda text: journal.list_definitions(after=text, limit=10),
        lambda text: journal.save_definition(
            name=text, content_hash="h", source="", descriptors=b""
        ),
    ]
    for ask, text in product(asked, ["a\0b", "a\ud800b"]):
        with pytest.raises(InvalidQuery):
            await ask(text)


async def test_everything_but_appending_says_when_the_store_is_away(mine: Instance) -> None:
    journal, lease = mine.journal, mine.lease
    mine.link.cut()
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: journal.load("s1"),
        lambda: journal.entries("s1", 0, 10),
        lambda: listed(mine),
        lambda: journal.verb_outcome("v1"),
        lambda: journal.post_verb(verb("v1")),
        lambda: journal.acquire_lease("mine", 1_000),
        lambda: journal.renew_lease(lease, 1_000),
        lambda: journal.release_lease(lease),
        lambda: journal.claim(lease, 10),
        lambda: journal.reload(lease, "s1"),
        lambda: journal.acquit(lease, ["s1"]),
        lambda: journal.park(lease, [Parking("s1", 1, 0)]),
        lambda: journal.standings(["s1"]),
        lambda: journal.revisions(["s1"]),
        lambda: journal.purge(finished_for_ms=0, limit=10),
        lambda: journal.pending_verbs(lease),
        lambda: journal.refuse_verb("v1", "no"),
        lambda: journal.load_definition("h"),
        lambda: journal.newest_definition("story"),
        lambda: journal.list_definitions(after="", limit=10),
        lambda: journal.save_definition(name="story", content_hash="h", source="", descriptors=b""),
    ]
    for ask in asked:
        with pytest.raises(JournalUnavailable):
            await ask()
    assert not journal.available
    mine.link.mend()
    await journal.renew_lease(lease, 60_000)
    assert journal.available
    assert await journal.load("s1") is None

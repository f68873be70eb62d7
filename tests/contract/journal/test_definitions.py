"""The contract of `DefinitionStore`."""

from __future__ import annotations

from coordinator.journal.definition_store import StoredDefinition
from tests.contract.journal.harness import Instance


async def save(instance: Instance, name: str, content_hash: str) -> tuple[StoredDefinition, bool]:
    return await instance.journal.save_definition(
        name=name, content_hash=content_hash, source=f"name: {name}", descriptors=b"\x0a\x00"
    )


async def test_a_definition_is_kept_as_it_was_saved(mine: Instance, other: Instance) -> None:
    saved, new = await save(mine, "story", "h1")
    assert new
    assert (saved.name, saved.hash, saved.source) == ("story", "h1", "name: story")
    assert saved.descriptors == b"\x0a\x00"
    assert abs(saved.created_ms - mine.lease.now_ms) < 60_000
    assert await other.journal.load_definition("h1") == saved
    assert await other.journal.load_definition("h2") is None


async def test_the_same_version_again_is_not_new_and_changes_nothing(mine: Instance) -> None:
    first, _ = await save(mine, "story", "h1")
    second, new = await save(mine, "story", "h1")
    assert not new
    assert second == first


async def test_the_version_saved_last_is_the_newest_also_when_it_is_an_old_one(
    mine: Instance,
) -> None:
    assert await mine.journal.newest_definition("story") is None
    first, _ = await save(mine, "story", "h1")
    second, _ = await save(mine, "story", "h2")
    await save(mine, "another", "h3")
    assert await mine.journal.newest_definition("story") == second
    await save(mine, "story", "h1")
    assert await mine.journal.newest_definition("story") == first


async def test_the_newest_versions_are_listed_by_name(mine: Instance) -> None:
    for name, content_hash in (("b", "b1"), ("a", "a1"), ("b", "b2"), ("C", "c1")):
        await save(mine, name, content_hash)

    async def page(after: str, limit: int) -> list[str]:
        found = await mine.journal.list_definitions(after=after, limit=limit)
        return [definition.hash for definition in found]

    assert await page("", 2) == ["c1", "a1"]
    assert await page("a", 2) == ["b2"]
    assert await page("b", 2) == []

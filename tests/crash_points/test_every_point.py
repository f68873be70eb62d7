"""A coordinator is killed at every moment of a saga; the next one brings it to the same end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.core.model import SagaState
from coordinator.settings import SHIPPED_DEFINITIONS
from local.books import read_stock
from local.mesh import Mesh
from local.ports import Ports
from local.shop import open_shop
from tests.crash_points.books import read_effects, read_states
from tests.crash_points.stories import ALL_DONE, PRODUCT, QUANTITY, STORIES, Story
from tests.crash_points.walk import Walk

FIRST_STOCK = 10_000
TAKING_OVER = ("before LEASE", "after LEASE", "before CLAIM", "after CLAIM")

WALKED = [
    pytest.param(story, marks=[pytest.mark.slow] if story.slow else [], id=story.name)
    for story in STORIES
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(new_folder: Callable[[], Path]) -> AsyncIterator[Mesh]:
    """The whole mesh, but for its coordinator: the dying ones take its place."""
    async with Mesh(new_folder(), Ports.free()) as mesh:
        async with open_shop(mesh.address) as shop:
            await shop.stock_up({PRODUCT: FIRST_STOCK})
        await mesh.services["coordinator"].stop()
        yield mesh


async def check(mesh: Mesh, orders: dict[str, str], *, ends: SagaState) -> None:
    """Every order ended as it should, or was never heard of, and its effects say the same."""
    states, effects = await read_states(mesh), await read_effects(mesh)
    for moment, order_id in orders.items():
        state = states.get(order_id)
        if moment == "before STARTED":
            assert state is None
            assert effects[order_id].all_gone
            continue
        assert state == ends.value, moment
        found = effects[order_id]
        assert found.all_there if ends is SagaState.COMPLETED else found.all_gone, (moment, found)
    sold = QUANTITY * sum(state == SagaState.COMPLETED.value for state in states.values())
    stock = (await read_stock(mesh, [PRODUCT]))[PRODUCT]
    assert (stock.available, stock.reserved) == (FIRST_STOCK - sold, sold)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", WALKED)
async def test_a_saga_survives_the_death_of_its_coordinator_at_every_moment(
    mesh: Mesh, story: Story
) -> None:
    walk = Walk(mesh, story)
    assert await walk.record() == story.moments
    orders = await walk.die_at(story.moments)
    assert len(orders) == len(story.moments)
    await check(mesh, orders, ends=story.ends)


async def test_a_coordinator_that_dies_while_it_takes_over_is_taken_over(mesh: Mesh) -> None:
    orders = await Walk(mesh, ALL_DONE).die_taking_over("after DO charge_payment", TAKING_OVER)
    await check(mesh, orders, ends=SagaState.COMPLETED)


def test_every_definition_that_is_shipped_has_its_stories() -> None:
    shipped = {path.stem for path in SHIPPED_DEFINITIONS.glob("*.yaml")}
    assert shipped == {story.definition for story in STORIES}

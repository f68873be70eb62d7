"""`make demo`: five orders on a mesh of their own, and what became of each, from the stores."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import aclosing
from pathlib import Path

from local.books import read_books, read_stock
from local.checks import all_done, all_undone, ended
from local.mesh import Mesh
from local.ports import Ports
from local.scenarios import SCENARIOS, Scenario
from local.screen import Screen
from local.shop import CATALOGUE, FIRST_STOCK, Shop, open_shop

_LONGEST_SECONDS = 90


async def demo(screen: Screen) -> bool:
    """Play all scenarios; True when every promise held. A failed run's folder is kept."""
    folder = Path(tempfile.mkdtemp(prefix="saga-demo-"))
    screen.say("Starting PostgreSQL, MongoDB, the payment sandbox and five services ...")
    try:
        async with Mesh(folder, Ports.free()) as mesh, open_shop(mesh.address) as shop:
            await shop.stock_up(FIRST_STOCK)
            held = [await play(scenario, mesh, shop, screen) for scenario in SCENARIOS]
    except asyncio.CancelledError:
        shutil.rmtree(folder)
        raise
    if all(held):
        screen.say("\nEvery promise held.")
        shutil.rmtree(folder)
    else:
        screen.say(f"\n{held.count(False)} of {len(held)} promises broken; see {folder / 'logs'}")
    return all(held)


async def play(scenario: Scenario, mesh: Mesh, shop: Shop, screen: Screen) -> bool:
    """Place one order, show its saga, and read the stores; True when its promise held."""
    screen.headline(scenario.title, scenario.promise)
    before = await read_stock(mesh, CATALOGUE)
    await scenario.before(mesh, screen.say)
    placed = await shop.place(scenario.cart, scenario.card)
    state = await _follow(scenario, mesh, shop, screen, placed.saga_id)
    order = await shop.order(placed.order_id)
    books = await read_books(mesh, placed.order_id, placed.saga_id, CATALOGUE)
    findings = [
        ended(state, order.failure_reason, scenario.reason),
        *(all_undone(before, books) if scenario.reason else all_done(scenario.cart, before, books)),
    ]
    screen.findings(findings)
    return all(finding.holds for finding in findings)


async def _follow(scenario: Scenario, mesh: Mesh, shop: Shop, screen: Screen, saga_id: str) -> str:
    """Show the saga while the scenario takes its course; returns its last state."""
    state = "UNKNOWN"
    steps = [step.name for step in (await shop.saga(saga_id)).steps]
    try:
        async with (
            asyncio.timeout(_LONGEST_SECONDS),
            aclosing(shop.watch(saga_id)) as events,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(scenario.meanwhile(mesh, screen.say))
            state = (await screen.follow(steps, events)).state
    except* TimeoutError as late:
        screen.say(f"  gave up waiting: {late.exceptions[0] or f'{_LONGEST_SECONDS} s are over'}")
    return state

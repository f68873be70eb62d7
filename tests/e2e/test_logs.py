"""What the processes of the mesh write down, and what they must not."""

from __future__ import annotations

import json

from local.mesh import Mesh
from local.scenarios import DECLINED, VISA
from local.shop import Shop


async def test_no_log_carries_a_card(mesh: Mesh, shop: Shop) -> None:
    for card in (VISA, DECLINED):
        placed = await shop.place({"coffee": 1}, card)
        async for _ in shop.watch(placed.saga_id):
            pass
    logs = sorted(mesh.folder.rglob("*.log"))
    assert len(logs) >= 8
    lines = ((log.name, line) for log in logs for line in log.read_text().splitlines())
    assert [(name, line) for name, line in lines if "pm_card" in line] == []


async def test_the_coordinator_logs_the_end_of_a_saga_with_its_trace(
    mesh: Mesh, shop: Shop
) -> None:
    placed = await shop.place({"coffee": 1}, DECLINED)
    async for _ in shop.watch(placed.saga_id):
        pass
    lines = (mesh.folder / "logs/coordinator.log").read_text().splitlines()
    records = [json.loads(line) for line in lines if placed.saga_id in line]
    assert records
    assert all(len(record["trace_id"]) == 32 for record in records)

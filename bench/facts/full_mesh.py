"""place-order on the whole mesh, by `bench.full_mesh`'s load: five steps over four services."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from bench.load import Load
from bench.orders_load import PRODUCTS
from bench.scenarios import Outcome, take
from bench.sides import STATES
from bench.world import count
from local.mesh import Mesh
from local.ports import Ports
from local.shop import open_shop

_LOAD = Load(in_flight=64, warm_s=2, window_s=4)
_ENOUGH = 1_000_000


class Orders:
    """A side: the mesh, asked over one StartSagas stream, or as a `shop` asks it."""

    name = "mesh"

    def __init__(self, mesh: Mesh, *, lines: int = 1, shop: bool = False) -> None:
        self._mesh = mesh
        self._flags = [f"--lines={lines}", *(["--shop"] if shop else [])]

    def command(self, load: Load) -> Sequence[str]:
        """See `bench.load.Side`."""
        address = self._mesh.address
        flags = [f"--coordinator={address('coordinator')}", f"--order={address('order')}"]
        flags += [f"--in-flight={load.in_flight}", *self._flags]
        flags += [f"--warm={load.warm_s}", f"--for={load.window_s}"]
        return [sys.executable, "-m", "bench.orders_load", *flags]

    def processes(self) -> Mapping[str, int]:
        """See `bench.load.Side`."""
        mesh = self._mesh
        services = [*mesh.services.values(), mesh.sandbox, mesh.mongodb, mesh.postgres]
        return {process.name: process.pid for process in services if process.pid}

    async def finished(self) -> Mapping[str, int]:
        """See `bench.load.Side`."""
        return await count(self._mesh.dsn("coordinator"), STATES)


async def stock_up(mesh: Mesh) -> None:
    """Put enough of everything there for any load."""
    async with open_shop(mesh.address) as shop:
        await shop.stock_up(dict.fromkeys(PRODUCTS, _ENOUGH))


async def measure(folder: Path, rounds: int) -> AsyncIterator[Outcome]:
    """So many windows, one after the other."""
    async with Mesh(folder, Ports.free()) as mesh:
        await stock_up(mesh)
        for _ in range(rounds):
            window = await take(Orders(mesh), _LOAD)
            yield Outcome(
                scenario="full-mesh", side="mesh", in_flight=_LOAD.in_flight, window=window
            )

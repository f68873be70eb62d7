"""One run: a mesh with two coordinators, orders and faults for a while, then peace, then the books.

A run ends when no saga is unfinished and nothing that was promised is outstanding, or when the
patience for that is at its end; what is unfinished then is a violation.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import psycopg

from local.mesh import Mesh
from local.ports import Ports
from local.shop import Shop, open_shop
from local.until import until
from tests.chaos.aftermath import reconcile, ship
from tests.chaos.customers import Customers
from tests.chaos.faults import Injector, Supervisor
from tests.chaos.links import Links
from tests.chaos.plans import FIRST_STOCK, plans
from tests.chaos.records import History, Record, Run
from tests.chaos.recovery import Recoveries
from tests.chaos.schedule import Fault, FaultKind, schedule
from tests.chaos.stores import read_stores, rows

_COORDINATORS = 2
_SETTLE_SECONDS = 150.0
_LEASE_SECONDS = 3.0


class Chaos:
    """A running mesh, its customers and its faults."""

    def __init__(self, run: Run, mesh: Mesh, links: Links, shops: dict[str, Shop]) -> None:
        self.run = run
        self.mesh = mesh
        victims = (*mesh.processes, *mesh.coordinators)  # these are what it is most about
        self.faults = schedule(run.seed, run.seconds, processes=victims, links=links.names)
        self.under: set[Fault] = set()
        """The faults of this moment."""
        self.customers = Customers(shops, self.now)
        self.recoveries = Recoveries(mesh, self.now)
        self.supervisor = Supervisor(mesh.processes, self.now)
        self._injector = Injector(mesh, links, self.supervisor)
        self._began = time.monotonic()
        self._patient: set[asyncio.Task[None]] = set()
        """Customers that are not done yet."""

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    async def rage(self, watch: Watch) -> None:
        """Orders and faults until the time is over, then peace until everything has ended."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self.supervisor.run()), tasks.create_task(watch(self))]
            suffering = [tasks.create_task(self._suffer(fault)) for fault in self.faults]
            await self._sell(tasks)
            await asyncio.wait(suffering)
            await until(self._settled, seconds=_SETTLE_SECONDS)
            for task in (*background, *self._patient):
                task.cancel()

    async def _sell(self, tasks: asyncio.TaskGroup) -> None:
        run = f"chaos-{self.run.seed}"
        for plan in plans(
            self.run.seed, self.run.rate, run=run, coordinators=self.mesh.coordinators
        ):
            if plan.at > self.run.seconds:
                return
            await asyncio.sleep(plan.at - self.now())
            task = tasks.create_task(self.customers.order(plan))
            self._patient.add(task)
            task.add_done_callback(self._patient.discard)

    async def _suffer(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at - self.now())
        self.under.add(fault)
        await self._injector.begin(fault)
        async with asyncio.TaskGroup() as tasks:
            if _is_fall(fault) and fault.target in self.mesh.coordinators:
                tasks.create_task(self.recoveries.measure(fault))
            await asyncio.sleep(fault.until - self.now())
            await self._injector.end(fault)
            self.under.discard(fault)

    async def _settled(self) -> bool:
        """Whether all is up, every customer is done, and every promise was turned into an end."""
        ready = [await process.is_ready() for process in self.mesh.processes.values()]
        if self._patient or not all(ready):
            return False
        owed = "select from placement where start_time is null"
        with suppress(psycopg.OperationalError):
            open_sagas = await rows(self.mesh.dsn("coordinator"), _UNFINISHED)
            return not open_sagas and not await rows(self.mesh.dsn("order"), owed)
        return False


def _is_fall(fault: Fault) -> bool:
    """Whether a coordinator loses its sagas by it; a pause shorter than its lease costs none."""
    if fault.kind is FaultKind.PAUSE:
        return fault.until - fault.at > _LEASE_SECONDS
    return fault.kind is FaultKind.KILL


_UNFINISHED = "select saga_id from saga.saga where finish_time is null"
Watch = Callable[[Chaos], Coroutine[object, object, None]]


async def perform(run: Run, folder: Path, watch: Watch) -> History:
    """Start a mesh in `folder`, shake it, and return what became of everything.

    `watch` runs beside it until it has settled.

    Raises:
        StartFailed, PortTaken, FolderTaken: the mesh did not start.
    """
    async with _mesh(run, folder) as (mesh, links), _shops(mesh) as shops:
        await next(iter(shops.values())).stock_up(run.stock)
        chaos = Chaos(run, mesh, links, shops)
        await chaos.rage(watch)
        stored = await read_stores(mesh)
        shop = next(iter(shops.values()))
        records: list[Record] = [
            run,
            *chaos.faults,
            *chaos.customers.calls,
            *chaos.customers.told,
            *chaos.supervisor.exits,
            *chaos.recoveries.measured,
            *stored,
            *await ship(mesh, shop, stored),
            *await reconcile(shop),
        ]
    return History(tuple(records))


def first_run(*, seed: int, seconds: float, rate: float) -> Run:
    """A run with the stock that the orders are planned for."""
    return Run(seed=seed, seconds=seconds, rate=rate, stock=FIRST_STOCK)


@asynccontextmanager
async def _mesh(run: Run, folder: Path) -> AsyncIterator[tuple[Mesh, Links]]:
    links = Links(random.Random(f"links {run.seed}").random)
    mesh = Mesh(
        folder,
        Ports.free(),
        coordinators=_COORDINATORS,
        lease_seconds=_LEASE_SECONDS,
        route=links.route,
    )
    async with links, mesh:
        yield mesh, links


@asynccontextmanager
async def _shops(mesh: Mesh) -> AsyncIterator[dict[str, Shop]]:
    """The public API by each coordinator."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(open_shop(_addresses(mesh, name)))
            for name in mesh.coordinators
        }


def _addresses(mesh: Mesh, coordinator: str) -> Callable[[str], str]:
    return lambda name: mesh.address(coordinator if name == "coordinator" else name)

"""The whole mesh placing orders: real databases, barriers and the payment sandbox, all on this box.

    python -m bench.full_mesh                      # StartSagas, 64 in flight
    python -m bench.full_mesh --shop               # PlaceOrder and WatchSaga, as a shop would
    python -m bench.full_mesh --hold               # until Enter: attach a profiler to the pids

Prints sagas a second, latencies, and what a saga costs every process in CPU time. What the load was
told is compared with the coordinator's disk. Orders are not asked of a peer: no peer has a shop.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.facts.full_mesh import Orders, stock_up
from bench.load import Load
from bench.scenarios import take
from bench.window import Window
from local.mesh import Mesh
from local.ports import Ports


def _show(windows: Sequence[Window], console: Console) -> None:
    table = Table("", *(f"round {number}" for number in range(1, len(windows) + 1)), "least")
    for name in ("per_second", "p50_ms", "p99_ms"):
        table.add_row(name, *(f"{getattr(window.report, name):.1f}" for window in windows), "")
    table.add_row("foreign cores", *(f"{window.foreign_cores:.2f}" for window in windows), "")
    table.add_section()
    for name in windows[0].cpu_us:
        spent = [window.cpu_us[name] for window in windows]
        cells = (f"{us:.0f}" for us in spent)
        table.add_row(f"{name}, CPU us a saga", *cells, f"{min(spent):.0f}")
    sums = [sum(window.cpu_us.values()) for window in windows]
    table.add_row("together", *(f"{us:.0f}" for us in sums), f"{min(sums):.0f}")
    console.print(table)


async def _main(told: argparse.Namespace) -> None:
    console = Console()
    load = Load(in_flight=told.in_flight, warm_s=told.warm, window_s=told.seconds)
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        async with Mesh(Path(folder), Ports.free()) as mesh:
            orders = Orders(mesh, lines=told.lines, shop=told.shop)
            await stock_up(mesh)
            if told.hold:
                console.print(dict(orders.processes()), " ".join(orders.command(load)))
                await asyncio.to_thread(input)
            _show([await take(orders, load) for _ in range(told.rounds)], console)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--shop", action="store_true", help="by PlaceOrder instead of StartSagas")
    flags.add_argument("--in-flight", type=int, default=64)
    flags.add_argument("--lines", type=int, default=1, help="products of an order")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--warm", type=float, default=1, help="seconds")
    flags.add_argument("--seconds", type=float, default=4, help="of each window")
    flags.add_argument("--hold", action="store_true", help="wait for Enter before the first round")
    asyncio.run(_main(flags.parse_args()))

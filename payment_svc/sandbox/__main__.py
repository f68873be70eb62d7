"""`python -m payment_svc.sandbox`: serves until SIGTERM; `--help` lists the settings."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time

from aiohttp import web
from pydantic_settings import CliApp

from payment_svc.sandbox.app import build
from payment_svc.sandbox.desk import Desk
from payment_svc.sandbox.ledger import Ledger
from payment_svc.sandbox.operations import Operations
from payment_svc.sandbox.settings import SandboxSettings
from payment_svc.sandbox.switches import SwitchBoard


async def main(settings: SandboxSettings) -> None:
    """Open the ledger and serve it."""
    settings.ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(settings.ledger)
    # Repeatable faults, no secrets.
    chance = random.Random(settings.seed).random  # noqa: S311
    desk = Desk(Operations(ledger), SwitchBoard(settings.switches, chance), time.time)
    runner = web.AppRunner(build(desk), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
    host, port = runner.addresses[0][:2]
    sys.stdout.write(f"payment sandbox ready on http://{host}:{port}\n")
    sys.stdout.flush()
    try:
        await _terminated()
    finally:
        await runner.cleanup()
        ledger.close()


async def _terminated() -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(CliApp.run(SandboxSettings)))

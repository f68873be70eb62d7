"""`python -m payment_svc.sandbox`: serves until SIGTERM; `--help` lists the settings."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time

import uvicorn
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
    listener = socket.create_server((settings.host, settings.port), backlog=1024)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"payment sandbox ready on http://{host}:{port}\n")
    sys.stdout.flush()
    # Dropped connections are our doing; uvicorn would log each as an error.
    config = uvicorn.Config(build(desk), log_level="critical", lifespan="off")
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        desk.close()
        ledger.close()


if __name__ == "__main__":
    asyncio.run(main(CliApp.run(SandboxSettings)))

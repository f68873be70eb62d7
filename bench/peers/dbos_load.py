"""A load on DBOS: a workflow of four steps, each a gRPC call; runs in the venv of the peers.

DBOS is a library: the workflows run in this process, and their progress is in its PostgreSQL.
"""

from __future__ import annotations

import asyncio
import os

import grpc.aio
import loop
from dbos import DBOS

told = loop.options(__doc__)
calls: list[grpc.aio.UnaryUnaryMultiCallable] = []


@DBOS.step()
async def do(number: int) -> None:
    """One step."""
    await calls[number](b"")


@DBOS.workflow()
async def saga() -> None:
    """All steps, one after the other."""
    for number in range(len(calls)):
        await do(number)


async def one() -> None:
    """Start a saga and wait for its end."""
    await (await DBOS.start_workflow_async(saga)).get_result()


async def main() -> None:
    """Run the load."""
    async with grpc.aio.insecure_channel(told.participant) as channel:
        calls.extend(channel.unary_unary(f"/{step}/Do") for step in told.steps)
        DBOS.launch()
        await loop.run(one, told)
        DBOS.destroy()


DBOS(config={"name": "bench", "system_database_url": told.peer, "log_level": "ERROR"})
asyncio.run(main())
os._exit(0)  # all is told, and grpc may crash on its way out

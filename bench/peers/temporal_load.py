"""A load on Temporal: a workflow of four activities, each a gRPC call; runs in the peers' venv.

The worker that executes workflows and activities is in this process; what they did is in the
development server.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import grpc.aio
    import loop

_QUEUE = "bench"


@workflow.defn
class Saga:
    """All steps, one after the other."""

    @workflow.run
    async def run(self, steps: list[str]) -> None:
        """Do them."""
        for step in steps:
            await workflow.execute_activity(
                "do", step, start_to_close_timeout=timedelta(seconds=30)
            )


async def main() -> None:
    """Run the load."""
    told = loop.options(__doc__)
    channel = grpc.aio.insecure_channel(told.participant)
    calls = {step: channel.unary_unary(f"/{step}/Do") for step in told.steps}

    @activity.defn(name="do")
    async def do(step: str) -> None:
        await calls[step](b"")

    client = await Client.connect(told.peer)

    async def one() -> None:
        await client.execute_workflow(Saga.run, told.steps, id=str(uuid.uuid4()), task_queue=_QUEUE)

    async with Worker(client, task_queue=_QUEUE, workflows=[Saga], activities=[do]):
        await loop.run(one, told)
    await channel.close()


if __name__ == "__main__":  # its sandbox imports this module again
    asyncio.run(main())
    os._exit(0)  # all is told, and grpc may crash on its way out

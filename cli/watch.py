"""`saga watch`: follow a saga to its end, through restarts of the coordinator.

On a terminal it is one table that changes; in a pipe one line, or one JSON object, an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import grpc
import grpc.aio
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cli.client import RECONNECT_SECONDS, TIMEOUT_SECONDS, Client, connected
from cli.output import AsJson, complain, say, table
from cli.refusal import EXIT_NOT_COMPLETED
from cli.sagas import SagaId
from cli.views import STEP_COLUMNS, event_line, heading_lines, step_row
from protos.saga.v1 import saga_pb2


def watch(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    after: Annotated[int, typer.Option(min=0, help="Only events after this revision.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Follow a saga until it has ended; exit code 0 only if it COMPLETED."""

    async def work(client: Client) -> None:
        if Console().is_terminal and not as_json:
            await _show_table(client, saga_id, after)
        else:
            await _show_lines(client, saga_id, after, as_json=as_json)
        saga = await _read(client, saga_id)
        if saga.state != saga_pb2.SAGA_STATE_COMPLETED:
            raise typer.Exit(EXIT_NOT_COMPLETED)

    connected(ctx, work)


async def _show_lines(client: Client, saga_id: str, after: int, *, as_json: bool) -> None:
    async for event in follow(client, saga_id, after):
        line = client.types.to_json(event, indent=None) if as_json else event_line(event)
        say(line)


async def _show_table(client: Client, saga_id: str, after: int) -> None:
    with Live(console=Console(), auto_refresh=False) as live:
        async for _ in follow(client, saga_id, after):
            saga = await _read(client, saga_id)
            heading = Text("\n".join(heading_lines(saga)))
            steps = table(STEP_COLUMNS, map(step_row, saga.steps))
            live.update(Group(heading, steps), refresh=True)


async def follow(client: Client, saga_id: str, after: int) -> AsyncIterator[saga_pb2.SagaEvent]:
    """The events of a saga up to the final one.

    A coordinator that has told something and is then away is waited for.
    """
    heard = False
    while True:
        request = saga_pb2.WatchSagaRequest(saga_id=saga_id, after_revision=after)
        try:
            async for answer in client.sagas.WatchSaga(request, wait_for_ready=heard):
                heard = True
                after = answer.event.revision
                yield answer.event
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or not heard:
                raise
            complain(f"the coordinator is away; watching goes on after revision {after}")
            await asyncio.sleep(RECONNECT_SECONDS)
        else:
            return


async def _read(client: Client, saga_id: str) -> saga_pb2.Saga:
    request = saga_pb2.GetSagaRequest(saga_id=saga_id)
    answer = await client.sagas.GetSaga(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
    saga: saga_pb2.Saga = answer.saga
    return saga

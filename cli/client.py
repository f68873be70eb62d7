"""One command's connection to the coordinator.

    async def work(client):
        answer = await client.call(client.sagas.GetSaga, saga_pb2.GetSagaRequest(...))

    connected(ctx, work)

What the coordinator refuses ends the command, with words on stderr and an exit code.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import grpc.aio
import typer

from cli.output import complain
from cli.reflection import Types
from cli.refusal import exit_code, refusal_text
from protos.saga.v1 import saga_pb2_grpc

TIMEOUT_SECONDS = 30.0
"""Limit of one call; registering asks every participant."""
RECONNECT_SECONDS = 1.0
"""Between two tries to reach a coordinator that was there before."""


class Client:
    """The coordinator's public API."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.sagas = saga_pb2_grpc.SagaServiceStub(channel)
        self.definitions = saga_pb2_grpc.DefinitionServiceStub(channel)
        self.types = Types(channel)


class _Paged(Protocol):
    page_token: str


class _Page(Protocol):
    next_page_token: str


RequestT = TypeVar("RequestT", bound=_Paged)
PageT = TypeVar("PageT", bound=_Page)


async def pages(call: Callable[..., Awaitable[PageT]], request: RequestT) -> AsyncIterator[PageT]:
    """Every page of a list, from the one that `request` asks for."""
    while True:
        page = await call(request, timeout=TIMEOUT_SECONDS)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def connected(ctx: typer.Context, work: Callable[[Client], Awaitable[None]]) -> None:
    """Do the work of a command; `ctx.obj` is the address.

    Raises:
        typer.Exit: the coordinator refused, or is away.
    """
    asyncio.run(_connected(ctx.obj, work))


async def _connected(address: str, work: Callable[[Client], Awaitable[None]]) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            await work(Client(channel))
        except grpc.aio.AioRpcError as error:
            complain(refusal_text(error))
            raise typer.Exit(exit_code(error)) from error

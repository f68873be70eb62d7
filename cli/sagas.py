"""Commands that start sagas and look at them."""

from __future__ import annotations

import asyncio
from typing import Annotated

import grpc.aio
import typer
from google.protobuf import any_pb2
from google.protobuf.json_format import ParseError

from cli.client import RECONNECT_SECONDS, TIMEOUT_SECONDS, Client, connected, pages
from cli.input import read_text
from cli.output import AsJson, complain, say, show_rows
from cli.reflection import UnknownType
from cli.refusal import EXIT_AWAY, EXIT_NOT_COMPLETED, exit_code
from cli.views import (
    PARTICIPANT_COLUMNS,
    SAGA_COLUMNS,
    STEP_COLUMNS,
    event_line,
    heading_lines,
    participant_row,
    saga_row,
    step_row,
)
from protos.saga.v1 import saga_pb2

SagaId = Annotated[str, typer.Argument(metavar="SAGA", help="Id of the saga.")]
Definition = Annotated[str, typer.Option(help="Only sagas of this definition.")]
States = Annotated[
    list[str] | None, typer.Option(help="Only sagas in this state, such as STUCK; repeatable.")
]
_GOING_ON = (saga_pb2.SAGA_STATE_RUNNING, saga_pb2.SAGA_STATE_COMPENSATING)
Keys = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Only sagas with this key; repeatable."),
]


def start(
    ctx: typer.Context,
    definition: Annotated[str, typer.Argument(help="Name of the definition to run.")],
    *,
    input_file: Annotated[
        typer.FileText,
        typer.Option("--input", metavar="FILE", help="Its input as JSON; - for stdin."),
    ],
    saga_id: Annotated[
        str, typer.Option("--id", help="Idempotency key; made by the coordinator when empty.")
    ] = "",
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Answer when it has ended; exit code 0 only if it COMPLETED."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a saga; once this answers, it survives any crash."""
    text = read_text(input_file)

    async def work(client: Client) -> None:
        request = saga_pb2.StartSagaRequest(
            saga_id=saga_id, definition=definition, input=await _pack(client, definition, text)
        )
        answer = await client.sagas.StartSaga(request, timeout=TIMEOUT_SECONDS)
        saga = await _ended(client, request, answer.saga) if wait else answer.saga
        await show_saga(client, saga, as_json=as_json)
        if wait and saga.state != saga_pb2.SAGA_STATE_COMPLETED:
            raise typer.Exit(EXIT_NOT_COMPLETED)

    connected(ctx, work)


async def _ended(
    client: Client, request: saga_pb2.StartSagaRequest, saga: saga_pb2.Saga
) -> saga_pb2.Saga:
    """A saga once it is final or STUCK: the same request again, as long as that takes.

    A coordinator that has told its id and is then away is waited for.
    """
    request.saga_id, request.definition_hash, request.wait = (
        saga.saga_id,
        saga.definition_hash,
        True,
    )
    while saga.state in _GOING_ON:
        try:
            answer = await client.sagas.StartSaga(
                request, timeout=TIMEOUT_SECONDS, wait_for_ready=True
            )
            saga = answer.saga
        except grpc.aio.AioRpcError as error:
            if exit_code(error) != EXIT_AWAY:
                raise
            complain(f"the coordinator is away; waiting for {saga.saga_id} goes on")
            await asyncio.sleep(RECONNECT_SECONDS)
    return saga


async def _pack(client: Client, definition: str, text: str) -> any_pb2.Any:
    wanted = saga_pb2.GetDefinitionRequest(name=definition)
    answer = await client.definitions.GetDefinition(wanted, timeout=TIMEOUT_SECONDS)
    type_name = answer.version.definition.input
    try:
        return await client.types.pack(type_name, text)
    except ParseError as error:
        raise typer.BadParameter(f"--input is no {type_name}: {error}") from error
    except UnknownType as error:
        raise typer.BadParameter(f"the coordinator does not know the type {error}") from error


def get(ctx: typer.Context, saga_id: SagaId, *, as_json: AsJson = False) -> None:
    """Show one saga with the progress of every step."""

    async def work(client: Client) -> None:
        request = saga_pb2.GetSagaRequest(saga_id=saga_id)
        answer = await client.sagas.GetSaga(request, timeout=TIMEOUT_SECONDS)
        await show_saga(client, answer.saga, as_json=as_json)

    connected(ctx, work)


async def show_saga(client: Client, saga: saga_pb2.Saga, *, as_json: bool) -> None:
    """Print a saga with its steps."""
    if as_json:
        say(await saga_json(client, saga))
        return
    for line in heading_lines(saga):
        say(line)
    show_rows(STEP_COLUMNS, map(step_row, saga.steps))


async def saga_json(client: Client, saga: saga_pb2.Saga) -> str:
    """A saga as JSON, without its input when nobody knows the type of it."""
    if saga.HasField("input"):
        try:
            await client.types.load(saga.input.TypeName())
        except UnknownType as error:
            complain(f"warning: the coordinator does not know the type {error} of the input")
            saga.ClearField("input")
    return client.types.to_json(saga)


def list_(
    ctx: typer.Context,
    *,
    definition: Definition = "",
    state: States = None,
    key: Keys = None,
    limit: Annotated[int, typer.Option(min=1, help="At most how many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List sagas, newest first."""
    request = saga_pb2.ListSagasRequest(
        page_size=min(limit, 500),
        definition=definition,
        states=[state_of(name) for name in state or ()],
        keys=dict(key_of(text) for text in key or ()),
    )

    async def work(client: Client) -> None:
        found = saga_pb2.ListSagasResponse()
        async for page in pages(client.sagas.ListSagas, request):
            found.sagas.extend(page.sagas[: limit - len(found.sagas)])
            if len(found.sagas) == limit:
                break
        if as_json:
            say(client.types.to_json(found))
        else:
            show_rows(SAGA_COLUMNS, map(saga_row, found.sagas))

    connected(ctx, work)


def state_of(name: str) -> str:
    """A state as it is in messages, such as SAGA_STATE_STUCK for STUCK.

    Raises:
        typer.BadParameter: sagas have no such state.
    """
    states = saga_pb2.SagaState.keys()[1:]
    state = f"SAGA_STATE_{name.upper()}"
    if state not in states:
        names = ", ".join(known.removeprefix("SAGA_STATE_") for known in states)
        raise typer.BadParameter(f"--state is one of {names}")
    return state


def key_of(text: str) -> tuple[str, str]:
    """Key and value of KEY=VALUE.

    Raises:
        typer.BadParameter: it is written otherwise.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter("--key is KEY=VALUE")
    return key, value


def events(ctx: typer.Context, saga_id: SagaId, *, as_json: AsJson = False) -> None:
    """List what has happened to a saga, oldest first."""

    async def work(client: Client) -> None:
        request = saga_pb2.ListSagaEventsRequest(saga_id=saga_id, page_size=500)
        found = saga_pb2.ListSagaEventsResponse()
        async for page in pages(client.sagas.ListSagaEvents, request):
            found.events.extend(page.events)
        if as_json:
            say(client.types.to_json(found))
        else:
            for event in found.events:
                say(event_line(event))

    connected(ctx, work)


def explain(ctx: typer.Context, saga_id: SagaId, *, as_json: AsJson = False) -> None:
    """Say why a saga is where it is, what happens next and what can be done."""

    async def work(client: Client) -> None:
        request = saga_pb2.ExplainSagaRequest(saga_id=saga_id)
        answer = await client.sagas.ExplainSaga(request, timeout=TIMEOUT_SECONDS)
        if as_json:
            say(client.types.to_json(answer))
            return
        say(answer.explanation)
        if answer.participants:
            show_rows(PARTICIPANT_COLUMNS, map(participant_row, answer.participants))
        say(f"Accepted now: {', '.join(answer.legal_verbs) or 'nothing'}")

    connected(ctx, work)

"""Commands on definitions: what sagas run."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import indent
from typing import Annotated

import grpc.aio
import typer

from cli.client import TIMEOUT_SECONDS, Client, connected, pages
from cli.input import read_text
from cli.output import AsJson, complain, say, show_rows, time_text
from cli.refusal import EXIT_REFUSED, reason_of
from protos.saga.v1 import saga_pb2

app = typer.Typer(help="Register and read what sagas run.", no_args_is_help=True)

File = Annotated[typer.FileText, typer.Argument(help="The definition as YAML; - for stdin.")]


@app.command(epilog="Example: saga definitions register place-order.yaml")
def register(ctx: typer.Context, file: File, *, as_json: AsJson = False) -> None:
    """Check a definition against the running participants and store it."""
    source = read_text(file)

    async def work(client: Client) -> None:
        answer = await _register(client, file.name, source)
        _warn(file.name, answer.warnings)
        version = answer.version
        verb = "registered" if answer.created else "unchanged"
        text = f"{verb} {version.name} {version.definition_hash}"
        say(client.types.to_json(answer) if as_json else text)

    connected(ctx, work)


async def _register(client: Client, name: str, source: str) -> saga_pb2.RegisterDefinitionResponse:
    """Register; what is wrong is asked for again, because a refusal has no room for carets."""
    request = saga_pb2.RegisterDefinitionRequest(source=source)
    try:
        answer = await client.definitions.RegisterDefinition(request, timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        if reason_of(error) != "DEFINITION_INVALID":
            raise
        errors = (await _validate(client, source)).errors
        if not errors:
            raise
        _complain(name, errors)
        raise typer.Exit(EXIT_REFUSED) from error
    response: saga_pb2.RegisterDefinitionResponse = answer
    return response


@app.command(epilog="Example: saga definitions validate place-order.yaml")
def validate(ctx: typer.Context, file: File, *, as_json: AsJson = False) -> None:
    """Check a definition against the running participants and store nothing."""
    source = read_text(file)

    async def work(client: Client) -> None:
        answer = await _validate(client, source)
        if as_json:
            say(client.types.to_json(answer))
        else:
            _warn(file.name, answer.warnings)
            _complain(file.name, answer.errors)
        if answer.errors:
            raise typer.Exit(EXIT_REFUSED)

    connected(ctx, work)


async def _validate(client: Client, source: str) -> saga_pb2.ValidateDefinitionResponse:
    request = saga_pb2.ValidateDefinitionRequest(source=source)
    answer = await client.definitions.ValidateDefinition(request, timeout=TIMEOUT_SECONDS)
    response: saga_pb2.ValidateDefinitionResponse = answer
    return response


@app.command("list", epilog="Example: saga definitions list")
def list_(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """List the newest version of every definition."""

    async def work(client: Client) -> None:
        request = saga_pb2.ListDefinitionsRequest(page_size=500)
        found = saga_pb2.ListDefinitionsResponse()
        async for page in pages(client.definitions.ListDefinitions, request):
            found.versions.extend(page.versions)
        if as_json:
            say(client.types.to_json(found))
        else:
            show_rows(("NAME", "HASH", "REGISTERED"), map(_row, found.versions))

    connected(ctx, work)


def _row(version: saga_pb2.DefinitionVersion) -> tuple[str, str, str]:
    return version.name, version.definition_hash[:12], time_text(version.create_time)


@app.command(epilog="Example: saga definitions show place-order")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Which definition.")],
    *,
    content_hash: Annotated[
        str, typer.Option("--hash", help="Which version; by default the newest.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print a definition as it was registered."""

    async def work(client: Client) -> None:
        request = saga_pb2.GetDefinitionRequest(name=name, definition_hash=content_hash)
        answer = await client.definitions.GetDefinition(request, timeout=TIMEOUT_SECONDS)
        version = answer.version
        say(client.types.to_json(version) if as_json else version.source.rstrip("\n"))

    connected(ctx, work)


def _warn(name: str, warnings: Iterable[saga_pb2.DefinitionWarning]) -> None:
    for warning in warnings:
        place = f"{name}:{warning.line}:{warning.column}"
        complain(f"{place}: warning: {warning.path}: {warning.message}")


def _complain(name: str, errors: Iterable[saga_pb2.DefinitionError]) -> None:
    for error in errors:
        place = f"{name}:{error.line}:{error.column}"
        complain(f"{place}: {error.reason} {error.path}: {error.message}")
        if error.excerpt:
            complain(indent(error.excerpt, "    "))

"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import definitions, sagas, verbs
from cli.watch import watch

app = typer.Typer(
    name="saga",
    help="Start sagas, look at them, steer them, and register what they run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(definitions.app, name="definitions")
for command in (sagas.start, sagas.get, sagas.list_, watch, sagas.events, sagas.explain):
    app.command(command.__name__.rstrip("_"))(command)
for verb in (verbs.cancel, verbs.retry, verbs.skip, verbs.abandon):
    app.command()(verb)


@app.callback()
def main(
    ctx: typer.Context,
    *,
    address: Annotated[
        str, typer.Option(envvar="SAGA_ADDRESS", help="The coordinator, host:port.")
    ] = "localhost:50051",
) -> None:
    """Start sagas, look at them, steer them, and register what they run."""
    ctx.obj = address

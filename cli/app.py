"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import definitions, sagas, verbs
from cli.reconcile import reconcile
from cli.watch import watch

app = typer.Typer(
    name="saga",
    help="Start sagas, look at them, steer them, and register what they run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(definitions.app, name="definitions")
for name, command, example in (
    ("start", sagas.start, "saga start place-order --input order.json --id demo-1"),
    ("get", sagas.get, "saga get demo-1"),
    ("list", sagas.list_, "saga list --state STUCK --definition place-order --key customer_id=7"),
    ("watch", watch, "saga watch demo-1"),
    ("events", sagas.events, "saga events demo-1"),
    ("explain", sagas.explain, "saga explain demo-1"),
    ("cancel", verbs.cancel, 'saga cancel demo-1 --reason "the customer called"'),
    ("retry", verbs.retry, 'saga retry --all --state STUCK --reason "warehouse is back"'),
    ("skip", verbs.skip, 'saga skip demo-1 --step charge_payment --reason "refunded by hand"'),
    ("abandon", verbs.abandon, 'saga abandon demo-1 --revision 9 --reason "written off"'),
    ("reconcile", reconcile, "saga reconcile --participant inventory"),
):
    app.command(name, epilog=f"Example: {example}")(command)


@app.callback()
def main(
    ctx: typer.Context,
    *,
    address: Annotated[
        str,
        typer.Option(
            envvar="SAGA_ADDRESS", help="The coordinator: host:port, or ipv4:IP:port,IP:port."
        ),
    ] = "localhost:50051",
) -> None:
    """Start sagas, look at them, steer them, and register what they run."""
    ctx.obj = address

"""One verb for all sagas that a filter finds: shown first, asked when confirmed, told as it goes.

On a terminal rows come in colour with a count below them; in a pipe one line, or one JSON object, a
saga. Without a terminal nobody can confirm, so `--yes` must say it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import typer
from rich.console import Console
from rich.text import Text

from cli.client import RECONNECT_SECONDS, Client, connected
from cli.output import complain, say
from cli.refusal import EXIT_REFUSED, EXIT_USAGE, reason_of
from cli.views import steer_row
from protos.saga.v1 import saga_pb2

_SHOWN = 20
"""As many sagas are shown to whoever is asked to confirm."""
_STYLES = {"ACCEPTED": "green", "WOULD_ASK": "green", "REFUSED": "red", "PENDING": "yellow"}

_Request = saga_pb2.SteerSagasRequest
_Told = saga_pb2.SteerSagasResponse


def steer(ctx: typer.Context, request: _Request, *, yes: bool, as_json: bool) -> None:
    """Ask a verb of many sagas; exit code 0 when all of them accepted it, or would be asked.

    Raises:
        typer.Exit: some refused or have not decided, or nobody is there to confirm.
    """
    confirmed = yes or request.dry_run
    if not confirmed and not _someone_is_there():
        complain("error: nobody is there to confirm; add --yes, or --dry-run to look first")
        raise typer.Exit(EXIT_USAGE)

    async def work(client: Client) -> None:
        if not confirmed:
            await _confirm(client, request)
        counts = await _tell(client, request, as_json=as_json)
        complain(_sum(counts))
        if counts.keys() - {"ACCEPTED", "WOULD_ASK"}:
            raise typer.Exit(EXIT_REFUSED)

    connected(ctx, work)


def _someone_is_there() -> bool:
    return sys.stdin.isatty() and Console().is_terminal


async def _confirm(client: Client, request: _Request) -> None:
    """Show whom it would be asked of, and go on only if it is meant.

    Raises:
        typer.Abort: it is not.
    """
    trial = _Request()
    trial.CopyFrom(request)
    trial.dry_run = True
    counts: Counter[str] = Counter()
    console = Console()
    async for told in follow(client, trial):
        counts[_result(told)] += 1
        if counts.total() <= _SHOWN:
            console.print(_row(told))
    if counts.total() > _SHOWN:
        console.print(f"and {counts.total() - _SHOWN} more")
    typer.confirm(f"{_sum(counts)}. Go on?", abort=True)


async def _tell(client: Client, request: _Request, *, as_json: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    console = Console()
    with console.status("asking") as status:  # shows nothing in a pipe
        async for told in follow(client, request):
            counts[_result(told)] += 1
            if as_json:
                say(client.types.to_json(told, indent=None))
            elif console.is_terminal:
                console.print(_row(told))
            else:
                say("\t".join(steer_row(told)))
            status.update(_sum(counts))
    return counts


async def follow(client: Client, request: _Request) -> AsyncIterator[_Told]:
    """What came of each saga, once. A coordinator that goes away is asked again for the rest."""
    heard: set[str] = set()
    while True:
        try:
            async for told in client.sagas.SteerSagas(request, wait_for_ready=bool(heard)):
                if told.saga_id not in heard:
                    heard.add(told.saga_id)
                    yield told
        except grpc.aio.AioRpcError as error:
            if heard and reason_of(error) == "NO_SAGA_MATCHES":
                return  # all were asked before it went away
            if error.code() is not grpc.StatusCode.UNAVAILABLE or not heard:
                raise
            complain(f"the coordinator is away; asking goes on after {len(heard)} sagas")
            await asyncio.sleep(RECONNECT_SECONDS)
        else:
            return


def _result(told: _Told) -> str:
    return saga_pb2.SteerResult.Name(told.result).removeprefix("STEER_RESULT_")


def _row(told: _Told) -> Text:
    text = "  ".join(cell for cell in steer_row(told) if cell)
    return Text(text, style=_STYLES.get(_result(told), ""))


def _sum(counts: Counter[str]) -> str:
    """Such as "12 accepted, 1 refused"."""
    parts = (f"{count} {result.lower().replace('_', ' ')}" for result, count in counts.items())
    return ", ".join(parts)
